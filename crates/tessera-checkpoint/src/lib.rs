//! Checkpoints on disk: written so that nothing is ever lost, read so that nothing wrong is believed.
//!
//! A checkpoint is a folder `step-00000500/` with safetensors files and a manifest that holds a
//! hash of each. Its tensors have canonical names, logical shapes and plain contiguous values, so
//! any number of ranks, and Python, can read them. The commit has two phases: every rank writes its
//! part into a folder with a temporary name and reports what it wrote ([`write_part`]); then one
//! rank verifies all parts, writes the manifest last and gives the folder its name ([`commit`]). A
//! folder with a final name is complete, and nothing older is removed before that.
//!
//! Nothing is unpickled or executed, and a name from a manifest cannot leave its folder. This crate
//! knows bytes and names: no torch, no ranks' transport, no model. The format is written down in
//! `docs/formats.md`.

mod additions;
mod commit;
mod diff;
mod error;
mod folder;
mod hash;
mod load;
mod manifest;
mod part;
mod patience;
mod retention;
mod storage;
mod tensor;
pub mod upgrade;
mod version;

pub use commit::{Committed, commit, discard};
pub use diff::{Difference, TensorDifference, diff};
pub use error::{CheckpointError, CheckpointErrorKind};
pub use folder::{
    Verified, checkpoint_at, list, newest, newest_good, remove_partials, supersede_after,
};
pub use hash::sha256_hex;
pub use load::{CheckedFile, Checkpoint, Survey, TensorInfo, survey, verify};
pub use manifest::{FileEntry, Manifest};
pub use part::{Save, num_files, write_part};
pub use patience::patiently;
pub use retention::{BestMetric, Retention};
pub use safetensors::tensor::Dtype;
pub use storage::{Fate, Operation, Storage};
pub use tensor::HostTensor;
