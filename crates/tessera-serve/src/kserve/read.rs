//! Reads an inference request: JSON, or JSON with binary tensors behind it.

use axum::body::Bytes;
use axum::http::HeaderMap;
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

use super::{HEADER_LENGTH, Tensor};
use crate::object::Object;
use crate::refusal::Refusal;
use crate::whole::{self, Whole};

/// What is asked of a model.
#[derive(Debug)]
pub(super) struct Asked {
    /// Repeated in the answer.
    pub(super) id: Option<String>,
    /// Whether the answer's tensor follows its JSON in binary.
    pub(super) is_binary: bool,
    pub(super) num_samples: usize,
    pub(super) values: Values,
}

/// The values of the input: little-endian, of its datatype.
#[derive(Debug)]
pub(super) struct Values(Bytes);

#[derive(Debug, Deserialize)]
struct Body {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    parameters: Option<Object<Parameters>>,
    inputs: Vec<Object<Input>>,
    #[serde(default)]
    outputs: Option<Vec<Object<Output>>>,
}

#[derive(Debug, Deserialize)]
struct Input {
    name: String,
    shape: Vec<Whole<u64>>,
    datatype: String,
    #[serde(default)]
    parameters: Option<Object<Parameters>>,
    #[serde(default)]
    data: Option<Flat>,
}

#[derive(Debug, Deserialize)]
struct Output {
    name: String,
    #[serde(default)]
    parameters: Option<Object<Parameters>>,
}

/// The parameters that are understood; others are for other servers.
#[derive(Debug, Default, Deserialize)]
struct Parameters {
    #[serde(default)]
    binary_data_size: Option<Whole<u64>>,
    #[serde(default)]
    binary_data: Option<bool>,
    #[serde(default)]
    binary_data_output: Option<bool>,
}

/// Whole numbers, from lists nested in any way: the protocol allows flat ones and those of the tensor's shape.
#[derive(Debug, Default)]
struct Flat(Vec<i64>);

/// The length of the JSON, where binary tensors follow.
pub(super) fn header_length(headers: &HeaderMap) -> Result<Option<usize>, Refusal> {
    let Some(value) = headers.get(HEADER_LENGTH) else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.parse().ok());
    length.map(Some).ok_or_else(|| {
        Refusal::bad(format!("header {HEADER_LENGTH}: expected a number of bytes, got {value:?}"))
    })
}

/// Reads a request for a model with this input and an output of this name.
pub(super) fn read(
    bytes: &Bytes,
    header_length: Option<usize>,
    input: &Tensor,
    output_name: &str,
) -> Result<Asked, Refusal> {
    let length = header_length.unwrap_or(bytes.len());
    if length > bytes.len() {
        let message = format!("expected {length} bytes of JSON, got {} bytes in all", bytes.len());
        return Err(Refusal::bad(message));
    }
    let Object(body): Object<Body> = serde_json::from_slice(&bytes[..length])
        .map_err(|error| Refusal::bad(format!("expected {{\"inputs\": [..]}}: {error}")))?;
    let binary = bytes.slice(length..);
    let is_binary = is_binary(&body, output_name)?;
    let [Object(given)] = <[Object<Input>; 1]>::try_from(body.inputs).map_err(|inputs| {
        let (name, came) = (input.name, inputs.len());
        Refusal::bad(format!("expected one input, `{name}`, got {came}"))
    })?;
    check_head(&given, input)?;
    let shape: Vec<u64> = given.shape.iter().map(|&Whole(axis)| axis).collect();
    let num_samples = num_samples(&shape, input)?;
    let num_values = num_samples.saturating_mul(input.num_values());
    let size = given.parameters.and_then(|Object(parameters)| parameters.binary_data_size);
    let values = match (size, given.data) {
        (Some(Whole(size)), None) => of_binary(size, binary, num_values, input)?,
        (None, Some(_)) if !binary.is_empty() => {
            let came = binary.len();
            return Err(Refusal::bad(format!("{came} bytes after the JSON belong to no input")));
        }
        (None, Some(data)) => of_json(&data.0, num_values, input)?,
        _ => {
            let message = "expected either `data` or `parameters.binary_data_size` in the input";
            return Err(Refusal::bad(message));
        }
    };
    Ok(Asked { id: body.id, is_binary, num_samples, values: Values(values) })
}

impl Values {
    /// Cuts values into samples, without copying them.
    pub(super) fn into_samples(self, input: &Tensor) -> Vec<Bytes> {
        let size = input.num_values() * input.value_bytes();
        (0..self.0.len() / size).map(|at| self.0.slice(at * size..(at + 1) * size)).collect()
    }

    /// Cuts values into the tokens of samples.
    pub(super) fn into_tokens(self, input: &Tensor) -> Result<Vec<Vec<u32>>, Refusal> {
        let mut tokens = Vec::new();
        for of_sample in self.0.chunks_exact(input.num_values() * input.value_bytes()) {
            let mut row = Vec::with_capacity(input.num_values());
            for bytes in of_sample.chunks_exact(input.value_bytes()) {
                let value = i32::from_le_bytes(bytes.try_into().expect("INT32 has four bytes"));
                let negative = |_| Refusal::bad(format!("expected tokens from 0, got {value}"));
                row.push(u32::try_from(value).map_err(negative)?);
            }
            tokens.push(row);
        }
        Ok(tokens)
    }
}

impl Tensor {
    /// Bytes of a value.
    pub(super) fn value_bytes(&self) -> usize {
        match self.datatype {
            "UINT8" => 1,
            "INT16" => 2,
            _ => 4,
        }
    }
}

