use std::sync::Arc;

use serde_json::json;
use tessera_serve::{Modality, Options};

use crate::engine::{StandIn, TILE};
use crate::server::{Server, options, sample};

fn body(number: usize) -> Vec<u8> {
    let inputs = json!([{
        "name": "samples", "shape": [1, 8, 8, 3], "datatype": "UINT8", "data": sample(number),
    }]);
    json!({ "inputs": inputs }).to_string().into_bytes()
}

#[test]
fn requests_of_many_clients_share_batches_and_each_gets_its_own_answer() {
    const NUM_CLIENTS: usize = 64;
    let server = Arc::new(Server::start(options()));
    server.brake.set(true);
    let clients: Vec<_> = (0..NUM_CLIENTS)
        .map(|number| {
            let server = Arc::clone(&server);
            std::thread::spawn(move || {
                server.post("/v2/models/encode/infer", "application/json", &body(number)).json()
            })
        })
        .collect();
    server.wait_until(|server| server.figure("tessera_queue_samples") == NUM_CLIENTS as f64);
    server.brake.set(false);
    for (number, client) in clients.into_iter().enumerate() {
        let expected = StandIn::tokens_of(Modality::Picture, &sample(number));
        assert_eq!(client.join().unwrap()["outputs"][0]["data"], json!(expected));
    }
    let sizes = server.batch_sizes.lock().unwrap().clone();
    assert_eq!(sizes.iter().sum::<usize>(), NUM_CLIENTS);
    // All waited behind the first batch: each later one is full, but for the last.
    assert!(sizes[1..sizes.len() - 1].iter().all(|&size| size == TILE), "{sizes:?}");
    assert!(sizes.len() <= NUM_CLIENTS / TILE + 1, "{sizes:?}");
}

#[test]
fn a_full_queue_refuses_and_empties_again() {
    let server =
        Arc::new(Server::start(Options { queue_samples: 2, request_samples: 2, ..options() }));
    server.brake.set(true);
    let clients: Vec<_> = (0..2)
        .map(|number| {
            let server = Arc::clone(&server);
            std::thread::spawn(move || {
                server.post("/v2/models/encode/infer", "application/json", &body(number)).status
            })
        })
        .collect();
    server.wait_until(|server| server.figure("tessera_queue_samples") == 2.0);
    let refused = server.post("/v2/models/encode/infer", "application/json", &body(3));
    assert_eq!(refused.status, 429);
    assert_eq!(refused.headers["retry-after"], "1");
    refused.error();
    server.brake.set(false);
    for client in clients {
        assert_eq!(client.join().unwrap(), 200);
    }
    assert_eq!(server.figure("tessera_queue_samples"), 0.0);
    let answer = server.post("/v2/models/encode/infer", "application/json", &body(3));
    assert_eq!(answer.status, 200);
}

#[test]
fn work_of_a_client_that_left_is_not_done() {
    let server = Server::start(options());
    server.brake.set(true);
    let mut first = server.client();
    first.send("POST", "/v2/models/encode/infer", &[], &body(1));
    // The first is in the model's hands before the second comes.
    server.wait_until(|server| !server.batch_sizes.lock().unwrap().is_empty());
    let mut second = server.client();
    second.send("POST", "/v2/models/encode/infer", &[], &body(2));
    server.wait_until(|server| server.figure("tessera_queue_samples") == 2.0);
    drop(second);
    server.wait_until(|server| server.figure("tessera_clients_left_total") == 1.0);
    server.brake.set(false);
    assert_eq!(first.read().unwrap().status, 200);
    server.wait_until(|server| server.figure("tessera_queue_samples") == 0.0);
    assert_eq!(*server.batch_sizes.lock().unwrap(), [1]);
}

#[test]
fn figures_are_in_the_text_format_and_histograms_add_up() {
    let server = Server::start(options());
    for number in 0..3 {
        server.post("/v2/models/encode/infer", "application/json", &body(number));
    }
    let answer = server.get("/metrics");
    assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let bare = name.split('{').next().unwrap();
        let family = ["_bucket", "_sum", "_count"]
            .iter()
            .find_map(|suffix| bare.strip_suffix(suffix))
            .filter(|family| text.contains(&format!("# TYPE {family} histogram")))
            .unwrap_or(bare);
        assert!(text.contains(&format!("# TYPE {family} ")), "{line}");
    }
    let route = "route=\"/v2/models/{model}/infer\"";
    assert!(
        text.contains(&format!("tessera_requests_total{{{route},code=\"200\"}} 3\n")),
        "{text}"
    );
    // The warm-up encodes one sample, and the three requests come one after another.
    assert!(text.contains("tessera_batch_size_bucket{kind=\"encode\",le=\"1\"} "), "{text}");
    let of_route = format!("tessera_request_duration_seconds_bucket{{{route}");
    let counts: Vec<f64> = text
        .lines()
        .filter(|line| line.starts_with(&of_route))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
        .collect();
    assert!(counts.is_sorted(), "{counts:?}");
    assert_eq!(counts.last(), Some(&3.0));
}
