//! What the bytes of samples are to a model.

use tch::Tensor;
use tessera_data::{Modality, SampleShape};
use tessera_nn::Signal;

/// What a model knows of a sample's shape.
pub fn signal_of(shape: SampleShape) -> Signal {
    let SampleShape { modality, frames, channels, height, width, .. } = shape;
    let [frames, channels, height, width] = [frames, channels, height, width].map(i64::from);
    match modality {
        Modality::Image => Signal::Image { channels, height, width },
        Modality::Audio => Signal::Audio { channels, samples: frames },
        Modality::Video => Signal::Video { channels, frames, height, width },
        Modality::Tokens => Signal::Tokens { positions: frames, levels: channels },
    }
}

/// The shape in which [`Signal::from_raw`] reads `num` samples whose bytes lie one after another.
pub fn raw_axes(shape: SampleShape, num: usize) -> Vec<i64> {
    let (num, signal) = (num as i64, signal_of(shape));
    match signal {
        Signal::Audio { .. } | Signal::Tokens { .. } => vec![num, shape.num_bytes() as i64],
        _ => [vec![num], signal.axes(), vec![signal.channels()]].concat(),
    }
}

/// Samples of one shape, one after another, as a tensor of that shape on the host.
///
/// # Panics
///
/// If `bytes` are not those of whole samples.
pub fn raw_samples(bytes: &[u8], shape: SampleShape) -> Tensor {
    let num = bytes.len() / shape.num_bytes();
    assert_eq!(num * shape.num_bytes(), bytes.len(), "samples are whole");
    Tensor::from_slice(bytes).view(raw_axes(shape, num).as_slice())
}
