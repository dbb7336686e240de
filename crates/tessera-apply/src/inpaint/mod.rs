//! Holes in pictures, filled by a prior: what a mask says, or what the prior finds damaged.
//!
//! The codes that a hole touches are drawn anew, and some around it, since what an encoder saw of the hole is in those too
//! (MaskGIT, <https://arxiv.org/abs/2202.04200>, section 4.3); all others are given and stay as they are. With a mask the
//! encoder sees the hole in the mean color of the rest, never the truth. Of the decoded picture nothing is taken but what
//! is in the hole.
//!
//! What is drawn for a picture hangs on the seed, the picture's number and the number of the draw alone. Draws are made in
//! [tiles](crate::tile), all of a picture before those of the next, so the bytes are the same for every number of ranks.
//! A masked prior fills any hole; an autoregressive one goes on from what comes first.

mod draw;
mod find;
mod given;
mod holes;
mod out;
mod places;

use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;
use tch::Device;
use tessera_comm::Communicator;
use tessera_control::Phase;
use tessera_model::{OpenModel, OpenPrior};
use tessera_nn::Signal;
use tessera_nn::prior::PriorConfig;
use tessera_nn::prior::sample::{Request, Sampling};

use self::draw::Draw;
use self::find::Look;
use self::given::Given;
use self::holes::Holes;
use self::out::{About, AboutFound, Out};
use self::places::Places;
use crate::agreement::agree_on;
use crate::error::ApplyError;
use crate::sample::{check_tokenizer, class_number, gather, make_folder};
use crate::watch::Watch;

/// What is filled, and where it goes.
#[derive(Debug, Clone, PartialEq)]
pub struct InpaintOptions {
    /// The pictures.
    pub input: Input,
    /// Where they are to be filled.
    pub damage: Damage,
    /// Cells around the hole, on each grid of codes: whose codes are drawn anew too, or, of damage that was found, that
    /// count as damaged too.
    pub widen: usize,
    /// Draws of each picture.
    pub num: u32,
    /// Name or number of the class that all pictures are of; left out: of none.
    pub class: Option<String>,
    /// Key of all draws.
    pub seed: u64,
    /// How they are drawn.
    pub sampling: Sampling,
    /// Folder for what comes out; must not exist, or be empty.
    pub out: PathBuf,
    /// Whether pictures are written as they were decoded too.
    pub raw: bool,
}

/// Which pictures are filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A picture file, or all those of a folder.
    Files(PathBuf),
    /// Samples of the data that the autoencoder was trained on.
    Data {
        /// Their split.
        split: String,
        /// Their numbers.
        ids: Vec<u64>,
    },
}

/// Where pictures are to be filled.
#[derive(Debug, Clone, PartialEq)]
pub enum Damage {
    /// Where this picture, of the size of the model's, is white: over 127 of 255.
    Mask(PathBuf),
    /// In the patches of codes that a masked prior does not expect.
    Find {
        /// -ln p above which a code is damaged.
        nats: f64,
        /// Passes of a first look, in each of which a part of the codes is hidden and compared.
        passes: usize,
    },
}

/// What was filled.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inpainted {
    /// The folder.
    pub path: PathBuf,
    /// Pictures.
    pub num_pictures: u64,
    /// Draws of each.
    pub num_draws: u32,
    /// Codes of a picture.
    pub num_tokens: usize,
    /// Codes of it that were drawn anew, the mean over pictures.
    pub mean_drawn: f64,
    /// Mean of -ln p of a code where it was drawn; none where none was.
    pub nats_per_token: Option<f64>,
    /// Seconds that drawing took.
    pub seconds: f64,
}

