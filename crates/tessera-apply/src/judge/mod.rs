//! Samples judged: how near they are to real ones that no training saw, how varied they are, and how many of them are copies.
//!
//! No figure stands alone. Beside the samples are judged, in the same number: training samples, which nothing can be nearer
//! than; the model's reconstructions of held-out samples, which a prior can hardly be nearer than; and what needs no prior
//! (see [`floors`]). Pictures, sound and film are judged alike: of sound a network sees spectrograms, of film frames and what
//! changes between them ([`Seen`]).

mod copies;
mod figures;
mod floors;
mod look;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use tch::Tensor;
use tessera_comm::Communicator;
use tessera_control::Phase;
use tessera_data::{DataConfig, Source};
use tessera_model::OpenModel;
use tessera_nn::Signal;
use tessera_nn::features::Seen;

pub use self::copies::Copies;
pub use self::figures::SetFigures;
use self::floors::Floors;
use self::look::{Look, Set};
use crate::agreement::agree_on;
use crate::decode::{TokenFile, pictures};
use crate::encode::check_data;
use crate::error::ApplyError;
use crate::input::files;
use crate::sample::TOKENS_FILE;
use crate::watch::Watch;

/// Name of the file with all figures.
const FIGURES_FILE: &str = "judge.json";
/// Name of the sheet of samples, each beside the training sample that is nearest to it.
const NEAREST_FILE: &str = "nearest.png";
/// Most samples on that sheet: with their neighbours a square of eight; films, of which each has a row, are fewer.
const ON_SHEET: usize = 32;
const FILMS_ON_SHEET: usize = 16;

/// What is judged, and by how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgeOptions {
    /// A folder of `tessera sample`, a file of codes, a token set, or a folder of files.
    pub samples: PathBuf,
    /// Split with the samples that no training saw.
    pub split: String,
    /// Samples at most, and as many of everything else.
    pub num: u64,
    /// Training samples at most, among which copies are looked for.
    pub num_train: u64,
    /// Which neighbour's distance is the size of a ball; 5 is usual.
    pub neighbors: i64,
    /// Folder for the figures.
    pub out: PathBuf,
}

/// What judges samples.
#[derive(Clone, Copy)]
pub struct Judging<'a> {
    /// Makes the features that are compared.
    pub network: &'a Seen,
    /// Kind of the network and, where its weights came from somewhere, their hash.
    pub name: &'a str,
    /// Finds the class of a sample.
    pub classifier: Option<Classifier<'a>>,
}

impl std::fmt::Debug for Judging<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Judging").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Finds the class of a sample.
#[derive(Clone, Copy)]
pub struct Classifier<'a> {
    /// The probability of each class, `[N, classes]`, for samples `[N, C, ..]`.
    pub probabilities: &'a dyn Fn(&Tensor) -> Tensor,
    /// Classes.
    pub num_classes: i64,
    /// What it is: where it was opened from.
    pub name: &'a str,
}

impl std::fmt::Debug for Classifier<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Classifier").field("num_classes", &self.num_classes).finish()
    }
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judged {
    /// The file with all of this.
    pub path: PathBuf,
    /// What makes the features.
    pub features: String,
    /// Hash of the model whose codes and decoder are used.
    pub tokenizer: String,
    /// Samples in each set.
    pub num_samples: u64,
    /// Samples of each set that precision, recall, density and coverage are of.
    pub num_manifold: u64,
    /// The samples first, then what they are beside.
    pub sets: Vec<SetFigures>,
    /// How many samples are copies of training samples.
    pub copies: Copies,
}

/// Judges samples. Collective: ranks share the samples; figures are rank 0's, the same for every number of ranks.
///
/// # Errors
///
/// [`ApplyError`].
pub fn judge(
    comm: &dyn Communicator,
    model: &OpenModel,
    data: &DataConfig,
    judging: &Judging<'_>,
    options: &JudgeOptions,
    watch: &Watch<'_>,
) -> Result<Judged, ApplyError> {
    let opened = agree_on(comm, Opened::new(model, data, judging, options))?;
    let num = opened.num(options);
    watch.activity.enter(Phase::Evaluate);
    let look = Look { comm, model, judging, watch };
    (watch.say)(format!("{num} samples, and as many of everything they are beside"));
    let held_out = look.real(&*opened.held_out, num)?;
    let num_train = options.num_train.min(opened.train.num_samples());
    let training = look.real(&*opened.train, num_train)?;
    let samples = match &opened.samples {
        Samples::Codes(codes) => look.codes(&codes.first(num)?)?,
        Samples::Real(source) => look.real(&**source, num)?,
    };
    let reconstructed = look.codes(&held_out.coded())?;
    let floors = Floors {
        training: &training,
        held_out: &held_out,
        like: &samples,
        levels: &model.file.autoencoder().levels,
    };
    let signal = model.signal();
    let mut beside = vec![(format!("reconstructions of held-out {signal}"), reconstructed)];
    for (name, codes) in floors.all() {
        beside.push((name.to_owned(), look.codes(&codes)?));
    }
    let (real, training_some) = (format!("training {signal}"), training.every(num));
    let sets = [("samples", &samples), (real.as_str(), &training_some)];
    let sets = sets.into_iter().chain(beside.iter().map(|(name, set)| (name.as_str(), set)));
    let told = match comm.rank() {
        0 => tell(&opened, &look, (&held_out, &training, &samples), sets, options).map(Some),
        _ => Ok(None),
    };
    let told = agree_on(comm, told)?;
    Ok(told.unwrap_or_else(|| Judged {
        path: options.out.join(FIGURES_FILE),
        features: judging.name.to_owned(),
        tokenizer: model.file.hash.clone(),
        num_samples: num,
        num_manifold: 0,
        sets: Vec::new(),
        copies: Copies::default(),
    }))
}

