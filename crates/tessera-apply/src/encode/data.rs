//! What is encoded where nobody says it, and whether a model takes it.

use serde::de::DeserializeOwned;
use serde_json::Value;
use tessera_data::{DataConfig, Modality, SampleShape};
use tessera_model::{AutoencoderFile, ModelFile};

use crate::error::ApplyError;

/// The data that a model was trained on; with `is_elsewhere` nothing but how a file becomes a sample, for other data. Files would
/// become samples of the model's modality and sizes, decoded as those that it was trained on, even where that was a packed set.
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
        let DataConfig { image, audio, video, .. } = trained_on;
        data = DataConfig { image, audio, video, ..DataConfig::default() };
    }
    let AutoencoderFile { shape, preprocessing, .. } = file.autoencoder();
    let table = preprocessing.decoding.as_ref();
    let SampleShape { modality, frames, channels, height, width, sample_rate } = *shape;
    data.modality = modality;
    match modality {
        Modality::Image => {
            data.image = as_trained(table, data.image)?;
            (data.image.channels, data.image.height, data.image.width) = (channels, height, width);
        }
        Modality::Audio => {
            data.audio = as_trained(table, data.audio)?;
            (data.audio.channels, data.audio.length) = (channels, frames);
            data.audio.sample_rate = sample_rate;
        }
        Modality::Video => {
            data.video = as_trained(table, data.video)?;
            (data.video.channels, data.video.frames) = (channels, frames);
            (data.video.height, data.video.width) = (height, width);
        }
        Modality::Tokens => unreachable!("no autoencoder is trained on tokens"),
    }
    Ok(data)
}

/// How a file became a sample: as the model says, or else as its data would say.
fn as_trained<T: DeserializeOwned>(table: Option<&Value>, usual: T) -> Result<T, ApplyError> {
    let Some(table) = table else { return Ok(usual) };
    serde_json::from_value(table.clone()).map_err(|error| {
        ApplyError::BadInput(format!("the model's preprocessing is not of this version: {error}"))
    })
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
