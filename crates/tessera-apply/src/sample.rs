//! New samples: tokens drawn from a prior, and what the prior's autoencoder makes of them.
//!
//! Samples have ids, 0 and on. What is drawn for one hangs on the seed and its id alone, and logits are always made for as
//! many [tiles](crate::tile) of ids, so the bytes are the same for every number of ranks and however many samples are asked
//! for.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;
use tch::{Device, Kind, Tensor};
use tessera_comm::{Communicator, all_gather_bytes};
use tessera_control::Phase;
use tessera_model::{CodesFile, ModelPath, OpenModel, OpenPrior, TOKENIZER};
use tessera_nn::prior::sample::{Request, Sampling};
use tessera_nn::to_device;

use crate::agreement::agree_on;
use crate::decode::{DecodeOptions, Form, decode, pictures, shortened};
use crate::error::ApplyError;
use crate::judge::Classifier;
use crate::prompt::{AboutPrompt, PromptOptions, prompt};
use crate::reject::{AboutRejection, Rejecting};
use crate::tile::LEAST;
use crate::watch::Watch;

/// Name of the file with the codes of samples.
pub(crate) const TOKENS_FILE: &str = "tokens.safetensors";
/// Name of the file that says how samples were made.
const ABOUT_FILE: &str = "samples.json";
/// Most samples on the sheet.
const ON_SHEET: u64 = 100;
/// Tiles that a CPU draws at once: each takes two thirds of the time of one alone.
const TILES_ON_CPU: usize = 4;
/// Tiles that a GPU draws at once: it takes as long for one.
const TILES_ON_GPU: usize = 16;

/// What is drawn, and where it goes.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleOptions {
    /// Samples.
    pub num: u64,
    /// Names or numbers of classes that samples take turns in; empty: all classes of the prior.
    pub classes: Vec<String>,
    /// Whether samples are of no class.
    pub without_class: bool,
    /// Key of all draws.
    pub seed: u64,
    /// How they are drawn.
    pub sampling: Sampling,
    /// Folder for what comes out; must not exist, or be empty.
    pub out: PathBuf,
    /// Whether nothing but codes is made.
    pub tokens_only: bool,
    /// The beginning that all samples go on from.
    pub prompt: Option<PromptOptions>,
    /// Least probability that a classifier has to give a sample's class; above 0, below 1.
    pub reject_below: Option<f64>,
}

/// What was drawn.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sampled {
    /// The folder.
    pub path: PathBuf,
    /// Samples.
    pub num_samples: u64,
    /// Mean of -ln p of a token where it was drawn.
    pub nats_per_token: f64,
    /// Seconds that drawing took, decoding left out.
    pub seconds: f64,
    /// Tokens drawn a second.
    pub tokens_per_second: f64,
}

/// What `samples.json` says.
#[derive(Serialize)]
struct About<'a> {
    format: &'static str,
    version: u32,
    prior: &'a str,
    tokenizer: &'a str,
    seed: u64,
    num_samples: u64,
    sampling: &'a Sampling,
    /// Of each sample; -1: none.
    classes: &'a [i64],
    class_names: &'a [String],
    nats_per_token: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<&'a AboutPrompt>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rejection: Option<AboutRejection>,
    /// Whether the bytes hang on nothing but what is told here, on the same kind of processor: with one thread a rank, on a
    /// CPU.
    reproducible: bool,
}

