//! Where the bytes of a sample lie in a tar archive. What finds them is `tar_members.rs`; what keeps
//! them, `tar_index.rs`.

use std::io;

use serde::{Deserialize, Serialize};

use crate::store::Blob;

/// Bytes of a tar block.
pub(crate) const BLOCK: u64 = 512;

/// Longest member with holes: its zeros take no room in the archive, but in memory.
pub(crate) const MAX_SPARSE_BYTES: u64 = 4 << 30;

/// Members that share a name up to the first dot of the file name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IndexedSample {
    /// What they share.
    pub(crate) key: String,
    pub(crate) members: Vec<Member>,
}

/// One file in an archive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// The name behind the first dot of the file name, in lower case.
    pub(crate) extension: String,
    /// Where its bytes begin.
    pub(crate) offset: u64,
    /// How many they are.
    pub(crate) bytes: u64,
    /// CRC-32 (IEEE 802.3).
    pub(crate) crc32: u32,
    /// Of a sparse member, what is not zeros; `bytes` counts both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pieces: Option<Box<[Piece]>>,
}

/// Bytes of a sparse member that lie together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Piece {
    /// Where they begin in the member.
    pub(crate) at: u64,
    /// Where they begin in the archive.
    pub(crate) offset: u64,
    /// How many they are.
    pub(crate) bytes: u64,
}

impl Member {
    /// Its bytes.
    pub(crate) fn read(&self, blob: &Blob) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.bytes as usize];
        match &self.pieces {
            None => blob.read_exact_at(&mut bytes, self.offset)?,
            Some(pieces) => {
                for &Piece { at, offset, bytes: count } in pieces {
                    blob.read_exact_at(&mut bytes[at as usize..][..count as usize], offset)?;
                }
            }
        }
        Ok(bytes)
    }

    /// Throws away what a cache holds of it; whether there was anything.
    pub(crate) fn forget(&self, blob: &Blob) -> bool {
        match &self.pieces {
            None => blob.forget(self.offset, self.bytes),
            Some(pieces) => {
                let forget = |piece: &Piece| blob.forget(piece.offset, piece.bytes);
                pieces.iter().map(forget).fold(false, |a, b| a | b)
            }
        }
    }

    /// Whether it can be in an archive of this length.
    pub(crate) fn is_inside(&self, archive_bytes: u64) -> bool {
        let is_inside =
            |offset: u64, bytes| offset.checked_add(bytes).is_some_and(|end| end <= archive_bytes);
        match &self.pieces {
            None => is_inside(self.offset, self.bytes),
            Some(pieces) => {
                let fits = |piece: &Piece| {
                    let end = piece.at.checked_add(piece.bytes);
                    end.is_some_and(|end| end <= self.bytes) && is_inside(piece.offset, piece.bytes)
                };
                self.bytes <= MAX_SPARSE_BYTES && pieces.iter().all(fits)
            }
        }
    }
}
