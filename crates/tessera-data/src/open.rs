//! From a configuration to the source that it names.

use std::path::Path;
use std::sync::Arc;

use crate::config::{DataConfig, DataKind};
use crate::error::DataError;
use crate::samples::Source;
use crate::sources::files::FolderFiles;
use crate::sources::idx::IdxSource;
use crate::sources::media::MediaSource;
use crate::sources::mixture::MixtureSource;
use crate::sources::packed::PackedSource;
use crate::sources::records::RecordSource;
use crate::sources::splits::TRAIN;
use crate::sources::subset::Subset;
use crate::sources::synthetic::SyntheticSource;
use crate::sources::webdataset::TarFiles;
use crate::sources::{arrays, webdataset};
use crate::store::RemoteConfig;
use crate::tokens::TokenSource;

/// Opens the split `split` (`"train"` or `"test"`) of what `config` names, and checks it as
/// far as [`DataConfig::verify`] says.
///
/// # Errors
///
/// Missing, truncated or damaged data is found here, before the run starts.
pub fn open(config: &DataConfig, split: &str) -> Result<Arc<dyn Source>, DataError> {
    config.validate()?;
    let whole = match config.folds {
        0 => open_split(config, split)?,
        _ => Arc::new(Subset::fold(open_split(config, TRAIN)?, config, split)?),
    };
    if split == TRAIN && config.fraction < 1.0 {
        return Ok(Arc::new(Subset::fraction(whole, config.fraction)?));
    }
    Ok(whole)
}

fn open_split(config: &DataConfig, split: &str) -> Result<Arc<dyn Source>, DataError> {
    let path = &config.path;
    Ok(match config.kind {
        DataKind::Packed => Arc::new(PackedSource::open(config, split)?),
        DataKind::Tokens => Arc::new(TokenSource::open(config, split)?),
        DataKind::Synthetic => Arc::new(SyntheticSource::new(&config.synthetic, split)?),
        DataKind::Mixture => {
            let mut parts = config.mixture.clone();
            parts.iter_mut().for_each(|part| part.data.on_corrupt = config.on_corrupt);
            Arc::new(MixtureSource::open(&parts, split, &open)?)
        }
        DataKind::Idx => Arc::new(IdxSource::open(path, split)?),
        DataKind::Cifar => Arc::new(RecordSource::open_cifar(path, split)?),
        DataKind::Npy => arrays::open_arrays(config, split)?,
        DataKind::Folder => {
            let files = FolderFiles::open(config, split)?;
            Arc::new(MediaSource::new(Box::new(files), config)?)
        }
        DataKind::Webdataset => {
            let files = TarFiles::open(config, split)?;
            Arc::new(MediaSource::new(Box::new(files), config)?)
        }
    })
}

/// Reads the tar archives at `path` from beginning to end and keeps an index beside each.
/// `progress` is called, from many threads, with bytes read and bytes in all. Returns the numbers
/// of archives and of samples.
///
/// # Errors
///
/// [`DataError::NoFiles`], [`DataError::Archive`] or [`DataError::Read`].
pub fn index(
    path: &Path,
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<(usize, usize), DataError> {
    webdataset::index(path, &RemoteConfig::default(), progress)
}
