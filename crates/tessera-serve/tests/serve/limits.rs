use std::time::Duration;

use tessera_serve::Options;

use crate::server::{Server, options, png};

#[test]
fn a_body_above_the_limit_is_refused_by_its_told_and_by_its_real_length() {
    let server = Server::start(Options { body_bytes: 1000, ..options() });
    let answer = server.post("/encode", "image/png", &[0; 5000]);
    assert_eq!(answer.status, 413);
    answer.error();
    let mut client = server.client();
    client.send_raw(
        b"POST /encode HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n",
    );
    for _ in 0..3 {
        client.send_raw(b"1f4\r\n");
        client.send_raw(&[b'x'; 500]);
        client.send_raw(b"\r\n");
    }
    client.send_raw(b"0\r\n\r\n");
    assert_eq!(client.read().unwrap().status, 413);
    assert_eq!(server.get("/healthz").status, 200);
}

#[test]
fn pixels_and_samples_are_limited_too() {
    let server = Server::start(Options { request_samples: 4, ..options() });
    // 24 x 16 pixels are 3 x 2 samples.
    let answer = server.post("/encode", "image/png", &png(24, 16));
    assert_eq!(answer.status, 413);
    assert_eq!(answer.error(), "expected at most 4 samples in a request, got 6");
    // A header alone that tells of 2^20 + 1024 pixels.
    let answer = server.post("/encode", "image/png", &png(1025, 1024));
    assert_eq!(answer.status, 413);
    assert_eq!(server.post("/encode", "image/png", &png(16, 16)).status, 200);
}

#[test]
fn bodies_together_are_limited() {
    let server = Server::start(Options { body_bytes: 1000, total_body_bytes: 1000, ..options() });
    let mut slow = server.client();
    slow.send_raw(b"POST /encode HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\nabc");
    // Its share is taken for the whole body, as its headers tell.
    server.wait_until(|server| server.figure("tessera_body_bytes") == 900.0);
    assert_eq!(server.post("/encode", "image/png", &[1; 200]).status, 429);
    drop(slow);
    server.wait_until(|server| server.figure("tessera_body_bytes") == 0.0);
    assert_eq!(server.post("/encode", "image/png", &[1; 200]).status, 415);
}

#[test]
fn slow_headers_slow_bodies_and_idle_connections_are_cut() {
    // Long enough for a request that is not slow, on a machine that is.
    let short = Duration::from_millis(500);
    let server = Server::start(Options { header_timeout: short, body_timeout: short, ..options() });
    let mut client = server.client();
    client.send_raw(b"GET /healthz HTTP/1.1\r\nHos");
    assert!(client.is_closed());
    let mut client = server.client();
    assert_eq!(client.ask("GET", "/healthz", &[], b"").status, 200);
    assert!(client.is_closed());
    let mut client = server.client();
    client.send_raw(b"POST /encode HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc");
    assert_eq!(client.read().unwrap().status, 408);
}

#[test]
fn a_request_that_takes_too_long_is_answered_and_forgotten() {
    let server =
        Server::start(Options { request_timeout: Duration::from_millis(500), ..options() });
    server.brake.set(true);
    let answer = server.post("/encode", "image/png", &png(8, 8));
    assert_eq!(answer.status, 504);
    answer.error();
    server.brake.set(false);
    server.wait_until(|server| server.figure("tessera_queue_samples") == 0.0);
}

#[test]
fn connections_above_the_limit_wait_for_their_turn() {
    let server = Server::start(Options { connections: 1, ..options() });
    let mut first = server.client();
    assert_eq!(first.ask("GET", "/healthz", &[], b"").status, 200);
    let mut second = server.client();
    second.send("GET", "/healthz", &[], b"");
    drop(first);
    assert_eq!(second.read().unwrap().status, 200);
}

#[test]
fn a_client_that_does_not_read_is_cut() {
    let write_timeout = Duration::from_millis(50);
    let server = Server::start(Options { write_timeout, ..options() });
    let mut deaf = server.client();
    // Many requests at once, whose answers nobody reads: they fill what the system keeps.
    for _ in 0..2000 {
        deaf.send_raw(b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    // Its own connection is the only one left besides that of the question.
    server.wait_until(|server| server.figure("tessera_connections") == 1.0);
}

#[test]
fn a_name_that_the_server_does_not_have_is_refused() {
    let server = Server::start(Options { hosts: vec!["models.example".to_owned()], ..options() });
    let mut client = server.client();
    for (host, status) in [("models.example:9", 200), ("evil.example", 421), ("[::1]", 200)] {
        client.send_raw(format!("GET /v2 HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes());
        let answer = client.read().unwrap();
        assert_eq!(answer.status, status, "{host}");
    }
}

#[test]
fn only_who_has_the_token_is_answered() {
    let bearer_token = Some("s3cret".to_owned());
    let server = Server::loading(
        tessera_serve::Modality::Picture,
        Options { bearer_token, ..options() },
        crate::server::Brake::default(),
    );
    server.wait_until(|server| server.get("/v2/health/ready").status == 200);
    for path in ["/", "/healthz", "/v2/health/live"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    for path in ["/model", "/metrics", "/openapi.json", "/v2", "/v2/models/encode"] {
        let answer = server.get(path);
        assert_eq!(answer.status, 401, "{path}");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
        answer.error();
    }
    for (header, status) in [("Bearer s3cret", 200), ("Bearer s3cre", 401), ("Basic s3cret", 401)] {
        let headers = [("Authorization", header), ("Connection", "close")];
        assert_eq!(server.client().ask("GET", "/model", &headers, b"").status, status, "{header}");
    }
    let answer = server.post("/encode", "image/png", &png(8, 8));
    assert_eq!(answer.status, 401);
}
