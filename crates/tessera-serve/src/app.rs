//! What all requests share, and the table of routes.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use tokio::sync::{Semaphore, watch};

use crate::host::Hosts;
use crate::inference::{Health, Inference};
use crate::metrics::Metrics;
use crate::refusal::{Refusal, json, wrong_method};
use crate::workers::Workers;
use crate::{Description, Media, Options, Stop, gate, kserve, openapi, page, plain, sample};

/// What all requests share.
pub(crate) struct App {
    pub(crate) description: Arc<Description>,
    pub(crate) options: Options,
    pub(crate) inference: Inference,
    pub(crate) health: watch::Receiver<Health>,
    pub(crate) media: Arc<dyn Media>,
    pub(crate) workers: Workers,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: Stop,
    /// Bytes of bodies that may still be taken in.
    pub(crate) free_bytes: Arc<Semaphore>,
    pub(crate) page: page::Page,
    /// The OpenAPI document, as JSON.
    pub(crate) openapi: Bytes,
    /// Names that it is asked by.
    pub(crate) hosts: Hosts,
    /// Number of the next request.
    pub(crate) next_request: AtomicU64,
}

/// One route of the server.
struct Route {
    path: &'static str,
    allowed: &'static str,
    methods: MethodRouter<Arc<App>>,
}

impl App {
    /// Whether a request would be answered by the model now.
    pub(crate) fn is_ready(&self) -> bool {
        *self.health.borrow() == Health::Ready && !self.stop.is_asked()
    }

    /// Why it would not, if so.
    pub(crate) fn check_ready(&self) -> Result<(), Refusal> {
        if self.stop.is_asked() {
            return Err(Refusal::not_ready("the server is stopping"));
        }
        self.check_loaded()
    }

    /// Refuses what needs the model where there is none; during a stop there still is.
    pub(crate) fn check_loaded(&self) -> Result<(), Refusal> {
        match &*self.health.borrow() {
            Health::Ready => Ok(()),
            Health::Loading => Err(Refusal::not_ready("the model is being loaded")),
            Health::Failed(error) => {
                Err(Refusal::not_ready(format!("the model has failed: {error}")))
            }
        }
    }

    /// The OpenAPI document of a model.
    pub(crate) fn document(description: &Description, options: &Options) -> Bytes {
        let document = openapi::document(description, options);
        serde_json::to_vec_pretty(&document).expect("a JSON value can be written").into()
    }
}

/// All routes; [`openapi`] describes each of them.
fn routes(has_prior: bool) -> Vec<Route> {
    let getting = |path, methods| Route { path, allowed: "GET, HEAD", methods };
    let posting = |path, methods| Route { path, allowed: "POST", methods };
    let mut routes = vec![
        getting("/", get(page::page)),
        getting("/healthz", get(async || json(&serde_json::json!({ "status": "ok" })))),
        getting("/metrics", get(plain::metrics)),
        getting("/model", get(plain::model)),
        getting("/openapi.json", get(plain::openapi)),
        posting("/encode", post(plain::encode)),
        posting("/decode", post(plain::decode)),
        posting("/reconstruct", post(plain::reconstruct)),
        posting("/inspect", post(plain::inspect)),
        getting("/v2", get(kserve::server)),
        getting("/v2/health/live", get(kserve::live)),
        getting("/v2/health/ready", get(kserve::ready)),
        getting("/v2/models/{model}", get(kserve::model)),
        getting("/v2/models/{model}/ready", get(kserve::model_ready)),
        posting("/v2/models/{model}/infer", post(kserve::infer)),
        getting("/v2/models/{model}/versions/{version}", get(kserve::model)),
        getting("/v2/models/{model}/versions/{version}/ready", get(kserve::model_ready)),
        posting("/v2/models/{model}/versions/{version}/infer", post(kserve::infer)),
    ];
    if has_prior {
        routes.push(posting("/sample", post(sample::sample)));
    } else {
        routes.push(posting("/sample", post(sample::no_prior)));
    }
    routes
}

/// Routes and what goes before them.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let mut router = Router::new();
    for Route { path, allowed, methods } in routes(app.description.has_prior) {
        let refuse = move |request: Request| async move { wrong_method(allowed, request.method()) };
        router = router.route(path, methods.fallback(refuse));
    }
    router
        .fallback(unknown)
        // The limits of `body` hold instead.
        .layer(DefaultBodyLimit::disable())
        .route_layer(from_fn_with_state(Arc::clone(app), gate::mark_route))
        .layer(from_fn_with_state(Arc::clone(app), gate::gate))
        .with_state(Arc::clone(app))
}

async fn unknown(request: Request) -> Response {
    let path = request.uri().path();
    let message = format!("there is no {path}: see /openapi.json");
    Refusal::new(StatusCode::NOT_FOUND, message).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Modality;

    #[test]
    fn the_openapi_document_lists_the_routes_and_no_others() {
        for has_prior in [false, true] {
            let description = Description {
                name: "m".to_owned(),
                hash: "00".to_owned(),
                tessera: "0".to_owned(),
                modality: Modality::Picture,
                sample_shape: vec![8, 8, 3],
                sample_rate: None,
                num_tokens: 4,
                levels: vec![crate::Level { axes: vec![2, 2], num_codes: 16 }],
                classes: Vec::new(),
                num_classes: 0,
                tile: 4,
                has_prior,
            };
            let document = openapi::document(&description, &Options::default());
            let mut told = Vec::new();
            for (path, item) in document["paths"].as_object().unwrap() {
                for method in item.as_object().unwrap().keys() {
                    // The document has one path for each model; the router one for all.
                    let mut path = path.clone();
                    for model in kserve::MODELS {
                        path = path.replace(&format!("/models/{model}"), "/models/{model}");
                    }
                    path = path.replace("/versions/1", "/versions/{version}");
                    told.push((path, method.to_uppercase()));
                }
            }
            told.sort();
            told.dedup();
            let mut there: Vec<(String, String)> = routes(has_prior)
                .iter()
                .map(|route| (route.path, route.allowed.split(',').next().unwrap()))
                .map(|(path, method)| (path.to_owned(), method.to_owned()))
                .filter(|(path, _)| has_prior || path != "/sample")
                .collect();
            there.sort();
            assert_eq!(told, there);
        }
    }
}
