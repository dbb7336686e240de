//! What is encoded of each sample: the sample as it is, and as it is flipped, cut otherwise or delayed.
//!
//! Codes of changed inputs, never changed codes: an encoder is not equivariant, and flipped codes are not those of the
//! flipped sample. The ten crops are LlamaGen's (Sun et al. 2024, <https://arxiv.org/abs/2406.06525>, its
//! `extract_codes_c2i.py`): the picture 1.1 times as large, four corners and the centre, each with its mirror image. It is
//! the sample that is enlarged here, with libtorch's bicubic interpolation, since a data set gives samples and not files.
//!
//! Sound is delayed by parts of the time that a code stands for: the same sound under another grid.

use std::str::FromStr;

use tch::Tensor;
use tessera_nn::Signal;

/// How much larger a picture is that crops are cut from.
const ENLARGED: f64 = 1.1;
/// Delays of a sound, evenly over the time that a code stands for.
const SHIFTS: i64 = 8;

/// What is encoded of each sample.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Augment {
    /// The sample as it is.
    #[default]
    None,
    /// It, and its mirror image.
    Flip,
    /// It, and ten crops of it enlarged.
    Crops,
    /// It, and it delayed by one to seven eighths of the time that a code stands for.
    Shifts,
}

impl FromStr for Augment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" => Ok(Self::None),
            "flip" => Ok(Self::Flip),
            "crops" => Ok(Self::Crops),
            "shifts" => Ok(Self::Shifts),
            _ => Err(format!("expected 'none', 'flip', 'crops' or 'shifts', found '{text}'")),
        }
    }
}

/// One way to change a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Variant {
    Plain,
    Flip,
    /// Cut with so many halves of what is left over above and to the left, then mirrored or not.
    Crop {
        top: i64,
        left: i64,
        flip: bool,
    },
    /// Delayed by so many instants.
    Shift(i64),
}

impl Augment {
    /// Names of the variants, the sample as it is first, where a code stands for `hop` instants of a sound.
    pub fn names(self, hop: i64) -> Vec<String> {
        self.variants(hop).iter().map(|variant| variant.name()).collect()
    }

    /// What is wrong with it for samples of `signal`, of which a code stands for `hop` instants, if anything.
    ///
    /// # Errors
    ///
    /// One line that says what to do.
    pub fn validate(self, signal: &Signal, hop: i64) -> Result<(), String> {
        match (self, signal) {
            (Self::Shifts, Signal::Audio { .. }) if hop < SHIFTS => Err(format!(
                "--augment shifts delays by eighths of the {hop} instants that a code stands for, which should be 8 or \
                 more: leave it out"
            )),
            (Self::None, _)
            | (Self::Shifts, Signal::Audio { .. })
            | (Self::Flip, Signal::Image { .. } | Signal::Video { .. })
            | (Self::Crops, Signal::Image { .. }) => Ok(()),
            (Self::Flip, _) => Err(format!(
                "--augment flip is for pictures and film, these samples are {signal}: leave it out"
            )),
            (Self::Crops, _) => Err(format!(
                "--augment crops is for pictures, these samples are {signal}: leave it out"
            )),
            (Self::Shifts, _) => Err(format!(
                "--augment shifts is for sound, these samples are {signal}: leave it out"
            )),
        }
    }

    /// Samples `[N, C, ..]` in each variant, in the order of [`Self::names`].
    pub fn apply(self, samples_nc: &Tensor, hop: i64) -> Vec<Tensor> {
        let enlarged = match self {
            Self::Crops => Some(enlarge(samples_nc)),
            Self::None | Self::Flip | Self::Shifts => None,
        };
        let made = |variant: Variant| match (variant, &enlarged) {
            (Variant::Crop { top, left, flip }, Some(enlarged)) => {
                let cut = cut(enlarged, samples_nc, top, left);
                if flip { mirrored(&cut) } else { cut }
            }
            (Variant::Flip, _) => mirrored(samples_nc),
            (Variant::Shift(instants), _) => delayed(samples_nc, instants),
            _ => samples_nc.shallow_clone(),
        };
        self.variants(hop).into_iter().map(made).collect()
    }

    fn variants(self, hop: i64) -> Vec<Variant> {
        let mut variants = vec![Variant::Plain];
        match self {
            Self::None => {}
            Self::Flip => variants.push(Variant::Flip),
            Self::Shifts => {
                variants.extend((1..SHIFTS).map(|part| Variant::Shift(part * hop / SHIFTS)));
            }
            Self::Crops => {
                for flip in [false, true] {
                    let places = [(0, 0), (0, 2), (2, 0), (2, 2), (1, 1)];
                    variants.extend(places.map(|(top, left)| Variant::Crop { top, left, flip }));
                }
            }
        }
        variants
    }
}

impl Variant {
    fn name(self) -> String {
        match self {
            Self::Plain => "plain".to_owned(),
            Self::Flip => "flip".to_owned(),
            Self::Shift(instants) => format!("shift-{instants}"),
            Self::Crop { top, left, flip } => {
                let place = match (top, left) {
                    (0, 0) => "top-left",
                    (0, _) => "top-right",
                    (2, 0) => "bottom-left",
                    (2, _) => "bottom-right",
                    _ => "center",
                };
                format!("crop-{ENLARGED}-{place}{}", if flip { "-flip" } else { "" })
            }
        }
    }
}

/// Left becomes right; the layout in memory stays that of samples.
fn mirrored(samples_nc: &Tensor) -> Tensor {
    samples_nc.flip([-1])
}

/// Sound `[N, C, T]` that begins later; what comes before it is its beginning mirrored.
fn delayed(samples_nct: &Tensor, instants: i64) -> Tensor {
    let before = samples_nct.narrow(2, 1, instants).flip([2]);
    Tensor::cat(&[before, samples_nct.narrow(2, 0, samples_nct.size()[2] - instants)], 2)
}

/// Pictures `[N, C, H, W]` enlarged, clamped to the range that bicubic interpolation leaves.
fn enlarge(samples_nchw: &Tensor) -> Tensor {
    let size = samples_nchw.size();
    let larger = [2, 3].map(|axis: usize| (size[axis] as f64 * ENLARGED).round() as i64);
    let scales: Option<f64> = None;
    samples_nchw.upsample_bicubic2d(larger, false, scales, scales).clamp(0.0, 1.0)
}

/// A piece of the size of `like`, with so many halves of what is left over above and to the left.
fn cut(enlarged_nchw: &Tensor, like: &Tensor, top: i64, left: i64) -> Tensor {
    let (from, size) = (enlarged_nchw.size(), like.size());
    let start = |axis: usize, halves: i64| (from[axis] - size[axis]) * halves / 2;
    let rows = enlarged_nchw.narrow(2, start(2, top), size[2]);
    rows.narrow(3, start(3, left), size[3])
}
