use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tessera_serve::{Modality, Options, ServeError};

use crate::engine::StandIn;
use crate::server::{Brake, FAILING_SEED, PANICKING_SEED, Server, options, png, sample};

#[test]
fn the_server_is_alive_before_its_model_is_ready() {
    let brake = Brake::default();
    brake.set(true);
    let server = Server::loading(Modality::Picture, options(), brake.clone());
    assert_eq!(server.get("/v2/health/live").status, 200);
    for path in ["/v2/health/ready", "/v2/models/encode/ready"] {
        assert_eq!(server.get(path).status, 503, "{path}");
    }
    let early = server.post("/encode", "image/png", &png(8, 8));
    assert_eq!(early.status, 503);
    assert_eq!(early.headers["retry-after"], "1");
    brake.set(false);
    server.wait_until(|server| server.get("/v2/health/ready").status == 200);
    assert_eq!(server.post("/encode", "image/png", &png(8, 8)).status, 200);
}

#[test]
fn a_stop_under_load_loses_no_request() {
    const NUM_CLIENTS: usize = 16;
    /// Answers after which the stop is asked.
    const NUM_BEFORE: usize = 200;
    let linger = Duration::from_secs(30); // ends as soon as all connections are closed
    let server = Server::start(Options { linger, ..options() });
    let num_answers = Arc::<AtomicUsize>::default();
    let clients: Vec<_> = (0..NUM_CLIENTS)
        .map(|number| {
            let (mut client, num_answers) = (server.client(), Arc::clone(&num_answers));
            std::thread::spawn(move || {
                let expected = StandIn::tokens_of(Modality::Picture, &sample(number));
                let body = json!({ "inputs": [{
                    "name": "samples", "shape": [1, 8, 8, 3], "datatype": "UINT8",
                    "data": sample(number),
                }] });
                let body = body.to_string();
                loop {
                    // A lost request fails here, as the connection ends without an answer.
                    let answer =
                        client.ask("POST", "/v2/models/encode/infer", &[], body.as_bytes());
                    assert_eq!(answer.json()["outputs"][0]["data"], json!(expected));
                    num_answers.fetch_add(1, Ordering::Relaxed);
                    if answer.headers.contains_key("connection") {
                        return;
                    }
                }
            })
        })
        .collect();
    server.wait_until(|_| num_answers.load(Ordering::Relaxed) >= NUM_BEFORE);
    let address = server.address;
    server.end().unwrap();
    for client in clients {
        client.join().unwrap();
    }
    assert!(std::net::TcpStream::connect(address).is_err(), "it still listens");
}

#[test]
fn what_is_on_its_way_at_a_stop_is_answered_and_new_connections_are_refused() {
    let server = Server::start(options());
    server.brake.set(true);
    let mut client = server.client();
    client.send("POST", "/encode", &[("Content-Type", "image/png")], &png(8, 8));
    server.wait_until(|server| server.figure("tessera_queue_samples") == 1.0);
    server.stop.stop();
    server.wait_until(|server| std::net::TcpStream::connect(server.address).is_err());
    server.brake.set(false);
    let answer = client.read().unwrap();
    assert_eq!((answer.status, answer.headers["connection"].as_str()), (200, "close"));
    server.end().unwrap();
}

#[test]
fn a_stop_ends_at_its_deadline() {
    let server = Server::start(Options { stop_timeout: Duration::from_millis(50), ..options() });
    let brake = server.brake.clone();
    brake.set(true);
    let mut client = server.client();
    client.send("POST", "/encode", &[("Content-Type", "image/png")], &png(8, 8));
    server.wait_until(|server| server.figure("tessera_queue_samples") == 1.0);
    // The question for the figure may still be closing its connection.
    let ended = server.end();
    assert!(matches!(ended, Err(ServeError::Unfinished { connections: 1.., .. })), "{ended:?}");
    assert!(client.read().is_err());
    brake.set(false);
}

#[test]
fn a_failing_batch_is_answered_and_a_panic_ends_the_server_with_an_error() {
    let server = Server::start(options());
    let ask = |seed: u64| {
        let body = json!({ "seed": seed }).to_string();
        server.post("/sample", "application/json", body.as_bytes())
    };
    let failed = ask(FAILING_SEED);
    assert_eq!(failed.status, 500);
    assert_eq!(failed.error(), "the model has failed: this seed fails");
    assert_eq!(ask(1).status, 200);
    let panicked = ask(PANICKING_SEED);
    assert_eq!(panicked.status, 500);
    assert_eq!(panicked.error(), "the model has failed: this seed panics");
    let ended = server.wait();
    assert!(
        matches!(&ended, Err(ServeError::Engine(line)) if line == "this seed panics"),
        "{ended:?}"
    );
}

#[test]
fn a_model_that_cannot_be_loaded_ends_the_server() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let service = tessera_serve::Service {
        description: crate::engine::describe(Modality::Picture),
        engine: Box::new(|| Err("no such folder".to_owned())),
        media: Arc::new(crate::media::Files { modality: Modality::Picture }),
        options: options(),
    };
    let ended = tessera_serve::run(listener, service, tessera_serve::Stop::default());
    assert_eq!(ended.unwrap_err().to_string(), "the model failed: no such folder");
}

#[test]
fn a_request_keeps_the_name_that_its_client_gave() {
    let server = Server::start(options());
    let mut client = server.client();
    let given = client.ask("GET", "/healthz", &[("X-Request-Id", "a-1")], b"");
    assert_eq!(given.headers["x-request-id"], "a-1");
    let odd = client.ask("GET", "/healthz", &[("X-Request-Id", "a b")], b"");
    assert_ne!(odd.headers["x-request-id"], "a b");
}
