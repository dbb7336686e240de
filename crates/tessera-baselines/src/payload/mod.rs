//! Bytes of a coded file that are the picture or the sound itself, without the container around them.
//!
//! A reader of a comparison sees both: the file is what a disk holds, the payload is what a codec would take
//! in a container of somebody else. Tables that an entropy coder needs are counted with the container where a
//! format keeps them outside of its coded data, which makes payloads of JPEG smaller than what a decoder needs.

mod boxes;
mod chunks;
mod jpeg;
mod ogg;

pub use boxes::{avif_payload, jpeg_xl_payload};
pub use chunks::{png_payload, webp_payload};
pub use jpeg::jpeg_payload;
pub use ogg::ogg_payload;

use crate::error::BaselineError;

/// The bytes `[start, start + len)` of a file.
fn part<'a>(
    bytes: &'a [u8],
    start: usize,
    len: usize,
    format: &'static str,
) -> Result<&'a [u8], BaselineError> {
    let end = start.checked_add(len);
    end.and_then(|end| bytes.get(start..end)).ok_or_else(|| {
        let problem = format!("{len} bytes at {start} of {}", bytes.len());
        BaselineError::format(format, problem)
    })
}
