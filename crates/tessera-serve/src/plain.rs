//! The plain routes: a file in, tokens or a file out.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::http::header::{ACCEPT, HeaderName, HeaderValue};
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::body::{self, WholeBody};
use crate::metrics::{self, Now};
use crate::object::Object;
use crate::refusal::{Refusal, json, with_type};
use crate::whole::Whole;
use crate::{BadInput, Layout, Level, Rival};

/// Media type of a compressed file.
pub(crate) const TESSERA: &str = "application/x-tessera";
const OCTETS: &str = "application/octet-stream";
/// Peak signal-to-noise ratio of an answer, in decibels; `inf`: nothing was lost.
pub(crate) const PSNR: &str = "tessera-psnr";
/// Number of tokens of an answer.
pub(crate) const NUM_TOKENS: &str = "tessera-num-tokens";
/// Bytes of the tokens as a compressed file.
pub(crate) const NUM_BYTES: &str = "tessera-bytes";

/// Tokens of a file, as `/encode` answers.
#[derive(Debug, Serialize)]
struct Encoded<'a> {
    model: &'a str,
    hash: &'a str,
    layout: &'a Layout,
    levels: &'a [Level],
    tokens: &'a [Vec<u32>],
}

/// What `/decode` takes; an answer of `/encode` will do.
#[derive(Debug, Deserialize)]
struct ToDecode {
    /// Hash of the model that made the tokens.
    #[serde(default)]
    hash: Option<String>,
    #[serde(default)]
    layout: Option<Object<Layout>>,
    tokens: Vec<Vec<Whole<u32>>>,
}

/// What the page shows of a file, as `/inspect` answers.
#[derive(Debug, Serialize)]
struct Inspected<'a> {
    model: &'a str,
    hash: &'a str,
    layout: &'a Layout,
    levels: &'a [Level],
    tokens: &'a [Vec<u32>],
    psnr: Option<f64>,
    file_bytes: usize,
    raw_bytes: u64,
    tessera_bytes: usize,
    rivals: &'a [Rival],
    content_type: &'a str,
    original: String,
    reconstruction: String,
}

/// A file that was cut into samples.
struct Cut {
    layout: Layout,
    samples: Vec<Bytes>,
    /// Bytes of the file as it came.
    file_bytes: usize,
    _whole: WholeBody,
}

/// A file that went through the model and back.
struct There {
    cut: Cut,
    tokens: Vec<Vec<u32>>,
    reconstructed: Vec<Vec<u8>>,
    compressed: Vec<u8>,
    psnr: f64,
}

