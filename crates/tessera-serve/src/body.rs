//! Reads a request's body within limits of bytes and time, and finds the file in it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::{FromRequest as _, Multipart, Request};
use axum::http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use tokio::sync::OwnedSemaphorePermit;

use crate::app::App;
use crate::refusal::Refusal;

/// How long a client whose body is too large may go on sending before its connection is cut.
const PATIENCE: Duration = Duration::from_secs(2);
/// Name of the field of a form that holds the file.
const FIELD: &str = "file";

/// A body in memory, with its share of the memory for bodies.
pub(crate) struct WholeBody {
    pub(crate) bytes: Bytes,
    pub(crate) headers: HeaderMap,
    _permit: OwnedSemaphorePermit,
}

/// Reads the whole body.
pub(crate) async fn read(app: &App, request: Request) -> Result<WholeBody, Refusal> {
    app.check_loaded()?;
    let (parts, body) = request.into_parts();
    check_encoding(&parts.headers)?;
    let limit = app.options.body_bytes;
    let told =
        parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let size = told.or(body.size_hint().exact()).unwrap_or(limit as u64);
    if size > limit as u64 {
        discard(body, limit).await;
        return Err(too_large(limit));
    }
    let share = u32::try_from(size).expect("the limit is below the semaphore's");
    let permit = Arc::clone(&app.free_bytes).try_acquire_many_owned(share);
    let permit = permit.map_err(|_| Refusal::busy("too many bodies at a time: try again"))?;
    let reading = Limited::new(body, limit).collect();
    let timeout = app.options.body_timeout;
    let read = tokio::time::timeout(timeout, reading).await.map_err(|_| {
        let message = format!("the body did not come within {} s", timeout.as_secs_f64());
        Refusal::new(StatusCode::REQUEST_TIMEOUT, message)
    })?;
    match read {
        Ok(collected) => {
            let bytes = collected.to_bytes();
            Ok(WholeBody { bytes, headers: parts.headers, _permit: permit })
        }
        Err(error) if error.is::<LengthLimitError>() => Err(too_large(limit)),
        Err(error) => Err(Refusal::bad(format!("the body cannot be read: {error}"))),
    }
}

/// Reads the file of a request: the body itself, or the field `file` of a form.
pub(crate) async fn read_file(app: &App, request: Request) -> Result<WholeBody, Refusal> {
    let mut whole = read(app, request).await?;
    match content_type(&whole.headers).as_str() {
        "multipart/form-data" => whole.bytes = of_form(&whole).await?,
        "application/json" => {
            let message = "expected a file as the body, or as field `file` of a form, got JSON";
            return Err(Refusal::unsupported(message));
        }
        _ => {}
    }
    if whole.bytes.is_empty() {
        return Err(Refusal::bad("expected a file, got an empty body"));
    }
    Ok(whole)
}

/// The media type of a body, in lower case and without parameters; empty where none is told.
pub(crate) fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

async fn of_form(whole: &WholeBody) -> Result<Bytes, Refusal> {
    let mut request = Request::new(Body::from(whole.bytes.clone()));
    *request.headers_mut() = whole.headers.clone();
    let wrong = |error: String| Refusal::bad(format!("the form cannot be read: {error}"));
    // `app` has switched off the extractor's own limit: the bytes are in memory already.
    let form = Multipart::from_request(request, &()).await;
    let mut form = form.map_err(|error| wrong(error.body_text()))?;
    let mut file = None;
    while let Some(field) = form.next_field().await.map_err(|error| wrong(error.body_text()))? {
        if field.name() != Some(FIELD) || file.is_some() {
            let came = field.name().unwrap_or_default();
            let message = format!("expected one field named `{FIELD}` in the form, got {came:?}");
            return Err(Refusal::bad(message));
        }
        file = Some(field.bytes().await.map_err(|error| wrong(error.body_text()))?);
    }
    let none = || Refusal::bad(format!("expected a field named `{FIELD}` in the form, got none"));
    file.ok_or_else(none)
}

fn check_encoding(headers: &HeaderMap) -> Result<(), Refusal> {
    match headers.get(CONTENT_ENCODING) {
        Some(encoding) if encoding.as_bytes() != b"identity" => {
            Err(Refusal::unsupported("expected a body without content encoding"))
        }
        _ => Ok(()),
    }
}

fn too_large(limit: usize) -> Refusal {
    Refusal::too_large(format!("expected a body of at most {limit} bytes"))
}

/// Reads on for a while without keeping anything: a client that still sends would lose the answer with its connection.
async fn discard(body: Body, limit: usize) {
    let mut body = Limited::new(body, limit);
    let reading = async { while let Some(Ok(_)) = body.frame().await {} };
    let _ = tokio::time::timeout(PATIENCE, reading).await;
}
