//! What is encoded where nobody says it, and whether a model takes it.

use tessera_data::{DataConfig, SampleShape};
use tessera_model::ModelFile;

use crate::error::ApplyError;

/// The data that a model was trained on, with its samples' sizes in the place of those that the first file would say; with
/// `is_elsewhere` nothing but how a file becomes a sample, for other data.
///
/// # Errors
///
/// [`ApplyError::BadInput`] where the model folder is of a version with other keys.
pub fn usual_data(file: &ModelFile, is_elsewhere: bool) -> Result<DataConfig, ApplyError> {
    let trained_on = file.data().map_err(|problem| {
        ApplyError::BadInput(format!("the model's {problem}: name the data with --config FILE"))
    })?;
    let mut data = trained_on.clone();
    if is_elsewhere {
        let DataConfig { modality, image, audio, video, .. } = trained_on;
        data = DataConfig { modality, image, audio, video, ..DataConfig::default() };
    }
    let SampleShape { height, width, sample_rate, .. } = file.autoencoder().shape;
    for (key, size) in [
        (&mut data.image.height, height),
        (&mut data.image.width, width),
        (&mut data.audio.sample_rate, sample_rate),
    ] {
        if *key == 0 {
            *key = size;
        }
    }
    Ok(data)
}

/// Refuses samples that are not of the shape that the model takes.
///
/// # Errors
///
/// [`ApplyError::BadInput`].
pub fn check_data(file: &ModelFile, shape: SampleShape) -> Result<(), ApplyError> {
    let wanted = file.autoencoder().shape;
    if shape == wanted {
        return Ok(());
    }
    Err(ApplyError::BadInput(format!(
        "the model takes samples of {wanted}, these data have {shape}: set data.kind, data.modality and the sizes in \
         data.image, data.audio or data.video"
    )))
}
