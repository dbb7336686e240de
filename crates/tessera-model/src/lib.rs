//! A trained model as a folder that is complete in itself.
//!
//! A model folder has `model.safetensors`, the weights that are for use, and `config.json` ([`ModelFile`]): the
//! architecture, what a file has to go through to become a sample, the names of classes, and a hash of all that
//! decides outputs. Whoever uses a model opens it here, from such a folder ([`open`]) or from a run ([`open_run`]);
//! both give the same model with the same hash, bit for bit ([`OpenModel`]).
//!
//! This crate knows no ranks, no commands and nothing of how a model is trained. The format is written down in
//! `docs/formats.md`.

mod error;
mod file;
mod folder;
mod hash;
pub mod media;
mod opened;
mod prior;
mod run;
mod samples;
mod tables;
mod tensors;
mod words;

pub use error::{ModelError, ModelErrorKind};
pub use file::{
    AutoencoderFile, CodesFile, FORMAT, Level, ModelFile, ModelKind, Preprocessing, PriorFile,
    VERSION,
};
pub use folder::{CONFIG_FILE, Stored, WEIGHTS_FILE, open, read_file, write};
pub use opened::{ModelPath, OpenModel, assemble};
pub use prior::{OpenPrior, TOKENIZER, open_prior, open_prior_checkpoint};
pub use run::{find_checkpoint, open_checkpoint, open_run};
pub use samples::{raw_axes, raw_samples, signal_of};
pub use tables::{TABLES_FILE, read_tables, write_tables};
pub use words::{Precision, Weights, Which};