pub(crate) async fn encode(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Refusal> {
    let wants_file = wants_file(request.headers());
    let cut = cut(&app, request).await?;
    let tokens = app.inference.encode(cut.samples).await?;
    if wants_file {
        let (media, layout) = (Arc::clone(&app.media), cut.layout);
        let file = app.workers.run(move || media.compress(&layout, &tokens)).await?;
        return Ok(with_type(TESSERA, file.map_err(Refusal::failed)?));
    }
    let description = &app.description;
    Ok(json(&Encoded {
        model: &description.name,
        hash: &description.hash,
        layout: &cut.layout,
        levels: &description.levels,
        tokens: &tokens,
    }))
}

pub(crate) async fn decode(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Refusal> {
    let whole = body::read(&app, request).await?;
    let bytes = whole.bytes.clone();
    let content_type = body::content_type(&whole.headers);
    let worker = Arc::clone(&app);
    let read = move || match content_type.as_str() {
        "application/json" => tokens_of_json(&worker, &bytes),
        TESSERA | OCTETS => Ok(worker.media.decompress(&bytes)?),
        other => Err(Refusal::unsupported(format!(
            "expected content type application/json or {TESSERA}, got {other:?}"
        ))),
    };
    let (layout, tokens) = app.workers.run(read).await??;
    app.inference.check_count(tokens.len())?;
    for of_sample in &tokens {
        app.description.check_tokens(of_sample).map_err(Refusal::bad)?;
    }
    let expected = app.media.num_samples(&layout)?;
    if expected != tokens.len() {
        let (came, size) = (tokens.len(), &layout.size);
        let message = format!("expected {expected} samples for the size {size:?}, got {came}");
        return Err(Refusal::bad(message));
    }
    let samples = app.inference.decode(tokens).await?;
    joined(&app, layout, samples).await
}

pub(crate) async fn reconstruct(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Refusal> {
    let There { cut, tokens, reconstructed, compressed, psnr } = through(&app, request).await?;
    let num_tokens: usize = tokens.iter().map(Vec::len).sum();
    let mut response = joined(&app, cut.layout, reconstructed).await?;
    let headers = [
        (PSNR, format!("{psnr:.3}")),
        (NUM_TOKENS, num_tokens.to_string()),
        (NUM_BYTES, compressed.len().to_string()),
    ];
    for (name, value) in headers {
        let value = HeaderValue::from_str(&value).expect("numbers are ASCII");
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
    Ok(response)
}

/// All that the page shows of a file, in one answer.
pub(crate) async fn inspect(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Refusal> {
    let there = through(&app, request).await?;
    let worker = Arc::clone(&app);
    let text = app.workers.run(move || inspected(&worker, &there)).await?;
    text.map(|text| with_type("application/json", text)).map_err(Refusal::failed)
}

fn inspected(app: &App, there: &There) -> Result<Vec<u8>, String> {
    let (layout, description) = (&there.cut.layout, &app.description);
    let original: Vec<&[u8]> = there.cut.samples.iter().map(|sample| &**sample).collect();
    let rivals = app.media.rivals(layout, &original, there.psnr);
    let owned: Vec<Vec<u8>> = there.cut.samples.iter().map(|sample| sample.to_vec()).collect();
    let inspected = Inspected {
        model: &description.name,
        hash: &description.hash,
        layout,
        levels: &description.levels,
        tokens: &there.tokens,
        psnr: there.psnr.is_finite().then_some(there.psnr),
        file_bytes: there.cut.file_bytes,
        raw_bytes: layout.size.iter().product::<u64>() * description.modality.value_bytes() as u64,
        tessera_bytes: there.compressed.len(),
        rivals: &rivals,
        content_type: description.modality.content_type(),
        original: BASE64_STANDARD.encode(app.media.join(layout, &owned)?),
        reconstruction: BASE64_STANDARD.encode(app.media.join(layout, &there.reconstructed)?),
    };
    serde_json::to_vec(&inspected).map_err(|error| error.to_string())
}

pub(crate) async fn model(State(app): State<Arc<App>>) -> Response {
    json(&*app.description)
}

pub(crate) async fn openapi(State(app): State<Arc<App>>) -> Response {
    with_type("application/json", app.openapi.clone())
}

pub(crate) async fn metrics(State(app): State<Arc<App>>) -> Response {
    let description = &app.description;
    let now = Now {
        is_ready: app.is_ready(),
        queue_samples: app.inference.num_queued(),
        body_bytes: app.options.total_body_bytes - app.free_bytes.available_permits(),
        name: &description.name,
        hash: &description.hash,
        version: &description.tessera,
    };
    with_type(metrics::CONTENT_TYPE, app.metrics.render(&now))
}

/// Puts samples together, as an answer.
pub(crate) async fn joined(
    app: &App,
    layout: Layout,
    samples: Vec<Vec<u8>>,
) -> Result<Response, Refusal> {
    let media = Arc::clone(&app.media);
    let file = app.workers.run(move || media.join(&layout, &samples)).await?;
    let file = file.map_err(Refusal::failed)?;
    Ok(with_type(app.description.modality.content_type(), file))
}

/// Reads the file of a request and cuts it into samples.
async fn cut(app: &App, request: Request) -> Result<Cut, Refusal> {
    let whole = body::read_file(app, request).await?;
    let (media, bytes) = (Arc::clone(&app.media), whole.bytes.clone());
    let parsed = app.workers.run(move || media.parse(&bytes)).await??;
    app.inference.check_count(parsed.samples.len())?;
    let size = app.description.sample_bytes();
    if parsed.samples.is_empty() || parsed.samples.iter().any(|sample| sample.len() != size) {
        return Err(Refusal::failed("the file was cut into samples of another shape"));
    }
    let samples = parsed.samples.into_iter().map(Bytes::from).collect();
    Ok(Cut { layout: parsed.layout, samples, file_bytes: whole.bytes.len(), _whole: whole })
}

/// Sends the file of a request through the model and back.
async fn through(app: &App, request: Request) -> Result<There, Refusal> {
    let cut = cut(app, request).await?;
    let tokens = app.inference.encode(cut.samples.clone()).await?;
    let reconstructed = app.inference.decode(tokens.clone()).await?;
    let media = Arc::clone(&app.media);
    let measure = move || {
        let compressed = media.compress(&cut.layout, &tokens)?;
        let original: Vec<&[u8]> = cut.samples.iter().map(|sample| &**sample).collect();
        let psnr = media.psnr(&cut.layout, &original, &reconstructed);
        Ok::<_, String>(There { cut, tokens, reconstructed, compressed, psnr })
    };
    app.workers.run(measure).await?.map_err(Refusal::failed)
}

fn tokens_of_json(app: &App, bytes: &[u8]) -> Result<(Layout, Vec<Vec<u32>>), Refusal> {
    let Object(asked): Object<ToDecode> = serde_json::from_slice(bytes)
        .map_err(|error| Refusal::bad(format!("expected {{\"tokens\": [[..]]}}: {error}")))?;
    if let Some(hash) = asked.hash.filter(|hash| *hash != app.description.hash) {
        let ours = &app.description.hash;
        return Err(Refusal::bad(format!("expected tokens of model {ours}, got those of {hash}")));
    }
    if asked.tokens.is_empty() {
        return Err(BadInput::Malformed("expected tokens of at least one sample".to_owned()).into());
    }
    let layout = asked.layout.map(|Object(layout)| layout);
    let layout = layout.unwrap_or_else(|| app.description.sheet(asked.tokens.len()));
    let plain = |row: Vec<Whole<u32>>| row.into_iter().map(|Whole(token)| token).collect();
    Ok((layout, asked.tokens.into_iter().map(plain).collect()))
}

/// Whether a client wants tokens as a compressed file.
fn wants_file(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let mut types = accept.split(',').map(|one| one.split(';').next().unwrap_or_default().trim());
    types.any(|one| one == TESSERA || one == OCTETS)
}
