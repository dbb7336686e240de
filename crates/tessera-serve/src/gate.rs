//! What each request passes before and after its route: a name, the token, the time limit, the log and the count.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{AUTHORIZATION, CONNECTION, HeaderName, HeaderValue};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use tracing::Instrument;

use crate::app::App;
use crate::refusal::Refusal;

/// Name of a request, taken from the client or given by the server.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CONTENT_TYPE_OPTIONS: HeaderName = HeaderName::from_static("x-content-type-options");
/// Most characters of a name that a client gives.
const MOST_ID: usize = 64;
/// Routes that anybody may ask: they tell nothing of the model. The page asks its reader for the token.
const OPEN: [&str; 4] = ["/", "/healthz", "/v2/health/live", "/v2/health/ready"];

/// Which route a request had, for the log and the count.
#[derive(Clone)]
struct RouteName(String);

/// Lowers the count of requests in flight, also where the client leaves and the answer is dropped.
struct InFlight<'a> {
    app: &'a App,
    is_answered: bool,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.app.metrics.in_flight.fetch_sub(1, Ordering::Relaxed);
        if !self.is_answered {
            self.app.metrics.left.fetch_add(1, Ordering::Relaxed);
            tracing::debug!("the client left before the answer");
        }
    }
}

/// Around everything.
pub(crate) async fn gate(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let id = request_id(&app, request.headers());
    let method = request.method().clone();
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or_default(), %method);
    app.metrics.in_flight.fetch_add(1, Ordering::Relaxed);
    let mut in_flight = InFlight { app: &app, is_answered: false };
    let answering = answer(&app, request, next).instrument(span.clone());
    let mut response = answering.await;
    in_flight.is_answered = true;
    let route = response.extensions_mut().remove::<RouteName>();
    let route = route.map_or_else(|| "unknown".to_owned(), |RouteName(name)| name);
    let (status, took) = (response.status().as_u16(), began.elapsed());
    app.metrics.answered(&route, status, took);
    let seconds = took.as_secs_f64();
    span.in_scope(|| tracing::info!(route, status, seconds, "request answered"));
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    headers.insert(CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if app.stop.is_asked() {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Tells [`gate`] the route, which is known to what goes around a route alone.
pub(crate) async fn mark_route(
    State(app): State<Arc<App>>,
    path: MatchedPath,
    request: Request,
    next: Next,
) -> Response {
    let name = RouteName(path.as_str().to_owned());
    let headers = request.headers();
    let known = app.hosts.check(request.uri(), headers);
    let allowed = known.and_then(|()| match OPEN.contains(&path.as_str()) {
        true => Ok(()),
        false => check_token(&app, headers),
    });
    let mut response = match allowed {
        Err(refusal) => refusal.into_response(),
        Ok(()) => next.run(request).await,
    };
    response.extensions_mut().insert(name);
    response
}

async fn answer(app: &App, request: Request, next: Next) -> Response {
    let limit = app.options.request_timeout;
    match tokio::time::timeout(limit, caught(next.run(request))).await {
        Ok(Ok(response)) => response,
        Ok(Err(())) => Refusal::failed("the server has a fault: see its log").into_response(),
        Err(_) => {
            let message = format!("no answer within {} s", limit.as_secs_f64());
            Refusal::new(StatusCode::GATEWAY_TIMEOUT, message).into_response()
        }
    }
}

/// Awaits; a panic becomes an error, so that its client gets an answer too.
async fn caught<T>(future: impl Future<Output = T>) -> Result<T, ()> {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|context| {
        let poll = || future.as_mut().poll(context);
        match std::panic::catch_unwind(AssertUnwindSafe(poll)) {
            Ok(poll) => poll.map(Ok),
            Err(_) => std::task::Poll::Ready(Err(())),
        }
    })
    .await
}

fn request_id(app: &App, headers: &HeaderMap) -> HeaderValue {
    let is_name = |value: &&HeaderValue| {
        let bytes = value.as_bytes();
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        (1..=MOST_ID).contains(&bytes.len()) && bytes.iter().all(is_plain)
    };
    if let Some(given) = headers.get(REQUEST_ID).filter(is_name) {
        return given.clone();
    }
    let number = app.next_request.fetch_add(1, Ordering::Relaxed);
    HeaderValue::from_str(&format!("r{number}")).expect("letters and digits")
}

fn check_token(app: &App, headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(expected) = &app.options.bearer_token else { return Ok(()) };
    let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).and_then(bearer);
    if given.is_some_and(|given| is_same(given, expected.as_bytes())) {
        return Ok(());
    }
    let message = "expected the header `Authorization: Bearer TOKEN` with the server's token";
    Err(Refusal::new(StatusCode::UNAUTHORIZED, message))
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

/// Compares hashes, all bytes of them, so that the time says nothing of where two tokens differ or how long one is.
fn is_same(given: &[u8], expected: &[u8]) -> bool {
    let (given, expected) = (Sha256::digest(given), Sha256::digest(expected));
    let difference = given.iter().zip(&expected).fold(0, |seen, (one, other)| seen | (one ^ other));
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_taken_after_its_scheme_alone() {
        assert_eq!(bearer(b"bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"Basic abc"), None);
        assert_eq!(bearer(b"Bear"), None);
        assert!(is_same(b"abc", b"abc"));
        assert!(!is_same(b"abc", b"abcd") && !is_same(b"", b"a"));
    }
}
