//! Compressed files: codes of a tokeniser, entropy-coded, in blocks that are checked and decoded alone.
//!
//! A file ([`container`], docs/formats.md) begins with a [`Header`] that names the model which made the codes, the shape of what
//! they stand for, and the coder; blocks of whole samples follow, each with checksums of its bytes and of its
//! codes, and an end. [`FileWriter`] and [`FileReader`] take any stream, so a pipe does, and hold one block at a time.
//! [`Tables`] are the probabilities that codes are coded with, whole numbers that every machine has alike ([`table`]).
//!
//! Nothing here knows a network: codes come from elsewhere, and libtorch is not needed.

mod ahead;
pub mod coder;
pub mod container;
mod error;
mod header;
pub mod table;

pub use container::{FileReader, FileWriter, Next};
pub use error::CodecError;
pub use header::{Header, LevelShape, Media, Place, PriorCoding};
pub use table::{LevelTable, Tables};
