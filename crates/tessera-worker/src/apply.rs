//! The commands that use a trained model: `export`, `encode`, `decode` and `sample`.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use serde::Serialize;
use tch::Device;
use tessera_apply::{
    ApplyError, Decoded, EncodeFigures, Encoded, ExportForm, Sampled, Watch, agree_on,
};
use tessera_checkpoint::Storage;
use tessera_comm::CommConfig;
use tessera_control::{ExitCode, LimitsConfig};
use tessera_data::DataConfig;
use tessera_model::{ModelFile, ModelPath, OpenModel, OpenPrior, Which};
use tessera_train::TrainError;

use crate::arguments::apply::{
    ComputeArguments, DataArguments, DecodeArguments, EncodeArguments, ExportArguments,
};
use crate::arguments::sample::SampleArguments;
use crate::session::{Session, refuse};
use crate::{answer_alone, arguments, judge, logging, threads};

/// Writes a model in a form that is complete in itself. One process does it.
pub(crate) fn run_export(arguments: &ExportArguments) -> ExitCode {
    logging::to_stderr();
    threads::compute_with(1);
    if let Some(form) = arguments.format.form() {
        return run_export_to(arguments, form);
    }
    let exported = arguments.model.path().open_any(Device::Cpu).and_then(|model| {
        tessera_model::write(&Storage::new(), &arguments.out, &*model)?;
        Ok(model.file().clone())
    });
    match exported {
        Ok(file) => answer_alone(&told(arguments.json, &file, &of_export(&file, &arguments.out))),
        Err(error) => refuse(&error.into()),
    }
}

/// Writes a model in the form of another program.
fn run_export_to(arguments: &ExportArguments, form: ExportForm) -> ExitCode {
    let opened = arguments.model.path().open(Device::Cpu).map_err(ApplyError::from);
    let exported = opened
        .and_then(|model| tessera_apply::export(&model, form, &arguments.out, arguments.force));
    match exported {
        Ok(exported) => {
            let files: Vec<&str> = exported.files.iter().map(|(name, _)| name.as_str()).collect();
            let line =
                format!("{}  for {}: {}\n", exported.path.display(), form.name(), files.join(", "));
            answer_alone(&told(arguments.json, &exported, &line))
        }
        Err(error) => refuse(&in_training_words(error)),
    }
}

fn of_export(ModelFile { hash, step, weights, .. }: &ModelFile, out: &Path) -> String {
    let weights = serde_json::to_value(weights).expect("it is plain data");
    let weights = weights.as_str().unwrap_or_default();
    format!("{}  step {step}, {weights} weights, hash {hash}\n", out.display())
}

/// Makes tokens of a data set.
pub(crate) fn run_encode(arguments: &EncodeArguments, stop: Arc<AtomicBool>) -> ExitCode {
    run(&arguments.compute, stop, |session, watch| {
        let model = tessera_apply::open(session.comm(), &arguments.model.path(), session.device())?;
        let corrupt = arguments.on_corrupt.iter().map(|word| format!("data.on_corrupt={word}"));
        let data = data_of(&arguments.data, &model, corrupt);
        let data = agree_on(session.comm(), data)?;
        let options = arguments.options();
        let encoded = tessera_apply::encode(session.comm(), &model, &data, &options, watch)?;
        if encoded.is_stopped {
            (watch.say)("stopped between two shards; the same command goes on".to_owned());
            return Ok(None);
        }
        Ok(Some(told(arguments.compute.json, &encoded, &of_tokens(&encoded))))
    })
}

/// The data that a model is applied to; `more` are settings beside the arguments.
pub(crate) fn data_of(
    arguments: &DataArguments,
    model: &OpenModel,
    more: impl IntoIterator<Item = String>,
) -> Result<DataConfig, ApplyError> {
    let bad = |error: TrainError| ApplyError::BadInput(error.to_string());
    let mut sets = arguments.sets.clone();
    if let Some(set) = sets.iter().find(|set| !set.trim_start().starts_with("data.")) {
        let problem = format!("--set of this command is for keys of [data] alone, found {set}");
        return Err(ApplyError::BadInput(problem));
    }
    sets.extend(more);
    if let Some(file) = &arguments.config {
        let variables = arguments::environment().map_err(bad)?;
        let resolved = tessera_train::resolve(Some(file), variables, &sets, None).map_err(bad)?;
        return Ok(resolved.config.data);
    }
    let is_kind =
        |set: &String| set.split_once('=').is_some_and(|(key, _)| key.trim() == "data.kind");
    let base = tessera_apply::usual_data(&model.file, sets.iter().any(is_kind))?;
    tessera_train::resolve_data(&base, &sets).map_err(bad)
}

fn of_tokens(encoded: &Encoded) -> String {
    let Encoded { path, tokenizer, splits, num_variants, num_tokens, samples_per_second, .. } =
        encoded;
    let mut text = format!("{}  made by the model {tokenizer}\n", path.display());
    for (name, split) in splits {
        let (num, skipped) = (split.num_samples, split.num_skipped);
        let skipped = if skipped == 0 { String::new() } else { format!(", {skipped} left out") };
        text.push_str(&format!("{name:8}{num} samples{skipped}\n"));
    }
    let variants = if *num_variants == 1 { "" } else { " in each variant" };
    text.push_str(&format!(
        "{num_variants} variants of a sample, {num_tokens} codes{variants}; {samples_per_second:.0} samples a second\n"
    ));
    text
}

