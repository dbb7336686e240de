//! The page on which a person drops a file. It is one document that asks nothing of other servers.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderValue, REFERRER_POLICY};
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use sha2::{Digest, Sha256};

use crate::app::App;
use crate::refusal::with_type;

const PAGE: &str = include_str!("page.html");

/// What a browser may do on the page.
pub(crate) struct Page {
    policy: HeaderValue,
}

impl Page {
    /// Allows the page's own script and style, by their hashes, and requests to this server.
    ///
    /// # Panics
    ///
    /// If the page has no script or no style; it is part of the program.
    pub(crate) fn new() -> Self {
        let script = hash(between("<script>", "</script>"));
        let style = hash(between("<style>", "</style>"));
        let policy = format!(
            "default-src 'none'; script-src 'sha256-{script}'; style-src 'sha256-{style}'; \
             img-src blob: data:; media-src blob: data:; connect-src 'self'; base-uri 'none'; \
             form-action 'none'; frame-ancestors 'none'"
        );
        Self { policy: HeaderValue::from_str(&policy).expect("a policy is ASCII") }
    }
}

pub(crate) async fn page(State(app): State<Arc<App>>) -> Response {
    let mut response = with_type("text/html; charset=utf-8", PAGE);
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, app.page.policy.clone());
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

fn between(begin: &str, end: &str) -> &'static str {
    let (_, after) = PAGE.split_once(begin).expect("the page has this element");
    after.split_once(end).expect("the page closes this element").0
}

fn hash(text: &str) -> String {
    BASE64_STANDARD.encode(Sha256::digest(text.as_bytes()))
}