/// Draws samples, those that `classifier` rejects again. Collective: ranks share the tiles; files are rank 0's, pictures
/// everybody's.
///
/// # Errors
///
/// [`ApplyError`].
pub fn sample(
    comm: &dyn Communicator,
    prior: &OpenPrior,
    tokenizer: Option<&OpenModel>,
    classifier: Option<&Classifier<'_>>,
    options: &SampleOptions,
    watch: &Watch<'_>,
) -> Result<Sampled, ApplyError> {
    let codes = prior.codes();
    let checked = check(prior, tokenizer, options)
        .and_then(|classes| check_rejection(codes, classifier, options).map(|()| classes))
        .map_err(ApplyError::BadInput);
    let classes = agree_on(comm, checked)?;
    let asked = options.prompt.as_ref();
    let prompt = asked.map(|asked| prompt(comm, prior, tokenizer, asked)).transpose()?;
    let folder = &options.out;
    let made = match comm.rank() {
        0 => make_folder(folder),
        _ => Ok(()),
    };
    agree_on(comm, made)?;
    watch.activity.enter(Phase::Evaluate);
    let begun = Instant::now();
    let known_t = prompt.as_ref().map(|prompt| prompt.known_t.as_slice());
    let num_tokens = codes.order().len();
    let rejecting = options.reject_below.zip(classifier).zip(tokenizer);
    let (drawn, rejection) = match rejecting {
        Some(((below, classifier), tokenizer)) => {
            let classes = classes.as_slice();
            let rejecting =
                Rejecting { prior, tokenizer, classifier, below, options, classes, known_t };
            let (drawn, rejection) = rejecting.draw(comm, watch)?;
            (drawn, Some(rejection))
        }
        None => {
            let mine = draw(comm, prior, options, &classes, known_t, watch);
            (gather(comm, &mine, num_tokens)?, None)
        }
    };
    let seconds = begun.elapsed().as_secs_f64();
    let num_given = prompt.as_ref().map_or(0, |prompt| prompt.about.num_given);
    let num_drawn = options.num as f64 * (num_tokens - num_given) as f64;
    let nats_per_token = drawn.values().map(|sample| sample.nats).sum::<f64>() / num_drawn;
    let about = About {
        format: "tessera-samples",
        version: 1,
        prior: &prior.file.hash,
        tokenizer: &codes.tokenizer,
        seed: options.seed,
        num_samples: options.num,
        sampling: &options.sampling,
        classes: &classes,
        class_names: &codes.classes,
        nats_per_token,
        prompt: prompt.as_ref().map(|prompt| &prompt.about),
        rejection,
        reproducible: tch::get_num_threads() == 1 && prior.prior.device() == Device::Cpu,
    };
    let written = match comm.rank() {
        0 => write_tokens(folder, codes, &drawn, &classes)
            .and_then(|()| write_about(&folder.join(ABOUT_FILE), &about)),
        _ => Ok(()),
    };
    agree_on(comm, written)?;
    if let Some(tokenizer) = tokenizer.filter(|_| !options.tokens_only) {
        let all = DecodeOptions {
            tokens: folder.join(TOKENS_FILE),
            split: String::new(),
            ids: Vec::new(),
            limit: None,
            levels: None,
            form: Form::Files(folder.join(pictures::names(tokenizer.signal()).0)),
        };
        decode(comm, tokenizer, &all, watch)?;
        if pictures::check(tokenizer.signal()).is_ok() {
            let form = Form::Grid(folder.join("grid.png"));
            let sheet = DecodeOptions { limit: Some(ON_SHEET), form, ..all };
            decode(comm, tokenizer, &sheet, watch)?;
        }
    }
    Ok(Sampled {
        path: folder.clone(),
        num_samples: options.num,
        nats_per_token,
        seconds,
        tokens_per_second: num_drawn / seconds,
    })
}

/// Where a prior's autoencoder lies, if it lies where trainings and exports leave it.
pub fn usual_tokenizer(prior: &ModelPath, file: &OpenPrior) -> Option<PathBuf> {
    let places = match prior {
        ModelPath::Model(folder) => vec![folder.join(TOKENIZER)],
        ModelPath::Run { folder, .. } => {
            let of_data = file.file.data().ok().map(|data| data.path.join(TOKENIZER));
            [Some(folder.join("model").join(TOKENIZER)), of_data].into_iter().flatten().collect()
        }
    };
    places.into_iter().find(|place| place.join(tessera_model::CONFIG_FILE).is_file())
}

/// Refuses what cannot be drawn; the class of each sample.
fn check(
    prior: &OpenPrior,
    tokenizer: Option<&OpenModel>,
    options: &SampleOptions,
) -> Result<Vec<i64>, String> {
    let codes = prior.codes();
    if let Some(tokenizer) = tokenizer {
        check_tokenizer(codes, tokenizer)?;
    }
    if tokenizer.is_none() && !options.tokens_only {
        return Err("the prior's tokeniser is not where its training left it: name it by --tokenizer, or ask for \
                    --tokens-only"
            .to_owned());
    }
    if options.num == 0 {
        return Err("--num should be 1 or more, found 0".to_owned());
    }
    let numbers = class_numbers(codes, options)?;
    let none = Tensor::from_slice(&[-1i64]);
    let request = Request { seed: options.seed, ids: &[0], classes_n: Some(&none), known_nt: None };
    prior.prior.check_request(&options.sampling, &request)?;
    Ok((0..options.num).map(|id| numbers[(id % numbers.len() as u64) as usize]).collect())
}

