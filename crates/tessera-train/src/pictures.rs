//! Pictures of reconstructions: inputs over outputs for the first samples of the test split, or of
//! the training's where there is none.

use tch::Kind;
use tessera_data::{Batch, DataErrorKind, Draw, OnCorrupt, Source};
use tessera_nn::VqVae;

use crate::batch::batch_images;
use crate::error::TrainError;
use crate::evaluate::reconstruct;
use crate::metrics::image_grid::{EncodedPng, ImageShape, reconstruction_png};

/// Samples in a picture, at most.
const NUM_SAMPLES: usize = 16;
/// Samples side by side.
const COLUMNS: usize = 8;

/// Draws the picture of a step; rank 0's business. `None` where samples have neither one channel nor
/// three: there is no picture of them. Samples that cannot be read are passed over where
/// `on_corrupt` says so.
pub(crate) fn draw(
    model: &VqVae,
    source: &dyn Source,
    step: u64,
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
    let (mut ids, mut pixels) = (Vec::new(), Vec::new());
    let mut sample = vec![0u8; shape.num_bytes()];
    for id in 0..source.num_samples() {
        if ids.len() == NUM_SAMPLES {
            break;
        }
        match source.read(id, Draw::NONE, &mut sample) {
            Ok(()) => {
                ids.push(id);
                pixels.extend_from_slice(&sample);
            }
            // The evaluation, which reads them all, names it.
            Err(error)
                if on_corrupt == OnCorrupt::Skip && error.kind() != DataErrorKind::BadInput => {}
            Err(error) => return Err(error.into()),
        }
    }
    if ids.is_empty() {
        return Ok(None);
    }
    let num = ids.len() as u64;
    let batch = Batch {
        step,
        global: 0..num,
        positions: 0..num,
        ids,
        memory: pixels,
        shape,
        num_skipped: 0,
    };

    let _no_grad = tch::no_grad_guard();
    let images_nchw = batch_images(&batch, model.kind(), model.device());
    let levels = model.quantizer.num_residual_levels();
    let (outputs_nchw, _) = reconstruct(model, &images_nchw, levels);
    let bytes = (outputs_nchw.permute([0, 2, 3, 1]) * 255.0).round().to_kind(Kind::Uint8);
    let outputs: Vec<u8> = Vec::try_from(bytes.contiguous().flatten(0, -1))?;
    let picture = reconstruction_png(batch.pixels(), &outputs, size, COLUMNS);
    Ok(Some(picture.expect("one output of one size for each of some inputs")))
}
