//! The schemas of bodies and answers.

use serde_json::{Map, Value, json};

use crate::kserve::{self, Tensor};
use crate::sample::{LEAST_TEMPERATURE, MOST_SEED, MOST_TEMPERATURE, most_samples};
use crate::{Description, Options};

/// All schemas, by name.
pub(super) fn schemas(description: &Description, options: &Options) -> Value {
    let mut schemas = Map::new();
    let mut insert = |name: &str, schema| schemas.insert(name.to_owned(), schema);
    insert("Error", object(&[("error", json!({ "type": "string", "description": "One line." }))]));
    insert("Alive", object(&[("status", json!({ "const": "ok" }))]));
    insert("Live", object(&[("live", json!({ "const": true }))]));
    insert("Ready", object(&[("ready", json!({ "const": true }))]));
    insert("ModelReady", object(&[("name", text()), ("ready", json!({ "const": true }))]));
    insert("Layout", layout());
    insert("Level", object(&[("axes", list(&whole(1))), ("num_codes", whole(1))]));
    insert("Description", described());
    let tokens = tokens(description, options);
    insert("Tokens", tokens.clone());
    insert("Encoded", object(&encoded()));
    insert("ToDecode", to_decode(description));
    insert("ToSample", to_sample(description, options));
    insert(
        "Sampled",
        object(&[("model", text()), ("hash", text()), ("tokens", reference("Tokens"))]),
    );
    insert("Inspected", inspected());
    let extensions = list(&text());
    insert("Server", object(&[("name", text()), ("version", text()), ("extensions", extensions)]));
    insert("Metadata", metadata());
    for model in kserve::MODELS {
        let tensors = kserve::tensors_of(model, description);
        let (input, output) = tensors.expect("the names are those of the models");
        insert(&format!("Infer_{model}"), infer(&input, &output, description, options));
        insert(&format!("Inferred_{model}"), inferred(model, &output));
    }
    Value::Object(schemas)
}

fn layout() -> Value {
    json!({
        "type": "object",
        "description": "Size of the whole file: [H, W, C], [T, C] or [F, H, W, C].",
        "required": ["size"],
        "additionalProperties": false,
        "properties": {
            "size": { "type": "array", "items": whole(0) },
            "rate": { "type": ["integer", "null"], "minimum": 0, "maximum": u32::MAX },
        },
    })
}

fn described() -> Value {
    object(&[
        ("name", text()),
        ("hash", text()),
        ("tessera", text()),
        ("modality", json!({ "enum": ["picture", "sound", "film"] })),
        ("sample_shape", list(&whole(1))),
        ("sample_rate", json!({ "type": ["integer", "null"] })),
        ("num_tokens", whole(1)),
        ("levels", list(&reference("Level"))),
        ("classes", list(&text())),
        ("num_classes", whole(0)),
        ("tile", whole(1)),
        ("has_prior", json!({ "type": "boolean" })),
    ])
}

/// Tokens as a client may send them. Levels with fewer codes than others are held against their own.
fn tokens(description: &Description, options: &Options) -> Value {
    let most = description.levels.iter().map(|level| level.num_codes - 1).max();
    json!({
        "type": "array",
        "minItems": 1,
        "maxItems": options.request_samples,
        "items": {
            "type": "array",
            "minItems": description.num_tokens,
            "maxItems": description.num_tokens,
            "items": { "type": "integer", "minimum": 0, "maximum": most },
        },
    })
}

fn encoded() -> Vec<(&'static str, Value)> {
    vec![
        ("model", text()),
        ("hash", text()),
        ("layout", reference("Layout")),
        ("levels", list(&reference("Level"))),
        ("tokens", reference("Tokens")),
    ]
}

fn to_decode(description: &Description) -> Value {
    json!({
        "type": "object",
        "required": ["tokens"],
        "properties": {
            "tokens": reference("Tokens"),
            "hash": { "enum": [description.hash, null], "description": "Model of the tokens." },
            "layout": { "anyOf": [reference("Layout"), { "type": "null" }] },
        },
    })
}

fn to_sample(description: &Description, options: &Options) -> Value {
    let class = match description.num_classes {
        0 => json!({ "type": "null" }),
        num => json!({ "type": ["integer", "null"], "minimum": 0, "maximum": num - 1 }),
    };
    let most = most_samples(options.request_samples);
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "seed": { "type": "integer", "minimum": 0, "maximum": MOST_SEED, "default": 0 },
            "num": { "type": "integer", "minimum": 1, "maximum": most, "default": 1 },
            "class": class,
            "temperature": {
                "type": "number",
                "minimum": LEAST_TEMPERATURE,
                "maximum": MOST_TEMPERATURE,
                "default": 1.0,
            },
            "top_k": { "type": ["integer", "null"], "minimum": 1, "maximum": u32::MAX },
            "top_p": { "type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1 },
            "answer": { "enum": ["file", "tokens"], "default": "file" },
        },
    })
}

