//! Why a request was not carried out, as an answer: a status and `{"error": "one line"}`.

use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::BadInput;

/// Seconds after which a client that was sent away may come back.
const RETRY_SECONDS: &str = "1";

/// Why a request was not carried out.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) message: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(crate) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
    }

    pub(crate) fn busy(message: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, message)
    }

    pub(crate) fn not_ready(message: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// A failure that is ours. The log has it too.
    pub(crate) fn failed(message: impl Into<String>) -> Self {
        let message = message.into();
        tracing::error!(error = message, "a request failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
}

impl From<BadInput> for Refusal {
    fn from(error: BadInput) -> Self {
        match error {
            BadInput::Malformed(message) => Self::bad(message),
            BadInput::TooLarge(message) => Self::too_large(message),
            BadInput::Unsupported(message) => Self::unsupported(message),
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        // A message may quote what a client sent: it stays one line.
        let line = self.message.replace(['\n', '\r'], " ");
        let mut response = json(&serde_json::json!({ "error": line }));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        match self.status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static(RETRY_SECONDS));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}

/// An answer in JSON.
pub(crate) fn json(value: &impl serde::Serialize) -> Response {
    let text = serde_json::to_vec(value).expect("our answers have string keys and finite numbers");
    with_type("application/json", text)
}

/// An answer of some media type.
pub(crate) fn with_type(content_type: &'static str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// The answer to a method that a route does not have.
pub(crate) fn wrong_method(allowed: &'static str, came: &Method) -> Response {
    let refusal = Refusal::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("expected method {allowed}, got {came}"),
    );
    let mut response = refusal.into_response();
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}
