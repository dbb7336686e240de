//! The server's OpenAPI 3.1 document, for the model that it serves: shapes, numbers of tokens and limits are those that
//! requests are held against.

mod schemas;

use serde_json::{Map, Value, json};

use crate::plain::{NUM_BYTES, NUM_TOKENS, PSNR, TESSERA};
use crate::{Description, Options, kserve};

/// Most values of an example.
const MOST_VALUES: usize = 4096;
/// Answers that every route of the model may give besides its own.
const REFUSALS: [(&str, &str); 9] = [
    ("400", "The request cannot be read, or does not fit the model."),
    ("408", "The body did not come in time."),
    ("413", "The request has too many bytes, pixels, frames or samples."),
    ("415", "The body is of a type that is not read."),
    ("429", "The queue is full. Try again after `Retry-After` seconds."),
    ("500", "The server or the model has failed."),
    ("503", "The model is not ready. Try again after `Retry-After` seconds."),
    ("504", "There was no answer in time."),
    ("401", "The bearer token is missing or wrong."),
];

/// The document.
pub(crate) fn document(description: &Description, options: &Options) -> Value {
    let mut paths = Map::new();
    plain_paths(&mut paths, description);
    kserve_paths(&mut paths, description);
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": format!("Tessera: {}", description.name),
            "version": description.tessera,
            "description": "A trained tokeniser: files to tokens, tokens to files, new samples.",
            "license": { "name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0" },
        },
        "paths": paths,
        "components": { "schemas": schemas::schemas(description, options) },
    });
    if options.bearer_token.is_some() {
        document["components"]["securitySchemes"] =
            json!({ "token": { "type": "http", "scheme": "bearer" } });
        document["security"] = json!([{ "token": [] }]);
    }
    document
}

fn plain_paths(paths: &mut Map<String, Value>, description: &Description) {
    let open = |mut operation: Value| {
        operation["get"]["security"] = json!([]);
        operation
    };
    let page = json!({ "text/html": { "schema": { "type": "string" } } });
    paths.insert("/".to_owned(), open(get("page", "A page for people.", &page)));
    let alive = get("healthz", "Whether the server is alive.", &as_json("Alive"));
    paths.insert("/healthz".to_owned(), open(alive));
    let text = json!({ "text/plain": { "schema": { "type": "string" } } });
    paths.insert("/metrics".to_owned(), get("metrics", "Figures for Prometheus.", &text));
    let model = get("model", "What the model is.", &as_json("Description"));
    paths.insert("/model".to_owned(), model);
    let itself = json!({ "application/json": { "schema": { "type": "object" } } });
    paths.insert("/openapi.json".to_owned(), get("openapi", "This document.", &itself));

    let mut tokens = as_json("Encoded");
    tokens[TESSERA] = binary();
    let summary = "Tokens of a file: in JSON, or as a compressed file where `Accept` asks for one.";
    let file = file_body(description);
    paths.insert("/encode".to_owned(), post("encode", summary, &file, &tokens));
    let answer = json!({ description.modality.content_type(): binary() });
    let mut body = as_json("ToDecode");
    body[TESSERA] = binary();
    let summary = "The file that tokens stand for. Without a layout, samples are put side by side.";
    paths.insert("/decode".to_owned(), post("decode", summary, &body, &answer));
    let summary = "A file as the model reconstructs it.";
    let mut operation = post("reconstruct", summary, &file, &answer);
    let text = |description: &str| json!({ "description": description, "required": true, "schema": { "type": "string" } });
    operation["post"]["responses"]["200"]["headers"] = json!({
        PSNR: text("Peak signal-to-noise ratio in decibels, or `inf`."),
        NUM_TOKENS: text("Number of tokens."),
        NUM_BYTES: text("Bytes of the tokens as a compressed file."),
    });
    paths.insert("/reconstruct".to_owned(), operation);
    let summary =
        "All that the page shows of a file: tokens, reconstruction, sizes of other formats.";
    paths.insert("/inspect".to_owned(), post("inspect", summary, &file, &as_json("Inspected")));
    if description.has_prior {
        let mut answer = answer;
        answer["application/json"] = as_json("Sampled")["application/json"].clone();
        let summary = "New samples from the prior: one file, or their tokens.";
        let body = as_json("ToSample");
        paths.insert("/sample".to_owned(), post("sample", summary, &body, &answer));
    }
}