fn is_binary(body: &Body, output_name: &str) -> Result<bool, Refusal> {
    let all = body.parameters.as_ref().and_then(|Object(all)| all.binary_data_output);
    let mut is_binary = all.unwrap_or(false);
    for Object(output) in body.outputs.iter().flatten() {
        if output.name != output_name {
            let came = &output.name;
            return Err(Refusal::bad(format!("expected output `{output_name}`, got {came:?}")));
        }
        let own = output.parameters.as_ref().and_then(|Object(own)| own.binary_data);
        is_binary = own.unwrap_or(is_binary);
    }
    Ok(is_binary)
}

fn check_head(given: &Input, input: &Tensor) -> Result<(), Refusal> {
    if given.name != input.name {
        let (expected, came) = (input.name, &given.name);
        return Err(Refusal::bad(format!("expected input `{expected}`, got {came:?}")));
    }
    if given.datatype != input.datatype {
        let (expected, came) = (input.datatype, &given.datatype);
        return Err(Refusal::bad(format!("expected datatype {expected}, got {came:?}")));
    }
    Ok(())
}

fn num_samples(shape: &[u64], input: &Tensor) -> Result<usize, Refusal> {
    let wanted = input.sample_shape.iter().map(|&axis| axis as u64);
    match shape {
        [num, rest @ ..] if *num > 0 && rest.iter().copied().eq(wanted) => {
            Ok(usize::try_from(*num).unwrap_or(usize::MAX))
        }
        _ => Err(Refusal::bad(format!(
            "expected shape [N, {}] with N from 1, got {shape:?}",
            input.sample_shape.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
        ))),
    }
}

fn of_binary(
    size: u64,
    binary: Bytes,
    num_values: usize,
    input: &Tensor,
) -> Result<Bytes, Refusal> {
    let expected = num_values.saturating_mul(input.value_bytes());
    if size != expected as u64 || binary.len() != expected {
        let came = binary.len();
        let message = format!(
            "expected {expected} bytes of binary data, got {came} and a binary_data_size of {size}"
        );
        return Err(Refusal::bad(message));
    }
    Ok(binary)
}

fn of_json(data: &[i64], num_values: usize, input: &Tensor) -> Result<Bytes, Refusal> {
    if data.len() != num_values {
        let message = format!("expected {num_values} values in `data`, got {}", data.len());
        return Err(Refusal::bad(message));
    }
    let (least, most) = match input.datatype {
        "UINT8" => (0, i64::from(u8::MAX)),
        "INT16" => (i64::from(i16::MIN), i64::from(i16::MAX)),
        _ => (i64::from(i32::MIN), i64::from(i32::MAX)),
    };
    let mut bytes = Vec::with_capacity(data.len() * input.value_bytes());
    for &value in data {
        if !(least..=most).contains(&value) {
            let datatype = input.datatype;
            return Err(Refusal::bad(format!("expected values of {datatype}, got {value}")));
        }
        bytes.extend_from_slice(&value.to_le_bytes()[..input.value_bytes()]);
    }
    Ok(bytes.into())
}

impl<'de> Deserialize<'de> for Flat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut flat = Self::default();
        deserializer.deserialize_any(Into(&mut flat.0))?;
        Ok(flat)
    }
}

/// Puts numbers, and those of lists, at the end of a list.
struct Into<'a>(&'a mut Vec<i64>);

impl<'de> serde::de::DeserializeSeed<'de> for Into<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Into<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("whole numbers in lists")
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.0.push(value);
        Ok(())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        let value = i64::try_from(value).map_err(|_| E::custom("a number is too large"))?;
        self.visit_i64(value)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        let broken = || E::custom(format_args!("expected whole numbers, got {value}"));
        self.visit_i64(whole::of_float(value).ok_or_else(broken)?)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Into(&mut *self.0))?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_taken_flat_or_nested_and_nothing_else_is() {
        let flat: Flat = serde_json::from_str("[[1, 2.0], [[-3]], []]").unwrap();
        assert_eq!(flat.0, [1, 2, -3]);
        for wrong in ["[1.5]", "[\"1\"]", "[null]", "[99999999999999999999]", "{}"] {
            assert!(serde_json::from_str::<Flat>(wrong).is_err(), "{wrong}");
        }
    }

    /// Bodies that nobody meant to send: JSON with changes and binary values of any length. What is taken has as many values as
    /// its shape says.
    #[test]
    fn bodies_that_nobody_meant_to_send() {
        let seconds = std::env::var("TESSERA_FUZZ_SECONDS").ok();
        let seconds = seconds.map_or(1, |seconds| seconds.parse().unwrap());
        let input = Tensor { name: "samples", datatype: "UINT8", sample_shape: vec![2, 3] };
        let json = br#"{"inputs": [{"name": "samples", "shape": [1, 2, 3], "datatype": "UINT8", "parameters": {"binary_data_size": 6}}]}"#;
        let whole = Bytes::from([json.as_slice(), &[1, 2, 3, 4, 5, 6]].concat());
        let asked = read(&whole, Some(json.len()), &input, "tokens").unwrap();
        assert_eq!(asked.values.0, [1, 2, 3, 4, 5, 6].as_slice());
        bolero::check!()
            .with_type::<(Vec<(u8, u8)>, Vec<u8>, u8)>()
            .with_test_time(std::time::Duration::from_secs(seconds))
            .for_each(|(changes, binary, length)| {
                let mut head = json.to_vec();
                for &(place, byte) in changes {
                    let place = usize::from(place) % head.len();
                    head[place] = byte;
                }
                let body = Bytes::from([head.as_slice(), binary].concat());
                let length = match length % 3 {
                    0 => None,
                    1 => Some(head.len()),
                    _ => Some(usize::from(*length)),
                };
                if let Ok(asked) = read(&body, length, &input, "tokens") {
                    assert_eq!(asked.values.0.len(), asked.num_samples * 6);
                }
            });
    }
}