/// Refuses a rejection that cannot work.
fn check_rejection(
    codes: &CodesFile,
    classifier: Option<&Classifier<'_>>,
    options: &SampleOptions,
) -> Result<(), String> {
    let Some(below) = options.reject_below else { return Ok(()) };
    if !(below > 0.0 && below < 1.0) {
        return Err(format!("--reject-below should be above 0 and below 1, found {below}"));
    }
    let Some(Classifier { num_classes, .. }) = classifier.filter(|_| !options.tokens_only) else {
        return Err("--reject-below needs samples that are decoded and who judges them: name a probe's run by --classifier, and \
                    leave out --tokens-only"
            .to_owned());
    };
    let of_prior = codes.num_classes as i64;
    if of_prior > 0 && of_prior != *num_classes {
        return Err(format!(
            "the classifier knows {num_classes} classes, the prior {of_prior}: name one that was trained on the same data"
        ));
    }
    Ok(())
}

/// Refuses an autoencoder that makes other codes than those that a prior is of.
pub(crate) fn check_tokenizer(codes: &CodesFile, tokenizer: &OpenModel) -> Result<(), String> {
    if tokenizer.file.hash == codes.tokenizer {
        return Ok(());
    }
    let [ours, theirs] = [tokenizer.file.hash.as_str(), codes.tokenizer.as_str()].map(shortened);
    Err(format!(
        "the prior is of the codes of the model {theirs}, the tokeniser is {ours}: name the one that made its token set"
    ))
}

/// The classes that samples take turns in, at least one; -1: none.
fn class_numbers(codes: &CodesFile, options: &SampleOptions) -> Result<Vec<i64>, String> {
    let num_classes = codes.num_classes as i64;
    if options.without_class || (options.classes.is_empty() && num_classes == 0) {
        return Ok(vec![-1]);
    }
    if options.classes.is_empty() {
        return Ok((0..num_classes).collect());
    }
    options.classes.iter().map(|class| class_number(codes, class)).collect()
}

/// The number of a class, by its name or number.
pub(crate) fn class_number(codes: &CodesFile, class: &str) -> Result<i64, String> {
    let num_classes = codes.num_classes as i64;
    let named = codes.classes.iter().position(|name| name == class).map(|at| at as i64);
    let number = named.or_else(|| class.parse().ok());
    number.filter(|number| (0..num_classes).contains(number)).ok_or_else(|| {
        let names = if codes.classes.is_empty() {
            format!("there are {num_classes}, counted from 0")
        } else {
            format!("there are {}", codes.classes.join(", "))
        };
        format!("--class should be a class of the prior, found {class}: {names}")
    })
}

/// Makes a folder, which must not be there or be empty.
pub(crate) fn make_folder(folder: &Path) -> Result<(), ApplyError> {
    let is_taken = fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
    if is_taken || folder.is_file() {
        return Err(ApplyError::BadInput(format!(
            "{} is there already, and not empty: name another folder, or remove it",
            folder.display()
        )));
    }
    fs::create_dir_all(folder).map_err(ApplyError::file("make the folder", folder))
}

/// A sample that was drawn.
pub(crate) struct Drawn {
    /// Its codes in the order of a token set.
    pub(crate) tokens: Vec<u32>,
    /// The sum of -ln p of those that were not given.
    pub(crate) nats: f64,
}

/// Draws this rank's tiles: samples by id.
fn draw(
    comm: &dyn Communicator,
    prior: &OpenPrior,
    options: &SampleOptions,
    classes: &[i64],
    known_t: Option<&[i64]>,
    watch: &Watch<'_>,
) -> BTreeMap<u64, Drawn> {
    let (rank, world_size) = (comm.rank() as u64, comm.world_size() as u64);
    let device = prior.prior.device();
    let at_once = num_at_once(device) as u64;
    let mut drawn = BTreeMap::new();
    for part in (rank..options.num.div_ceil(at_once)).step_by(world_size as usize) {
        let ids: Vec<u64> = (part * at_once..(part + 1) * at_once).collect();
        // What is beyond the last sample is drawn as it would be, and left out.
        let class = |&id: &u64| classes[(id % classes.len() as u64) as usize];
        let of_tile: Vec<i64> = ids.iter().map(class).collect();
        let samples = draw_with(prior, options, &ids, &of_tile, known_t);
        let wanted = ids.iter().zip(samples).filter(|(id, _)| **id < options.num);
        drawn.extend(wanted.map(|(id, sample)| (*id, sample)));
        watch.activity.part_done();
    }
    drawn
}

/// Draws samples of these ids and classes, which all begin with `known_t`, if there is a prompt.
pub(crate) fn draw_with(
    prior: &OpenPrior,
    options: &SampleOptions,
    ids: &[u64],
    classes: &[i64],
    known_t: Option<&[i64]>,
) -> Vec<Drawn> {
    let classes_n = to_device(Tensor::from_slice(classes), prior.prior.device());
    let num = ids.len();
    let repeated = |known_t: &[i64]| Tensor::from_slice(&known_t.repeat(num));
    let known_nt = known_t.map(|known_t| repeated(known_t).view([num as i64, -1]));
    let (classes_n, known_nt) = (Some(&classes_n), known_nt.as_ref());
    draw_at_once(
        prior,
        &options.sampling,
        &Request { seed: options.seed, ids, classes_n, known_nt },
    )
}