fn kserve_paths(paths: &mut Map<String, Value>, description: &Description) {
    let healthy = |name: &str, summary: &str, schema: &str| {
        let mut operation = get(name, summary, &as_json(schema));
        operation["get"]["security"] = json!([]);
        operation
    };
    let mut insert = |path: &str, operation| paths.insert(path.to_owned(), operation);
    insert("/v2", get("kserve", "What the server is.", &as_json("Server")));
    insert("/v2/health/live", healthy("live", "Whether the server is alive.", "Live"));
    let ready = healthy("ready", "Whether the model answers.", "Ready");
    insert("/v2/health/ready", with_unready(ready));
    for model in kserve::MODELS {
        for (version, suffix) in [("", ""), ("/versions/1", "_1")] {
            let path = format!("/v2/models/{model}{version}");
            let name = |what: &str| format!("{what}_{model}{suffix}");
            let summary = "Inputs and outputs of the model.";
            insert(&path, get(&name("metadata"), summary, &as_json("Metadata")));
            let ready = get(&name("ready"), "Whether the model answers.", &as_json("ModelReady"));
            insert(&format!("{path}/ready"), with_unready(ready));
            let mut body = as_json(&format!("Infer_{model}"));
            if let Some(example) = example(model, description) {
                body["application/json"]["example"] = example;
            }
            body["application/octet-stream"] = binary();
            let mut answer = as_json(&format!("Inferred_{model}"));
            answer["application/octet-stream"] = binary();
            let summary = "Runs the model. With the header `Inference-Header-Content-Length: N`, the \
                body is N bytes of JSON and a binary tensor behind them.";
            let infer = post(&name("infer"), summary, &body, &answer);
            insert(&format!("{path}/infer"), infer);
        }
    }
}

/// A request of one sample of zeros, unless it would be most of the document.
fn example(model: &str, description: &Description) -> Option<Value> {
    let (input, output) = kserve::tensors_of(model, description)?;
    let mut shape = vec![1];
    shape.extend(&input.sample_shape);
    (input.num_values() <= MOST_VALUES).then(|| {
        json!({
            "inputs": [{
                "name": input.name,
                "shape": shape,
                "datatype": input.datatype,
                "data": vec![0; input.num_values()],
            }],
            "outputs": [{ "name": output.name }],
        })
    })
}

fn with_unready(mut operation: Value) -> Value {
    operation["get"]["responses"]["503"] = refusal(REFUSALS[6].1);
    operation
}

fn get(name: &str, summary: &str, content: &Value) -> Value {
    let responses = json!({
        "200": { "description": "Done.", "content": content },
        "401": refusal(REFUSALS[8].1),
    });
    json!({ "get": { "operationId": name, "summary": summary, "responses": responses } })
}

fn post(name: &str, summary: &str, body: &Value, content: &Value) -> Value {
    let mut responses = Map::new();
    responses.insert("200".to_owned(), json!({ "description": "Done.", "content": content }));
    for (status, meaning) in REFUSALS {
        responses.insert(status.to_owned(), refusal(meaning));
    }
    json!({ "post": {
        "operationId": name,
        "summary": summary,
        "requestBody": { "required": true, "content": body },
        "responses": responses,
    } })
}

/// A file as a body: itself, or in a form.
fn file_body(description: &Description) -> Value {
    let content_type = description.modality.content_type();
    json!({
        content_type: binary(),
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["file"],
                "additionalProperties": false,
                "properties": { "file": { "type": "string", "format": "binary" } },
            },
            "encoding": { "file": { "contentType": content_type } },
        },
    })
}

fn refusal(meaning: &str) -> Value {
    json!({ "description": meaning, "content": as_json("Error") })
}

fn as_json(schema: &str) -> Value {
    let reference = format!("#/components/schemas/{schema}");
    json!({ "application/json": { "schema": { "$ref": reference } } })
}

fn binary() -> Value {
    json!({ "schema": { "type": "string", "format": "binary" } })
}