/// Computes the figures and writes them, and the sheet of nearest neighbours.
fn tell<'a>(
    opened: &Opened,
    look: &Look<'_>,
    (held_out, training, samples): (&Set, &Set, &Set),
    sets: impl Iterator<Item = (&'a str, &'a Set)>,
    options: &JudgeOptions,
) -> Result<Judged, ApplyError> {
    let mut figures = Vec::new();
    for (name, set) in sets {
        figures.push(SetFigures::of(name, set, held_out, options.neighbors));
        look.watch.activity.part_done();
    }
    let (copies, nearest) = Copies::count(samples, held_out, training, look.watch);
    let folder = &options.out;
    let judged = Judged {
        path: folder.join(FIGURES_FILE),
        features: look.judging.name.to_owned(),
        tokenizer: look.model.file.hash.clone(),
        num_samples: samples.len() as u64,
        num_manifold: figures::num_manifold(samples) as u64,
        sets: figures,
        copies,
    };
    fs::create_dir_all(folder).map_err(ApplyError::file("make the folder", folder))?;
    let text = serde_json::to_string_pretty(&judged).expect("figures are plain data") + "\n";
    fs::write(&judged.path, text).map_err(ApplyError::file("write", &judged.path))?;
    let is_film = matches!(look.model.signal(), Signal::Video { .. });
    let most = if is_film { FILMS_ON_SHEET } else { ON_SHEET };
    let mut pairs = Vec::new();
    for (row, &near) in nearest.iter().enumerate().take(most) {
        pairs.push(match &opened.samples {
            Samples::Codes(_) => look.decoded(&samples.codes[row])?,
            Samples::Real(source) => look::sample(&**source, samples.ids[row])?,
        });
        pairs.push(look::sample(&*opened.train, training.ids[near])?);
    }
    let columns = if is_film { 2 } else { (pairs.len() as f64).sqrt().ceil() as i64 };
    pictures::write_looks(&folder.join(NEAREST_FILE), &pairs, columns, look.model.signal())?;
    Ok(judged)
}

/// What there is to compare.
struct Opened {
    samples: Samples,
    held_out: Arc<dyn Source>,
    train: Arc<dyn Source>,
}

enum Samples {
    Codes(TokenFile),
    Real(Arc<dyn Source>),
}

impl Opened {
    fn new(
        model: &OpenModel,
        data: &DataConfig,
        judging: &Judging<'_>,
        options: &JudgeOptions,
    ) -> Result<Self, ApplyError> {
        let JudgeOptions { samples, split, num, num_train, neighbors, .. } = options;
        for (name, found) in [("num", *num), ("num-train", *num_train)] {
            if found < 2 {
                return Err(ApplyError::BadInput(format!(
                    "--{name} should be 2 or more, found {found}"
                )));
            }
        }
        if *neighbors < 1 {
            return Err(ApplyError::BadInput(format!(
                "--neighbors should be 1 or more, found {neighbors}"
            )));
        }
        pictures::check_alone(model.signal()).map_err(ApplyError::BadInput)?;
        let open = |split: &str| -> Result<Arc<dyn Source>, ApplyError> {
            let source = tessera_data::source::open(data, split)?;
            check_data(&model.file, source.shape())?;
            Ok(source)
        };
        let opened = Self {
            samples: Samples::open(samples, model)?,
            held_out: open(split)?,
            train: open("train")?,
        };
        if let Some(Classifier { num_classes, .. }) = judging.classifier
            && let Some(of_data) = opened.held_out.num_classes()?
            && of_data as i64 != num_classes
        {
            return Err(ApplyError::BadInput(format!(
                "the classifier knows {num_classes} classes, these data have {of_data}: name one that was trained on them"
            )));
        }
        let num = opened.num(options);
        if num <= *neighbors as u64 {
            return Err(ApplyError::BadInput(format!(
                "there are {num} samples or held-out ones, and a neighbour of number {neighbors} wants more: draw more samples"
            )));
        }
        Ok(opened)
    }

    /// Samples of each set.
    fn num(&self, options: &JudgeOptions) -> u64 {
        let there = match &self.samples {
            Samples::Codes(codes) => codes.num_samples(),
            Samples::Real(source) => source.num_samples(),
        };
        options.num.min(there).min(self.held_out.num_samples()).min(self.train.num_samples())
    }
}

impl Samples {
    fn open(path: &Path, model: &OpenModel) -> Result<Self, ApplyError> {
        let codes = path.join(TOKENS_FILE);
        let is_set = path.join("manifest.json").is_file();
        if codes.is_file() || path.is_file() || is_set {
            let place = if codes.is_file() { &codes } else { path };
            let split = if is_set { "train" } else { "" };
            return TokenFile::of_model(place, split, model).map(Self::Codes);
        }
        let source = files(&model.file, path)?;
        Ok(Self::Real(source))
    }
}
