use serde_json::json;
use tessera_serve::Modality;

use crate::client::Answer;
use crate::engine::StandIn;
use crate::server::{Server, binary_request, options, sample};

fn tokens_of(sample: &[u8]) -> Vec<u32> {
    StandIn::tokens_of(Modality::Picture, sample)
}

/// The binary tensor behind an answer's JSON.
fn binary(answer: &Answer) -> (serde_json::Value, Vec<u8>) {
    assert_eq!(answer.status, 200, "{:?}", String::from_utf8_lossy(&answer.body));
    let length: usize = answer.headers["inference-header-content-length"].parse().unwrap();
    let head = serde_json::from_slice(&answer.body[..length]).unwrap();
    (head, answer.body[length..].to_vec())
}

#[test]
fn json_is_answered_in_json_with_values_flat_or_nested() {
    let server = Server::start(options());
    let flat = sample(1);
    let rows: Vec<&[u8]> = flat.chunks(24).collect();
    for data in [json!(flat), json!([rows])] {
        let body = json!({
            "id": "a",
            "inputs": [{ "name": "samples", "shape": [1, 8, 8, 3], "datatype": "UINT8", "data": data }],
            "outputs": [{ "name": "tokens" }],
        });
        let path = "/v2/models/encode/infer";
        let answer = server.post(path, "application/json", body.to_string().as_bytes());
        let expected = json!({
            "model_name": "encode", "model_version": "1", "id": "a",
            "outputs": [{
                "name": "tokens", "datatype": "INT32", "shape": [1, 192], "data": tokens_of(&flat),
            }],
        });
        assert_eq!(answer.json(), expected);
    }
}

#[test]
fn binary_tensors_go_in_and_come_out() {
    let server = Server::start(options());
    let samples = [sample(1), sample(2)].concat();
    let (body, length) = binary_request("samples", "UINT8", &[2, 8, 8, 3], &samples);
    let headers = [("Inference-Header-Content-Length", length.as_str())];
    let mut client = server.client();
    let answer = client.ask("POST", "/v2/models/encode/versions/1/infer", &headers, &body);
    let (head, tokens) = binary(&answer);
    assert_eq!(head["id"], "7");
    assert_eq!(head["outputs"][0]["parameters"]["binary_data_size"], tokens.len());
    let expected = [tokens_of(&sample(1)), tokens_of(&sample(2))].concat();
    let given: Vec<u32> =
        tokens.chunks_exact(4).map(|four| u32::from_le_bytes(four.try_into().unwrap())).collect();
    assert_eq!(given, expected);

    let (body, length) = binary_request("tokens", "INT32", &[2, 192], &tokens);
    let headers = [("Inference-Header-Content-Length", length.as_str())];
    let (head, decoded) = binary(&client.ask("POST", "/v2/models/decode/infer", &headers, &body));
    assert_eq!(head["outputs"][0]["shape"], json!([2, 8, 8, 3]));
    // A byte's token is byte / 4 and stands for 4 * token + 2.
    let middle: Vec<u8> = samples.iter().map(|byte| byte / 4 * 4 + 2).collect();
    assert_eq!(decoded, middle);

    let (body, length) = binary_request("samples", "UINT8", &[2, 8, 8, 3], &samples);
    let headers = [("Inference-Header-Content-Length", length.as_str())];
    let answer = client.ask("POST", "/v2/models/reconstruct/infer", &headers, &body);
    assert_eq!(binary(&answer).1, middle);
}

#[test]
fn sound_has_signed_values_of_two_bytes() {
    let server = Server::of(Modality::Sound, options());
    let mut values = vec![0i16; 64];
    values[..3].copy_from_slice(&[-32768, -1, 32767]);
    let body = json!({
        "inputs": [{ "name": "samples", "shape": [1, 64, 1], "datatype": "INT16", "data": values }],
    });
    let body = body.to_string();
    let answer = server.post("/v2/models/encode/infer", "application/json", body.as_bytes());
    let tokens = answer.json()["outputs"][0]["data"].clone();
    // (value + 32768) / 16: 0, 32767 / 16 = 2047, 65535 / 16 = 4095, 32768 / 16 = 2048.
    assert_eq!([&tokens[0], &tokens[1], &tokens[2], &tokens[3]], [0, 2047, 4095, 2048]);
    let answer = server.post("/v2/models/reconstruct/infer", "application/json", body.as_bytes());
    let data = answer.json()["outputs"][0]["data"].clone();
    // 16 * token + 8 - 32768.
    assert_eq!([&data[0], &data[1], &data[2], &data[3]], [-32760, -8, 32760, 8]);
}

#[test]
fn metadata_tells_names_types_and_shapes() {
    let server = Server::start(options());
    let told = server.get("/v2/models/decode/versions/1").json();
    assert_eq!(
        told["inputs"],
        json!([{ "name": "tokens", "datatype": "INT32", "shape": [-1, 192] }])
    );
    assert_eq!(told["outputs"][0]["shape"], json!([-1, 8, 8, 3]));
    assert_eq!(server.get("/v2").json()["extensions"], json!(["binary_tensor_data"]));
    for path in ["/v2/health/live", "/v2/health/ready", "/v2/models/encode/ready"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    for path in ["/v2/models/other", "/v2/models/encode/versions/2"] {
        assert_eq!(server.get(path).status, 404, "{path}");
        server.get(path).error();
    }
}
