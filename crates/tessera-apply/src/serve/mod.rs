//! A trained model over HTTP: what [`tessera_serve`] needs to know of it.

mod engine;
mod media;

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use tch::Device;
use tessera_data::Modality;
use tessera_model::{Level, ModelFile, ModelPath, read_tables};
use tessera_serve::{Description, Options, ServeError, Service, Stop};

use self::engine::Engine;
use self::media::Media;
use crate::compress::uniform;
use crate::encode::usual_data;
use crate::error::ApplyError;
use crate::sample::check_tokenizer;
use crate::tile;

/// What is served, and how.
#[derive(Debug)]
pub struct ServeOptions {
    /// The model.
    pub model: ModelPath,
    /// Where its tables lie, if it has any.
    pub tables: PathBuf,
    /// A prior of its codes.
    pub prior: Option<ModelPath>,
    /// Name of the model in addresses.
    pub name: String,
    /// Where it computes.
    pub device: Device,
    /// Most pixels of a picture, and of all frames of a film.
    pub max_pixels: u64,
    /// Longest sound, in seconds.
    pub max_seconds: u32,
    /// Limits and waits of the server.
    pub limits: Options,
}

/// Serves a model until `stop` is asked, and returns when all that was accepted is answered. `say` gets a line for a person
/// when it begins.
///
/// # Errors
///
/// [`ApplyError`] where the model or its prior cannot be opened, or the server ends by itself.
pub fn serve(
    listener: TcpListener,
    options: ServeOptions,
    stop: Stop,
    say: &dyn Fn(String),
) -> Result<(), ApplyError> {
    let ServeOptions { model, tables, prior, name, device, max_pixels, max_seconds, limits } =
        options;
    let opened = model.open(device)?;
    let opened_prior = prior.as_ref().map(|prior| prior.open_prior(device)).transpose()?;
    if let Some(prior) = &opened_prior {
        check_tokenizer(prior.codes(), &opened).map_err(ApplyError::BadInput)?;
    }
    let file = opened.file.clone();
    let codes = opened_prior.as_ref().map(|prior| prior.codes().clone());
    let mut description = described(&file, name, tile::size(&opened.signal()));
    if let Some(codes) = codes {
        description.has_prior = true;
        description.num_classes = u32::try_from(codes.num_classes).unwrap_or(0);
        description.classes = codes.classes;
    }
    let media = media_of(file, &tables, (max_pixels, max_seconds))?;
    let address = listener.local_addr().map_or(String::new(), |address| address.to_string());
    say(format!("http://{address}/  serves {} on {}", description.name, engine::name_of(device)));
    let service = Service {
        description,
        engine: Box::new(move || Ok(Box::new(Engine { model: opened, prior: opened_prior }))),
        media: Arc::new(media),
        options: limits,
    };
    tessera_serve::run(listener, service, stop).map_err(|error| ApplyError::Opened {
        code: match error {
            ServeError::Option { .. } | ServeError::Description(_) => {
                tessera_control::ExitCode::BadInput
            }
            _ => tessera_control::ExitCode::Failed,
        },
        message: error.to_string(),
    })
}

fn described(file: &ModelFile, name: String, tile: usize) -> Description {
    let autoencoder = file.autoencoder();
    let shape = autoencoder.shape;
    let [frames, channels, height, width] =
        [shape.frames, shape.channels, shape.height, shape.width].map(|size| size as usize);
    let (modality, sample_shape) = match shape.modality {
        Modality::Audio => (tessera_serve::Modality::Sound, vec![frames, channels]),
        Modality::Video => (tessera_serve::Modality::Film, vec![frames, height, width, channels]),
        _ => (tessera_serve::Modality::Picture, vec![height, width, channels]),
    };
    let levels: Vec<tessera_serve::Level> = autoencoder.levels.iter().flat_map(levels_of).collect();
    Description {
        name,
        hash: file.hash.clone(),
        tessera: env!("CARGO_PKG_VERSION").to_owned(),
        modality,
        sample_shape,
        sample_rate: (shape.sample_rate > 0).then_some(shape.sample_rate),
        num_tokens: levels.iter().map(tessera_serve::Level::num_tokens).sum(),
        levels,
        classes: Vec::new(),
        num_classes: 0,
        tile,
        has_prior: false,
    }
}

/// A level for each code of a position, as a token set has them.
fn levels_of(level: &Level) -> impl Iterator<Item = tessera_serve::Level> + '_ {
    let axes: Vec<usize> = level.axes.iter().map(|&size| size as usize).collect();
    level.num_codes.iter().map(move |&num| tessera_serve::Level {
        axes: axes.clone(),
        num_codes: u32::try_from(num).unwrap_or(u32::MAX),
    })
}

fn media_of(
    file: ModelFile,
    tables: &std::path::Path,
    (max_pixels, max_seconds): (u64, u32),
) -> Result<Media, ApplyError> {
    let mut data = usual_data(&file, true)?;
    data.image.max_pixels = max_pixels;
    data.video.max_pixels = max_pixels;
    data.audio.max_seconds = max_seconds;
    let uniform = uniform(&file.autoencoder().code_levels())?;
    let tables = read_tables(tables, &file)?.unwrap_or_else(|| uniform.clone());
    Ok(Media { file, data, tables, uniform })
}