fn inspected() -> Value {
    let decibels = json!({ "type": ["number", "null"], "description": "null: nothing was lost" });
    let rival = object(&[("name", text()), ("bytes", whole(0)), ("psnr", decibels.clone())]);
    let base64 = json!({ "type": "string", "contentEncoding": "base64" });
    let mut fields = encoded();
    fields.extend([
        ("psnr", decibels),
        ("file_bytes", whole(0)),
        ("raw_bytes", whole(0)),
        ("tessera_bytes", whole(0)),
        ("rivals", list(&rival)),
        ("content_type", text()),
        ("original", base64.clone()),
        ("reconstruction", base64),
    ]);
    object(&fields)
}

fn metadata() -> Value {
    let shape = list(&json!({ "type": "integer", "minimum": -1 }));
    let tensor = object(&[("name", text()), ("datatype", text()), ("shape", shape)]);
    object(&[
        ("name", text()),
        ("versions", list(&text())),
        ("platform", text()),
        ("inputs", list(&tensor)),
        ("outputs", list(&tensor)),
    ])
}

/// A request in JSON. That `data` has as many values as the shape says cannot be told by a schema.
fn infer(input: &Tensor, output: &Tensor, description: &Description, options: &Options) -> Value {
    let (least, most) = match input.datatype {
        "UINT8" => (0, i64::from(u8::MAX)),
        "INT16" => (i64::from(i16::MIN), i64::from(i16::MAX)),
        _ => {
            let codes = description.levels.iter().map(|level| i64::from(level.num_codes));
            (0, codes.max().unwrap_or(1) - 1)
        }
    };
    let mut shape = vec![json!({
        "type": "integer", "minimum": 1, "maximum": options.request_samples,
    })];
    shape.extend(input.sample_shape.iter().map(|axis| json!({ "const": axis })));
    let num_axes = shape.len();
    let value = json!({ "type": "integer", "minimum": least, "maximum": most });
    let flag = json!({ "type": ["boolean", "null"] });
    json!({
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": { "type": ["string", "null"] },
            "parameters": {
                "type": ["object", "null"],
                "properties": { "binary_data_output": flag },
            },
            "inputs": { "type": "array", "minItems": 1, "maxItems": 1, "items": {
                "type": "object",
                "required": ["name", "shape", "datatype", "data"],
                "properties": {
                    "name": { "const": input.name },
                    "datatype": { "const": input.datatype },
                    "shape": {
                        "type": "array",
                        "prefixItems": shape,
                        "minItems": num_axes,
                        "maxItems": num_axes,
                    },
                    "data": {
                        "description": "Values in row-major order, in one list or in lists of the tensor's shape.",
                        "type": "array",
                        "items": { "anyOf": [value, { "type": "array" }] },
                    },
                },
            } },
            "outputs": { "type": ["array", "null"], "items": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "name": { "const": output.name },
                    "parameters": {
                        "type": ["object", "null"],
                        "properties": { "binary_data": flag },
                    },
                },
            } },
        },
    })
}

fn inferred(model: &str, output: &Tensor) -> Value {
    let tensor = object(&[
        ("name", json!({ "const": output.name })),
        ("datatype", json!({ "const": output.datatype })),
        ("shape", list(&whole(1))),
        ("data", list(&json!({ "type": "integer" }))),
    ]);
    let mut schema = object(&[
        ("model_name", json!({ "const": model })),
        ("model_version", text()),
        ("outputs", json!({ "type": "array", "minItems": 1, "maxItems": 1, "items": tensor })),
    ]);
    schema["properties"]["id"] = text();
    schema
}

/// An object that has all of these fields.
fn object(fields: &[(&str, Value)]) -> Value {
    let required: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
    let properties: Map<String, Value> =
        fields.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({ "type": "object", "required": required, "properties": properties })
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

fn list(items: &Value) -> Value {
    json!({ "type": "array", "items": items })
}

fn text() -> Value {
    json!({ "type": "string" })
}

fn whole(least: u64) -> Value {
    json!({ "type": "integer", "minimum": least })
}