/// Makes samples of tokens.
pub(crate) fn run_decode(arguments: &DecodeArguments, stop: Arc<AtomicBool>) -> ExitCode {
    run(&arguments.compute, stop, |session, watch| {
        let model = tessera_apply::open(session.comm(), &arguments.model.path(), session.device())?;
        let decoded = tessera_apply::decode(session.comm(), &model, &arguments.options(), watch)?;
        let Decoded { path, num_samples } = &decoded;
        let line = format!("{}  {num_samples} samples\n", path.display());
        Ok(Some(told(arguments.compute.json, &decoded, &line)))
    })
}

/// Draws new samples.
pub(crate) fn run_sample(arguments: &SampleArguments, stop: Arc<AtomicBool>) -> ExitCode {
    run(&arguments.compute, stop, |session, watch| {
        let (comm, device) = (session.comm(), session.device());
        let place = arguments.prior.path();
        let prior = tessera_apply::open_prior(comm, &place, device)?;
        let options = arguments.options();
        let encodes = options.prompt.as_ref().is_some_and(|prompt| !prompt.is_tokens());
        let tokenizer = match arguments.tokens_only && !encodes {
            true => None,
            false => tokenizer_of(session, (&place, &prior), arguments.tokenizer.as_deref())?,
        };
        let judge = |tokenizer: &OpenModel| {
            judge::open_classifier(arguments.classifier.as_deref(), tokenizer, device)
        };
        let opened = tokenizer.as_ref().map_or(Ok(None), judge);
        let opened = agree_on(comm, opened)?;
        let classifier = opened.as_ref().map(judge::Opened::as_classifier);
        let (tokenizer, classifier) = (tokenizer.as_ref(), classifier.as_ref());
        let sampled = tessera_apply::sample(comm, &prior, tokenizer, classifier, &options, watch)?;
        Ok(Some(told(arguments.compute.json, &sampled, &of_samples(&sampled))))
    })
}

/// Times the encoder of a model folder.
pub(crate) fn bench_encode(
    model: &Path,
    device: Device,
    warmup: usize,
    calls: usize,
) -> Result<EncodeFigures, TrainError> {
    let model = ModelPath::Model(model.to_owned()).open(device)?;
    tessera_apply::bench_encode(&model, warmup, calls).map_err(in_training_words)
}

/// The autoencoder of a prior: the one that is named, or else the one that its training left. Collective.
pub(crate) fn tokenizer_of(
    session: &Session,
    (place, prior): (&ModelPath, &OpenPrior),
    named: Option<&Path>,
) -> Result<Option<OpenModel>, ApplyError> {
    let found = match named {
        Some(path) => Some(place_of(path)),
        None => tessera_apply::usual_tokenizer(place, prior).map(ModelPath::Model),
    };
    found.map(|place| tessera_apply::open(session.comm(), &place, session.device())).transpose()
}

/// A run folder or a model folder.
pub(crate) fn place_of(path: &Path) -> ModelPath {
    match path.join("checkpoints").is_dir() {
        true => ModelPath::Run { folder: path.to_owned(), which: Which::Latest, weights: None },
        false => ModelPath::Model(path.to_owned()),
    }
}

fn of_samples(sampled: &Sampled) -> String {
    let Sampled { path, num_samples, nats_per_token, tokens_per_second, .. } = sampled;
    format!(
        "{}  {num_samples} samples, {nats_per_token:.3} nats a token where they were drawn, {tokens_per_second:.0} tokens a second\n",
        path.display()
    )
}

/// Connects, works, and tells what came of it; nothing where the work was stopped and can go on.
pub(crate) fn run(
    compute: &ComputeArguments,
    stop: Arc<AtomicBool>,
    work: impl FnOnce(&Session, &Watch<'_>) -> Result<Option<String>, ApplyError>,
) -> ExitCode {
    let comm = CommConfig { share_gpu: compute.share_gpu, ..CommConfig::default() };
    let limits = LimitsConfig::default();
    let threads = compute.threads();
    let session = match Session::start(&comm, compute.device, threads, &limits, Arc::clone(&stop)) {
        Ok(session) => session,
        Err(code) => return code,
    };
    logging::to_stderr();
    let say = |text: String| session.say(text);
    let watch = Watch { activity: &session.worker().activity, stop, say: &say };
    let done = work(&session, &watch);
    match done {
        Ok(Some(text)) => session.answer(&text, 0),
        Ok(None) => session.finish(ExitCode::Stopped, 0),
        Err(error) => session.fail(&in_training_words(error)),
    }
}

/// The same error as whoever ends a process tells it.
pub(crate) fn in_training_words(error: ApplyError) -> TrainError {
    match error {
        ApplyError::BadInput(text) => TrainError::BadInput(text),
        ApplyError::Model(error) => error.into(),
        ApplyError::Data(error) => error.into(),
        ApplyError::Comm(error) => error.into(),
        ApplyError::File { action, path, source } => TrainError::File { action, path, source },
        ApplyError::Peer { rank, code, message } => TrainError::Peer { rank, code, message },
        ApplyError::Torch(error) => error.into(),
        other => TrainError::Applied { code: other.code(), message: other.to_string() },
    }
}

/// A result as one line of JSON, or in words.
pub(crate) fn told(json: bool, result: &impl Serialize, words: &str) -> String {
    match json {
        true => serde_json::to_string(result).expect("a result is plain data") + "\n",
        false => words.to_owned(),
    }
}
