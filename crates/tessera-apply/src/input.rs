//! Files that a person names, read as the samples were that a model was trained on; and samples read by number.

use std::path::Path;
use std::sync::Arc;

use tch::{Device, Kind, Tensor};
use tessera_data::{DataConfig, DataKind, Draw, Source, SplitConfig};
use tessera_model::{ModelFile, OpenModel, raw_samples};
use tessera_nn::to_device;

use crate::encode::usual_data;
use crate::error::ApplyError;
use crate::tile;

/// A file, or all files of a folder, as samples of the shape that the model takes: decoded, resized and cut as the
/// samples that it was trained on.
///
/// # Errors
///
/// As [`tessera_data::source::open`]; [`ApplyError::BadInput`] where the model folder is of a version with other keys.
pub(crate) fn files(file: &ModelFile, path: &Path) -> Result<Arc<dyn Source>, ApplyError> {
    let mut data = usual_data(file, true)?;
    (data.kind, data.path) = (DataKind::Folder, path.to_owned());
    all_of(data)
}

/// A picture file in gray, at the size that it has.
///
/// # Errors
///
/// As [`tessera_data::source::open`].
pub(crate) fn gray_picture(path: &Path) -> Result<Arc<dyn Source>, ApplyError> {
    let mut data = DataConfig { kind: DataKind::Folder, ..DataConfig::default() };
    data.path = path.to_owned();
    data.image.channels = 1;
    all_of(data)
}

/// All files of a configuration: none is held out, and no folder is a split.
fn all_of(mut data: DataConfig) -> Result<Arc<dyn Source>, ApplyError> {
    data.holdout = 0.0;
    data.split = SplitConfig { train: vec!["*".to_owned()], ..SplitConfig::default() };
    Ok(tessera_data::source::open(&data, "train")?)
}

/// The bytes of a sample, as an evaluation reads it.
///
/// # Errors
///
/// As [`Source::read`].
pub(crate) fn read(source: &dyn Source, id: u64) -> Result<Vec<u8>, ApplyError> {
    let mut bytes = vec![0; source.shape().num_bytes()];
    source.read(id, Draw::NONE, &mut bytes)?;
    Ok(bytes)
}

/// Up to a tile of samples whose bytes lie one after another, as a whole tile of values `[tile, C, ..]`.
pub(crate) fn values_of(model: &OpenModel, bytes: &[u8]) -> Tensor {
    let vqvae = &model.vqvae;
    let raw = raw_samples(bytes, model.file.autoencoder().shape);
    let raw = tile::padded(&raw, tile::size(&vqvae.signal));
    vqvae.signal.from_raw(&to_device(raw, vqvae.device()), vqvae.kind())
}

/// The codes of up to a tile of samples whose bytes lie one after another: of each sample those of all levels, in the
/// order of a token set. `number` is that of the first, for an error.
///
/// # Errors
///
/// [`ApplyError::NotFinite`].
pub(crate) fn codes_of(
    model: &OpenModel,
    bytes: &[u8],
    number: u64,
) -> Result<Vec<Vec<u32>>, ApplyError> {
    let num = bytes.len() / model.file.autoencoder().shape.num_bytes();
    codes_of_values(model, &values_of(model, bytes), num, number)
}

/// As [`codes_of`], of the first `num` samples of a whole tile of values.
pub(crate) fn codes_of_values(
    model: &OpenModel,
    values: &Tensor,
    num: usize,
    number: u64,
) -> Result<Vec<Vec<u32>>, ApplyError> {
    let mut samples = vec![Vec::new(); num];
    let codes = tile::encode(&model.vqvae, values);
    for indices_npl in codes.ok_or(ApplyError::NotFinite { sample: number })? {
        for column in 0..indices_npl.size()[2] {
            let indices_np = indices_npl.select(2, column);
            let flat = indices_np.to_device(Device::Cpu).to_kind(Kind::Int64).reshape([-1]);
            let flat = Vec::<i64>::try_from(&flat)?;
            let of_samples = flat.chunks_exact(indices_np.size()[1] as usize);
            for (sample, codes) in samples.iter_mut().zip(of_samples) {
                sample.extend(codes.iter().map(|&code| code as u32));
            }
        }
    }
    Ok(samples)
}
