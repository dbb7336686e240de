//! Why a compressed file could not be written or read: one enum for the crate.

use std::io;

/// Why a compressed file could not be written or read. A message is one line and says what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The stream could not be read or written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The file does not begin as compressed files do.
    #[error("this is no compressed file of Tessera: `tessera compress` writes such files")]
    NotCompressed,
    /// The file was written by a later version.
    #[error(
        "this compressed file has version {found}, this program reads up to {known}: decompress it with a newer Tessera"
    )]
    Version {
        /// Version of the file.
        found: u16,
        /// The newest that this program knows.
        known: u16,
    },
    /// The header is damaged, or what it says cannot be.
    #[error("the header of this compressed file {0}: the file is damaged; take another copy of it")]
    Header(String),
    /// The file ends within its header.
    #[error(
        "this compressed file ends within its header: the file is cut off; take another copy of it"
    )]
    CutOff,
    /// The codes, or the tables, are not those that the header tells of: the caller's fault.
    #[error("{0}")]
    BadInput(String),
}