/// Samples that a device draws at once, whatever is asked for, so that no byte hangs on that: several tiles.
pub(crate) fn num_at_once(device: Device) -> usize {
    match device {
        Device::Cpu => LEAST * TILES_ON_CPU,
        _ => LEAST * TILES_ON_GPU,
    }
}

/// Draws the samples of a request.
pub(crate) fn draw_at_once(
    prior: &OpenPrior,
    sampling: &Sampling,
    request: &Request<'_>,
) -> Vec<Drawn> {
    let order = prior.codes().order();
    let samples = prior.prior.sample(sampling, request);
    let nats_n = samples.nats_nt.sum_dim_intlist([1i64].as_slice(), false, Kind::Double);
    let of_row = |row: i64| {
        let tokens: Vec<i64> = Vec::try_from(samples.tokens_nt.get(row))
            .expect("tokens are whole numbers on one axis");
        let mut placed = vec![0; tokens.len()];
        for (&place, token) in order.iter().zip(tokens) {
            placed[place as usize] = token as u32;
        }
        Drawn { tokens: placed, nats: nats_n.double_value(&[row]) }
    };
    (0..request.ids.len() as i64).map(of_row).collect()
}

/// The samples of all ranks, on every rank.
pub(crate) fn gather(
    comm: &dyn Communicator,
    mine: &BTreeMap<u64, Drawn>,
    num_tokens: usize,
) -> Result<BTreeMap<u64, Drawn>, ApplyError> {
    let mut bytes = Vec::new();
    for (id, Drawn { tokens, nats }) in mine {
        bytes.extend(id.to_le_bytes());
        bytes.extend(nats.to_le_bytes());
        tokens.iter().for_each(|token| bytes.extend(token.to_le_bytes()));
    }
    let eight = |bytes: &[u8]| <[u8; 8]>::try_from(bytes).expect("eight bytes");
    let four = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
    let mut all = BTreeMap::new();
    for of_rank in all_gather_bytes(comm, &bytes)? {
        for sample in of_rank.chunks_exact(16 + 4 * num_tokens) {
            let (id, nats) = (u64::from_le_bytes(eight(&sample[..8])), eight(&sample[8..16]));
            let tokens = sample[16..].chunks_exact(4).map(four).collect();
            all.insert(id, Drawn { tokens, nats: f64::from_le_bytes(nats) });
        }
    }
    Ok(all)
}

/// Writes codes of samples with their classes.
pub(crate) fn write_tokens(
    folder: &Path,
    codes: &CodesFile,
    drawn: &BTreeMap<u64, Drawn>,
    classes: &[i64],
) -> Result<(), ApplyError> {
    let num = drawn.len();
    let mut columns: Vec<(String, Dtype, Vec<usize>, Vec<u8>)> = Vec::new();
    let mut start = 0;
    for (number, level) in codes.levels.iter().enumerate() {
        let positions = level.num_positions();
        let of_level = drawn.values().flat_map(|sample| &sample.tokens[start..start + positions]);
        let bytes = of_level.flat_map(|token| token.to_le_bytes()).collect();
        columns.push((format!("codes.{number}"), Dtype::U32, vec![num, positions], bytes));
        start += positions;
    }
    let labels = classes.iter().flat_map(|class| (*class as i32).to_le_bytes()).collect();
    columns.push(("label".to_owned(), Dtype::I32, vec![num], labels));
    let views = columns.iter().map(|(name, dtype, shape, bytes)| {
        let view =
            TensorView::new(*dtype, shape.clone(), bytes).expect("shapes are those of bytes");
        (name.as_str(), view)
    });
    // One entry: the order of several would be another one each time.
    let metadata = HashMap::from([("tokenizer".to_owned(), codes.tokenizer.clone())]);
    let bytes = safetensors::serialize(views, Some(metadata)).expect("names differ");
    let path = folder.join(TOKENS_FILE);
    fs::write(&path, bytes).map_err(ApplyError::file("write", &path))
}

/// Writes how something was made.
pub(crate) fn write_about(path: &Path, about: &impl Serialize) -> Result<(), ApplyError> {
    let mut text = serde_json::to_vec_pretty(about).expect("it is plain data");
    text.push(b'\n');
    fs::write(path, text).map_err(ApplyError::file("write", path))
}
