use serde_json::json;

use crate::server::{Server, binary_request, options, png, sample};

#[test]
fn each_bad_request_gets_its_own_line_and_the_server_lives() {
    let server = Server::start(options());
    let good = png(8, 8);
    let token = |value: i64| json!({ "tokens": [vec![value; 192]] }).to_string();
    let nested = "[".repeat(5000);
    let layout = |size: &str| {
        let tokens = json!([vec![0; 192]]).to_string();
        format!("{{\"layout\": {{\"size\": {size}}}, \"tokens\": {tokens}}}")
    };
    let json = "application/json";
    let table: Vec<(&str, &str, Vec<u8>, u16)> = vec![
        ("/encode", "image/png", b"".to_vec(), 400),
        ("/encode", "image/png", b"no picture".to_vec(), 415),
        ("/encode", "image/png", good[..40].to_vec(), 400),
        ("/encode", "image/png", good[..good.len() - 20].to_vec(), 400),
        ("/encode", json, b"{}".to_vec(), 415),
        ("/encode", "multipart/form-data", b"x".to_vec(), 400),
        ("/encode", "multipart/form-data; boundary=b", b"garbage".to_vec(), 400),
        ("/encode", "multipart/form-data; boundary=b", b"--b--\r\n".to_vec(), 400),
        (
            "/encode",
            "multipart/form-data; boundary=b",
            b"--b\r\nContent-Disposition: form-data; name=\"other\"\r\n\r\nx\r\n--b--\r\n".to_vec(),
            400,
        ),
        ("/reconstruct", "", b"\x00\xff\xfe".to_vec(), 415),
        ("/inspect", "image/png", b"x".to_vec(), 415),
        ("/decode", "text/plain", b"x".to_vec(), 415),
        ("/decode", json, b"".to_vec(), 400),
        ("/decode", json, b"{\"tokens\": ".to_vec(), 400),
        ("/decode", json, b"\xff\xff".to_vec(), 400),
        ("/decode", json, nested.clone().into_bytes(), 400),
        ("/decode", json, b"{\"tokens\": []}".to_vec(), 400),
        ("/decode", json, b"{\"tokens\": [[1, 2]]}".to_vec(), 400),
        ("/decode", json, token(64).into_bytes(), 400),
        ("/decode", json, token(-1).into_bytes(), 400),
        ("/decode", json, layout("[8, 9, 3]").into_bytes(), 400),
        ("/decode", json, layout("[8, 8]").into_bytes(), 400),
        ("/decode", json, layout("[0, 8, 3]").into_bytes(), 400),
        ("/decode", json, layout("[18446744073709551615, 2, 3]").into_bytes(), 413),
        ("/decode", json, b"{\"hash\": \"other\", \"tokens\": [[1]]}".to_vec(), 400),
        ("/decode", "application/x-tessera", b"STAND-INx".to_vec(), 400),
        ("/decode", "application/x-tessera", b"garbage".to_vec(), 400),
        ("/sample", json, b"[]".to_vec(), 400),
        ("/sample", json, b"{\"num\": 0}".to_vec(), 400),
        ("/sample", json, b"{\"num\": 1000000000}".to_vec(), 400),
        ("/sample", json, b"{\"class\": 2}".to_vec(), 400),
        ("/sample", json, b"{\"temperature\": 0}".to_vec(), 400),
        ("/sample", json, b"{\"top_p\": 2}".to_vec(), 400),
        ("/sample", json, b"{\"seed\": -1}".to_vec(), 400),
        ("/sample", json, b"{\"unknown\": 1}".to_vec(), 400),
        ("/sample", "text/plain", b"{}".to_vec(), 415),
        ("/nowhere", json, b"{}".to_vec(), 404),
        ("/v2/models/other/infer", json, b"{}".to_vec(), 404),
        ("/v2/models/encode/infer", json, b"{}".to_vec(), 400),
        ("/v2/models/encode/infer", json, nested.into_bytes(), 400),
    ];
    for (path, content_type, body, status) in table {
        let answer = server.post(path, content_type, &body);
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        assert_eq!(answer.status, status, "{path} {shown}: {}", answer.text());
        answer.error();
    }
    assert_eq!(server.post("/encode", "image/png", &good).status, 200);
}

