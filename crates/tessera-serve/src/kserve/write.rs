//! Writes the answer to an inference request.

use axum::http::HeaderValue;
use axum::response::Response;
use serde::{Serialize, Serializer};

use super::{HEADER_LENGTH, Tensor, VERSION};
use crate::refusal::{self, with_type};

/// Tokens as INT32, little-endian.
pub(super) fn bytes_of_tokens(tokens: &[Vec<u32>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for token in tokens.iter().flatten() {
        // Codes are far fewer than 2^31, so the bytes are those of an INT32 too.
        bytes.extend_from_slice(&token.to_le_bytes());
    }
    bytes
}

/// An answer, or what goes before its binary tensor.
#[derive(Serialize)]
struct Head<'a> {
    model_name: &'a str,
    model_version: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: [Given<'a>; 1],
}

#[derive(Serialize)]
struct Given<'a> {
    name: &'a str,
    datatype: &'a str,
    shape: Vec<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Parameters>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Numbers<'a>>,
}

#[derive(Serialize)]
struct Parameters {
    binary_data_size: usize,
}

/// Values of 1, 2 or 4 bytes, written as numbers one after another: a list of JSON values would be 30 times as large.
struct Numbers<'a> {
    bytes: &'a [u8],
    value_bytes: usize,
}

impl Serialize for Numbers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number = |value: &[u8]| match *value {
            [byte] => i32::from(byte),
            [low, high] => i32::from(i16::from_le_bytes([low, high])),
            [a, b, c, d] => i32::from_le_bytes([a, b, c, d]),
            _ => unreachable!("the datatypes of these models have 1, 2 or 4 bytes"),
        };
        serializer.collect_seq(self.bytes.chunks_exact(self.value_bytes).map(number))
    }
}

/// The answer of a model with this output, whose values are given little-endian.
pub(super) fn answer(
    model: &str,
    id: Option<&str>,
    output: &Tensor,
    bytes: &[u8],
    is_binary: bool,
) -> Response {
    let value_bytes = output.value_bytes();
    let mut shape = vec![bytes.len() / (output.num_values() * value_bytes)];
    shape.extend(&output.sample_shape);
    let outputs = [Given {
        name: output.name,
        datatype: output.datatype,
        shape,
        parameters: is_binary.then_some(Parameters { binary_data_size: bytes.len() }),
        data: (!is_binary).then_some(Numbers { bytes, value_bytes }),
    }];
    let head = Head { model_name: model, model_version: VERSION, id, outputs };
    if !is_binary {
        return refusal::json(&head);
    }
    let mut body = serde_json::to_vec(&head).expect("it has string keys alone");
    let length = body.len();
    body.extend_from_slice(bytes);
    let mut response = with_type("application/octet-stream", body);
    response.headers_mut().insert(HEADER_LENGTH, HeaderValue::from(length));
    response
}
