//! Samples of a prior in training, as the autoencoder shows them that a token set holds.

use std::path::Path;

use tch::{Device, Tensor};
use tessera_model::{CONFIG_FILE, Level, OpenModel, TOKENIZER};
use tessera_nn::Signal;
use tessera_nn::prior::sample::{Request, Sampling};

use super::TokenPrior;
use crate::engine::metrics::picture::Exhibit;
use crate::error::TrainError;
use crate::task::exhibits::{self, Kind};

/// Pictures on a sheet, and sounds or films.
const PICTURES: u64 = 32;
const OTHERS: u64 = 8;

/// The autoencoder that a token set holds, if it does.
pub(super) fn tokenizer(data: &Path, hash: &str) -> Result<Option<OpenModel>, TrainError> {
    let folder = data.join(TOKENIZER);
    if !folder.join(CONFIG_FILE).is_file() {
        return Ok(None);
    }
    let model = tessera_model::open(&folder, Device::Cpu)?;
    Ok((model.file.hash == hash).then_some(model))
}

/// Draws the same samples each time, in turn of each class, and decodes them; rank 0's business.
pub(super) fn draw(prior: &TokenPrior, tokenizer: &OpenModel) -> Result<Vec<Exhibit>, TrainError> {
    let (signal, shape) = (tokenizer.signal(), tokenizer.file.autoencoder().shape);
    let num = match signal {
        Signal::Image { .. } => PICTURES,
        Signal::Audio { .. } | Signal::Video { .. } => OTHERS,
        Signal::Tokens { .. } => return Ok(Vec::new()),
    };
    let ids: Vec<u64> = (0..num).collect();
    let classes = prior.model.codes.num_classes;
    let class = |id: &u64| if classes > 0 { *id as i64 % classes } else { -1 };
    let classes_n = Tensor::from_slice(&ids.iter().map(class).collect::<Vec<_>>());
    let classes_n = classes_n.to_device(prior.model.device());
    let request =
        Request { seed: prior.seed, ids: &ids, classes_n: Some(&classes_n), known_nt: None };
    let drawn_nt = prior.model.sample(&Sampling::default(), &request).tokens_nt;
    let order_t = prior.order_t.to_device(Device::Cpu);
    let mut placed_nt = drawn_nt.zeros_like();
    let placed_nt = placed_nt.index_copy_(1, &order_t, &drawn_nt);
    let _no_grad = tch::no_grad_guard();
    let indices = Level::split(&tokenizer.file.autoencoder().levels, &placed_nt);
    let raw = signal.to_raw(&tokenizer.vqvae.decode_indices(&indices));
    exhibits::samples(Kind { signal, sample_rate: shape.sample_rate }, &raw)
}
