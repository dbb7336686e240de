//! Pictures of reconstructions: inputs over outputs for the first samples of the test split, or of
//! the training's where there is none.

use tch::{Kind, Tensor};
use tessera_data::{DataErrorKind, Draw, OnCorrupt, Source};
use tessera_nn::{VqVae, images_from_bytes, to_device};

use super::reconstruct;
use crate::engine::metrics::image_grid::{EncodedPng, ImageShape, reconstruction_png};
use crate::error::TrainError;

/// Samples in a picture, at most.
const NUM_SAMPLES: usize = 16;
/// Samples side by side.
const COLUMNS: usize = 8;

/// Draws a picture; rank 0's business. `None` where samples have neither one channel nor
/// three: there is no picture of them. Samples that cannot be read are passed over where
/// `on_corrupt` says so.
pub(crate) fn draw(
    model: &VqVae,
    source: &dyn Source,
    on_corrupt: OnCorrupt,
) -> Result<Option<EncodedPng>, TrainError> {
    let shape = source.shape();
    let size = ImageShape {
        height: shape.height as usize,
        width: shape.width as usize,
        channels: shape.channels as usize,
    };
    if !matches!(size.channels, 1 | 3) {
        return Ok(None);
    }
    let (mut num, mut pixels) = (0, Vec::new());
    let mut sample = vec![0u8; shape.num_bytes()];
    for id in 0..source.num_samples() {
        if num == NUM_SAMPLES {
            break;
        }
        match source.read(id, Draw::NONE, &mut sample) {
            Ok(()) => {
                num += 1;
                pixels.extend_from_slice(&sample);
            }
            // The evaluation, which reads them all, names it.
            Err(error)
                if on_corrupt == OnCorrupt::Skip && error.kind() != DataErrorKind::BadInput => {}
            Err(error) => return Err(error.into()),
        }
    }
    if num == 0 {
        return Ok(None);
    }
    let sizes = [num, size.height, size.width, size.channels].map(|size| size as i64);
    let bytes_nhwc = to_device(Tensor::from_slice(&pixels).view(sizes), model.device());

    let _no_grad = tch::no_grad_guard();
    let images_nchw = images_from_bytes(&bytes_nhwc, model.kind());
    let levels = model.quantizer.num_residual_levels();
    let (outputs_nchw, _) = reconstruct(model, &images_nchw, levels);
    let bytes = (outputs_nchw.permute([0, 2, 3, 1]) * 255.0).round().to_kind(Kind::Uint8);
    let outputs: Vec<u8> = Vec::try_from(bytes.contiguous().flatten(0, -1))?;
    let picture = reconstruction_png(&pixels, &outputs, size, COLUMNS);
    Ok(Some(picture.expect("one output of one size for each of some inputs")))
}
