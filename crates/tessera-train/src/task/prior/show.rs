//! Samples of a prior in training, as the autoencoder shows them that a token set holds.

use std::path::Path;

use tch::{Device, Tensor};
use tessera_model::{CONFIG_FILE, Level, OpenModel, TOKENIZER};
use tessera_nn::Signal;
use tessera_nn::prior::sample::{Request, Sampling};

use super::TokenPrior;
use crate::engine::metrics::picture::{EncodedPng, ImageShape};
use crate::error::TrainError;
use crate::task::grid::sample_png;

/// Samples in a picture.
const NUM: u64 = 32;
/// Samples side by side.
const COLUMNS: usize = 8;

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
pub(super) fn draw(
    prior: &TokenPrior,
    tokenizer: &OpenModel,
) -> Result<Option<EncodedPng>, TrainError> {
    let signal = tokenizer.signal();
    let Signal::Image { channels: channels @ (1 | 3), height, width } = signal else {
        return Ok(None);
    };
    let ids: Vec<u64> = (0..NUM).collect();
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
    let pixels = Vec::<u8>::try_from(raw.flatten(0, -1))?;
    let [height, width, channels] = [height, width, channels].map(|size| size as usize);
    let picture = sample_png(&pixels, ImageShape { height, width, channels }, COLUMNS);
    Ok(Some(picture.expect("samples are of one size")))
}