#[test]
fn each_bad_tensor_is_refused() {
    let server = Server::start(options());
    let input = |name: &str, shape: serde_json::Value, datatype: &str, data: serde_json::Value| json!({ "inputs": [{ "name": name, "shape": shape, "datatype": datatype, "data": data }] });
    let data = json!(sample(1));
    let shape = json!([1, 8, 8, 3]);
    let mut both = input("samples", shape.clone(), "UINT8", data.clone());
    both["inputs"][0]["parameters"] = json!({ "binary_data_size": 192 });
    let mut list = input("samples", shape.clone(), "UINT8", data.clone());
    list["parameters"] = json!([]);
    let mut output = input("samples", shape.clone(), "UINT8", data.clone());
    output["outputs"] = json!([{ "name": "other" }]);
    for body in [
        input("other", shape.clone(), "UINT8", data.clone()),
        input("samples", json!([1, 8, 8]), "UINT8", data.clone()),
        input("samples", json!([0, 8, 8, 3]), "UINT8", json!([])),
        input("samples", json!([-1, 8, 8, 3]), "UINT8", data.clone()),
        input("samples", json!([2, 8, 8, 3]), "UINT8", data.clone()),
        input("samples", json!([u64::MAX, 8, 8, 3]), "UINT8", data.clone()),
        input("samples", shape.clone(), "FP32", data.clone()),
        input("samples", shape.clone(), "UINT8", json!(vec![256; 192])),
        input("samples", shape.clone(), "UINT8", json!(vec![0.5; 192])),
        input("samples", shape.clone(), "UINT8", json!("text")),
        input("samples", shape, "UINT8", json!(null)),
        both,
        list,
        output,
    ] {
        let text = body.to_string();
        let answer = server.post("/v2/models/encode/infer", "application/json", text.as_bytes());
        assert_eq!(answer.status, 400, "{text:.100}: {}", answer.text());
        answer.error();
    }
    for value in [-1, 64] {
        let body = input("tokens", json!([1, 192]), "INT32", json!(vec![value; 192]));
        let path = "/v2/models/decode/infer";
        let answer = server.post(path, "application/json", body.to_string().as_bytes());
        assert_eq!(answer.status, 400, "{value}");
    }
    let (body, length) = binary_request("samples", "UINT8", &[1, 8, 8, 3], &sample(1));
    let cut = body.len() - 1;
    for (length, body) in [
        ("x", &body[..]),
        ("999999", &body[..]),
        ("-1", &body[..]),
        ("3", &body[..]),
        (length.as_str(), &body[..cut]),
    ] {
        let headers = [("Inference-Header-Content-Length", length)];
        let answer = server.client().ask("POST", "/v2/models/encode/infer", &headers, body);
        assert_eq!(answer.status, 400, "{length}");
        answer.error();
    }
}

#[test]
fn what_is_no_http_is_cut_off_and_odd_methods_are_refused() {
    let server = Server::start(options());
    for garbage in [&b"\x16\x03\x01\x02\x00\x01"[..], b"GET\r\n\r\n", b"\x00\x00\x00\x00\r\n\r\n"] {
        let mut client = server.client();
        client.send_raw(garbage);
        client.send_raw(b"\r\n\r\n");
        assert_eq!(client.read().map_or(400, |answer| answer.status), 400);
    }
    let mut client = server.client();
    client.send_raw(b"GET / HTTP/1.1\r\nHost: localhost\r\nLong: ");
    client.send_raw(&vec![b'a'; 1 << 20]);
    client.send_raw(b"\r\n\r\n");
    // The answer may be lost, as the server does not read to the end.
    assert_eq!(client.read().map_or(431, |answer| answer.status), 431);
    for (method, path) in
        [("PUT", "/encode"), ("GET", "/encode"), ("POST", "/model"), ("BREW", "/")]
    {
        let answer = server.client().ask(method, path, &[], b"");
        assert_eq!(answer.status, 405, "{method} {path}");
        assert!(answer.headers.contains_key("allow"));
        answer.error();
    }
    let headers = [("Content-Encoding", "gzip"), ("Content-Type", "image/png")];
    assert_eq!(server.client().ask("POST", "/encode", &headers, b"x").status, 415);
    assert_eq!(server.get("/healthz").status, 200);
}