/// Fills pictures. Collective: ranks share the tiles; tokens, the sheet and the description are rank 0's, pictures
/// everybody's.
///
/// # Errors
///
/// [`ApplyError`].
pub fn inpaint(
    comm: &dyn Communicator,
    prior: &OpenPrior,
    tokenizer: Option<&OpenModel>,
    options: &InpaintOptions,
    watch: &Watch<'_>,
) -> Result<Inpainted, ApplyError> {
    let checked = check(prior, tokenizer, options).map_err(ApplyError::BadInput);
    let Checked { tokenizer, places, class } = agree_on(comm, checked)?;
    let is_hole = match &options.damage {
        Damage::Mask(path) => Some(agree_on(comm, given::mask(path, &places))?),
        Damage::Find { .. } => None,
    };
    let given = Given::open(comm, tokenizer, options)?;
    watch.activity.enter(Phase::Evaluate);
    let codes = given.codes(comm, tokenizer, (&places, is_hole.as_deref()), watch)?;
    let holes = match (is_hole, options.find()) {
        (Some(is_hole), _) => Holes::of_mask(&places, options.widen, is_hole),
        (None, found) => {
            let (nats, passes) = found.expect("what is no mask's is to be found");
            let look = (&places, Look { nats, passes, class });
            let of_codes = find::nats(comm, prior, look, &codes, watch)?;
            Holes::found(&places, options.widen, of_codes, nats)
        }
    };
    let draw = Draw { prior, options, class, given: &given, codes: &codes, holes: &holes };
    agree_on(comm, draw.check().map_err(ApplyError::BadInput))?;
    let folder = &options.out;
    let made = match comm.rank() {
        0 => make_folder(folder),
        _ => Ok(()),
    };
    agree_on(comm, made)?;
    let begun = Instant::now();
    let drawn = gather(comm, &draw.own(comm, watch), places.num_codes())?;
    let seconds = begun.elapsed().as_secs_f64();

    let pictures = agree_on(comm, given.about(&holes))?;
    let num_drawn: usize = pictures.iter().map(|picture| picture.num_drawn).sum();
    let nats = drawn.values().map(|sample| sample.nats).sum::<f64>();
    let nats_per_token =
        (num_drawn > 0).then(|| nats / (num_drawn as f64 * f64::from(options.num)));
    let about = About {
        format: "tessera-inpaint",
        version: 1,
        prior: &prior.file.hash,
        tokenizer: &tokenizer.file.hash,
        seed: options.seed,
        num_draws: options.num,
        class,
        sampling: &options.sampling,
        widen: options.widen,
        mask: holes.about_mask(),
        find: options.find().map(|(nats, passes)| AboutFound { nats, passes }),
        pictures,
        nats_per_token,
        reproducible: tch::get_num_threads() == 1 && prior.prior.device() == Device::Cpu,
    };
    let out = Out { comm, tokenizer, options, given: &given, holes: &holes, watch };
    out.write(prior.codes(), &drawn, &about)?;
    Ok(Inpainted {
        path: folder.clone(),
        num_pictures: given.num(),
        num_draws: options.num,
        num_tokens: places.num_codes(),
        mean_drawn: num_drawn as f64 / given.num() as f64,
        nats_per_token,
        seconds,
    })
}

impl InpaintOptions {
    /// Threshold and passes, where damage is to be found.
    fn find(&self) -> Option<(f64, usize)> {
        match self.damage {
            Damage::Find { nats, passes } => Some((nats, passes)),
            Damage::Mask(_) => None,
        }
    }
}

/// What options mean for these models.
struct Checked<'a> {
    tokenizer: &'a OpenModel,
    places: Places,
    /// -1: none.
    class: i64,
}

/// Refuses what cannot be filled, before a picture is read.
fn check<'a>(
    prior: &OpenPrior,
    tokenizer: Option<&'a OpenModel>,
    options: &InpaintOptions,
) -> Result<Checked<'a>, String> {
    let codes = prior.codes();
    let tokenizer = tokenizer.ok_or_else(|| {
        "the prior's tokeniser is not where its training left it: name it by --tokenizer".to_owned()
    })?;
    check_tokenizer(codes, tokenizer)?;
    if !matches!(tokenizer.signal(), Signal::Image { channels: 1 | 3, .. }) {
        let (signal, channels) = (tokenizer.signal(), tokenizer.signal().channels());
        return Err(format!(
            "holes are filled in pictures of 1 or 3 channels, these samples are {signal} of {channels}"
        ));
    }
    let places = Places::of(codes)?;
    if options.num == 0 {
        return Err("--num should be 1 or more, found 0".to_owned());
    }
    if let Some((nats, passes)) = options.find() {
        if !(nats >= 0.0 && nats.is_finite()) {
            return Err(format!("--find should be 0 nats or more, found {nats}"));
        }
        if passes < 2 {
            return Err(format!(
                "--passes should be 2 or more, so that codes are given to those that are hidden, found {passes}"
            ));
        }
        let config = prior.file.prior().map(|prior| prior.config()).transpose()?;
        if !matches!(config, Some(PriorConfig::Masked(_))) {
            return Err("--find compares each code with all others, as a masked prior does, and this one is \
                        autoregressive: give --mask, or take a masked prior"
                .to_owned());
        }
    }
    let class = options.class.as_ref().map(|class| class_number(codes, class)).transpose()?;
    let request = Request { seed: options.seed, ids: &[0], classes_n: None, known_nt: None };
    prior.prior.check_request(&options.sampling, &request)?;
    Ok(Checked { tokenizer, places, class: class.unwrap_or(-1) })
}
