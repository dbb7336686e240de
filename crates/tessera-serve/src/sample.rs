//! New samples, drawn from the model's prior.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::body;
use crate::engine::{Drawing, Wanted};
use crate::object::Object;
use crate::plain::joined;
use crate::refusal::{Refusal, json};
use crate::whole::Whole;

/// Most samples of a request.
pub(crate) const MOST_SAMPLES: u64 = 64;
/// Lowest temperature: the likeliest code in all but name.
pub(crate) const LEAST_TEMPERATURE: f64 = 0.01;
/// Highest temperature.
pub(crate) const MOST_TEMPERATURE: f64 = 10.0;
/// Highest seed: whole numbers that JSON keeps in every language.
pub(crate) const MOST_SEED: u64 = (1 << 53) - 1;

/// What `/sample` takes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ToSample {
    seed: Whole<u64>,
    num: Whole<u64>,
    class: Option<Whole<u32>>,
    temperature: f64,
    top_k: Option<Whole<u32>>,
    top_p: Option<f64>,
    /// `file`: the samples in one file; `tokens`: their tokens in JSON.
    answer: Form,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Form {
    File,
    Tokens,
}

#[derive(Debug, Serialize)]
struct Sampled<'a> {
    model: &'a str,
    hash: &'a str,
    tokens: &'a [Vec<u32>],
}

impl Default for ToSample {
    fn default() -> Self {
        Self {
            seed: Whole(0),
            num: Whole(1),
            class: None,
            temperature: 1.0,
            top_k: None,
            top_p: None,
            answer: Form::File,
        }
    }
}

pub(crate) async fn sample(
    State(app): State<Arc<App>>,
    request: Request,
) -> Result<Response, Refusal> {
    let whole = body::read(&app, request).await?;
    if body::content_type(&whole.headers) != "application/json" {
        return Err(Refusal::unsupported("expected content type application/json"));
    }
    let Object(asked): Object<ToSample> =
        serde_json::from_slice(&whole.bytes).map_err(|error| {
            Refusal::bad(format!("expected {{\"seed\": .., \"num\": ..}}: {error}"))
        })?;
    check(&app, &asked)?;
    let class = asked.class.map(|Whole(class)| class);
    let drawing = Drawing {
        temperature: asked.temperature,
        top_k: asked.top_k.map(|Whole(top_k)| top_k),
        top_p: asked.top_p,
    };
    let wanted =
        (0..asked.num.0).map(|number| Wanted { seed: asked.seed.0, number, class }).collect();
    let tokens = app.inference.draw(drawing, wanted).await?;
    if asked.answer == Form::Tokens {
        let (model, hash) = (&app.description.name, &app.description.hash);
        return Ok(json(&Sampled { model, hash, tokens: &tokens }));
    }
    let layout = app.description.sheet(tokens.len());
    let samples = app.inference.decode(tokens).await?;
    joined(&app, layout, samples).await
}

pub(crate) async fn no_prior() -> Refusal {
    Refusal::not_found("this model has no prior, which samples are drawn from")
}

/// Most samples that one request of this server may draw.
pub(crate) fn most_samples(request_samples: usize) -> u64 {
    MOST_SAMPLES.min(request_samples as u64)
}

fn check(app: &App, asked: &ToSample) -> Result<(), Refusal> {
    let wrong = |name: &str, expected: String, came: String| {
        Err(Refusal::bad(format!("`{name}`: expected {expected}, got {came}")))
    };
    let most = most_samples(app.options.request_samples);
    if !(1..=most).contains(&asked.num.0) {
        return wrong("num", format!("1 to {most}"), asked.num.0.to_string());
    }
    if asked.seed.0 > MOST_SEED {
        return wrong("seed", format!("at most {MOST_SEED}"), asked.seed.0.to_string());
    }
    let num_classes = app.description.num_classes;
    match asked.class {
        Some(Whole(class)) if num_classes == 0 => {
            return wrong(
                "class",
                "none, as the prior knows no classes".to_owned(),
                class.to_string(),
            );
        }
        Some(Whole(class)) if class >= num_classes => {
            return wrong("class", format!("below {num_classes}"), class.to_string());
        }
        _ => {}
    }
    if !(LEAST_TEMPERATURE..=MOST_TEMPERATURE).contains(&asked.temperature) {
        let expected = format!("{LEAST_TEMPERATURE} to {MOST_TEMPERATURE}");
        return wrong("temperature", expected, asked.temperature.to_string());
    }
    if asked.top_k == Some(Whole(0)) {
        return wrong("top_k", "at least 1".to_owned(), "0".to_owned());
    }
    match asked.top_p {
        Some(top_p) if !(top_p > 0.0 && top_p <= 1.0) => {
            wrong("top_p", "above 0 and at most 1".to_owned(), top_p.to_string())
        }
        _ => Ok(()),
    }
}
