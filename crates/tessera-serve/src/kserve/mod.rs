//! The Open Inference Protocol, version 2, over HTTP, as KServe and Triton speak it
//! (<https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol>), with Triton's extension for
//! binary tensors. One server shows three models: `encode`, `decode` and `reconstruct`.

mod read;
mod write;

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

use crate::app::App;
use crate::body;
use crate::refusal::{self, Refusal};
use read::Asked;

/// Names of the models.
pub(crate) const MODELS: [&str; 3] = ["encode", "decode", "reconstruct"];
/// The only version of each.
const VERSION: &str = "1";
/// Header that tells where JSON ends and binary tensors begin.
pub(crate) const HEADER_LENGTH: &str = "inference-header-content-length";

/// Which model of the protocol is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Model {
    Encode,
    Decode,
    Reconstruct,
}

/// What a tensor of the protocol is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tensor {
    pub(crate) name: &'static str,
    pub(crate) datatype: &'static str,
    /// Shape without its first axis, the number of samples.
    pub(crate) sample_shape: Vec<usize>,
}

/// A part of a model's path.
type Named = Path<Vec<(String, String)>>;

impl Model {
    fn from_name(name: &str) -> Result<Self, Refusal> {
        match name {
            "encode" => Ok(Self::Encode),
            "decode" => Ok(Self::Decode),
            "reconstruct" => Ok(Self::Reconstruct),
            _ => Err(Refusal::not_found(format!(
                "expected one of the models {}, got {name:?}",
                MODELS.join(", ")
            ))),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Encode => MODELS[0],
            Self::Decode => MODELS[1],
            Self::Reconstruct => MODELS[2],
        }
    }

    /// Its input and its output.
    pub(super) fn tensors(self, description: &crate::Description) -> (Tensor, Tensor) {
        let samples = |name| Tensor {
            name,
            datatype: description.modality.datatype(),
            sample_shape: description.sample_shape.clone(),
        };
        let tokens = Tensor {
            name: "tokens",
            datatype: "INT32",
            sample_shape: vec![description.num_tokens],
        };
        match self {
            Self::Encode => (samples("samples"), tokens),
            Self::Decode => (tokens, samples("samples")),
            Self::Reconstruct => (samples("samples"), samples("reconstruction")),
        }
    }
}

/// Input and output of a model, for its OpenAPI description.
pub(crate) fn tensors_of(name: &str, description: &crate::Description) -> Option<(Tensor, Tensor)> {
    Model::from_name(name).ok().map(|model| model.tensors(description))
}

impl Tensor {
    /// Number of values of one sample.
    pub(crate) fn num_values(&self) -> usize {
        self.sample_shape.iter().product()
    }

    fn metadata(&self) -> Value {
        let mut shape = vec![-1];
        shape.extend(self.sample_shape.iter().map(|&axis| axis as i64));
        json!({ "name": self.name, "datatype": self.datatype, "shape": shape })
    }
}

pub(crate) async fn server(State(app): State<Arc<App>>) -> Response {
    refusal::json(&json!({
        "name": "tessera",
        "version": app.description.tessera,
        "extensions": ["binary_tensor_data"],
    }))
}

pub(crate) async fn live() -> Response {
    refusal::json(&json!({ "live": true }))
}

pub(crate) async fn ready(State(app): State<Arc<App>>) -> Result<Response, Refusal> {
    app.check_ready()?;
    Ok(refusal::json(&json!({ "ready": true })))
}

pub(crate) async fn model(State(app): State<Arc<App>>, path: Named) -> Result<Response, Refusal> {
    let model = named(&path)?;
    let (input, output) = model.tensors(&app.description);
    Ok(refusal::json(&json!({
        "name": model.name(),
        "versions": [VERSION],
        "platform": "tessera",
        "inputs": [input.metadata()],
        "outputs": [output.metadata()],
        "parameters": { "model": app.description.name, "hash": app.description.hash },
    })))
}

pub(crate) async fn model_ready(
    State(app): State<Arc<App>>,
    path: Named,
) -> Result<Response, Refusal> {
    let model = named(&path)?;
    app.check_ready()?;
    Ok(refusal::json(&json!({ "name": model.name(), "ready": true })))
}

pub(crate) async fn infer(
    State(app): State<Arc<App>>,
    path: Named,
    request: Request,
) -> Result<Response, Refusal> {
    let model = named(&path)?;
    let (input, output) = model.tensors(&app.description);
    let whole = body::read(&app, request).await?;
    let header_length = read::header_length(&whole.headers)?;
    let (bytes, expected, name) = (whole.bytes.clone(), input.clone(), output.name);
    let read = move || read::read(&bytes, header_length, &expected, name);
    let asked = app.workers.run(read).await??;
    app.inference.check_count(asked.num_samples)?;
    let Asked { id, is_binary, values, .. } = asked;
    let bytes = match model {
        Model::Encode => {
            let tokens = app.inference.encode(values.into_samples(&input)).await?;
            write::bytes_of_tokens(&tokens)
        }
        Model::Reconstruct => {
            let tokens = app.inference.encode(values.into_samples(&input)).await?;
            app.inference.decode(tokens).await?.concat()
        }
        Model::Decode => {
            let tokens = values.into_tokens(&input)?;
            for of_sample in &tokens {
                app.description.check_tokens(of_sample).map_err(Refusal::bad)?;
            }
            app.inference.decode(tokens).await?.concat()
        }
    };
    let write = move || write::answer(model.name(), id.as_deref(), &output, &bytes, is_binary);
    app.workers.run(write).await
}

/// The model that a path names.
fn named(Path(parts): &Named) -> Result<Model, Refusal> {
    let part = |name| parts.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
    let model = Model::from_name(part("model").unwrap_or_default())?;
    match part("version") {
        Some(version) if version != VERSION => Err(Refusal::new(
            StatusCode::NOT_FOUND,
            format!("expected version {VERSION}, got {version:?}"),
        )),
        _ => Ok(model),
    }
}
