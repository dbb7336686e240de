//! The arguments of `tessera inpaint`.

use std::path::PathBuf;

use clap::Args;
use tessera_apply::{Damage, InpaintOptions, Input};

use super::apply::{ComputeArguments, ModelArguments};
use super::drawing::DrawingArguments;

#[derive(Debug, Args)]
pub(crate) struct InpaintArguments {
    #[command(flatten)]
    pub(crate) prior: ModelArguments,
    #[command(flatten)]
    pub(crate) compute: ComputeArguments,
    /// Model folder or run folder of the autoencoder whose codes the prior is of [default: the one that its training left
    /// beside it]
    #[arg(long, value_name = "DIR")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// A picture, or a folder of pictures; they are decoded, resized and cut as those that the autoencoder was trained on.
    #[arg(long, value_name = "FILE|DIR", required_unless_present = "ids", conflicts_with = "ids")]
    input: Option<PathBuf>,
    /// Numbers of pictures in the data that the autoencoder was trained on, as in 3,5, instead.
    #[arg(long, value_name = "N,...", value_delimiter = ',')]
    ids: Vec<u64>,
    /// Split of these data.
    #[arg(long, value_name = "NAME", default_value = "test", conflicts_with = "input")]
    split: String,
    #[command(flatten)]
    damage: DamageArguments,
    /// Passes of --find: as many parts of the codes are hidden in turn, and compared with what the others lead to expect.
    #[arg(long, value_name = "K", default_value_t = 8)]
    passes: usize,
    /// Cells around the hole whose codes are drawn anew too, since the encoder saw some of the hole in them; with --find,
    /// cells around what was found that count as damaged too.
    #[arg(long, value_name = "N", default_value_t = 1)]
    widen: usize,
    /// Draws of each picture.
    #[arg(long, value_name = "N", default_value_t = 1)]
    num: u32,
    /// The class of all pictures, by name or number [default: none]
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
    /// Key of all draws: the same seed gives the same pictures.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    drawing: DrawingArguments,
    /// Folder for what comes out: pictures/, means/ of several draws, grid.png, tokens.safetensors, inpaint.json.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Write each picture as it was decoded too, not only what is in the hole: raw/.
    #[arg(long)]
    raw: bool,
}

/// Where pictures are to be filled.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct DamageArguments {
    /// Fill what is white in this picture, which has the size of the model's pictures.
    #[arg(long, value_name = "FILE")]
    mask: Option<PathBuf>,
    /// Fill what a masked prior does not expect: codes whose -ln p, given all others, is above this.
    #[arg(long, value_name = "NATS")]
    find: Option<f64>,
}

impl InpaintArguments {
    /// What is filled, and where it goes.
    pub(crate) fn options(&self) -> InpaintOptions {
        let damage = match (&self.damage.mask, self.damage.find) {
            (Some(mask), _) => Damage::Mask(mask.clone()),
            (None, nats) => {
                let nats = nats.expect("clap wants one of the two");
                Damage::Find { nats, passes: self.passes }
            }
        };
        let input = match &self.input {
            Some(path) => Input::Files(path.clone()),
            None => Input::Data { split: self.split.clone(), ids: self.ids.clone() },
        };
        InpaintOptions {
            input,
            damage,
            widen: self.widen,
            num: self.num,
            class: self.class.clone(),
            seed: self.seed,
            sampling: self.drawing.sampling(),
            out: self.out.clone(),
            raw: self.raw,
        }
    }
}
