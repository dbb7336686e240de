//! PNG and WebP: chunks with a name and a length.

use super::part;
use crate::error::BaselineError;

/// Bytes of a PNG's IDAT chunks.
///
/// # Errors
///
/// [`BaselineError::Format`] if it is none, or ends before its IEND.
pub fn png_payload(file: &[u8]) -> Result<u64, BaselineError> {
    const FORMAT: &str = "PNG";
    if !file.starts_with(b"\x89PNG\r\n\x1a\n") {
        return Err(BaselineError::format(FORMAT, "no signature"));
    }
    let (mut at, mut payload) = (8, 0);
    loop {
        let head = part(file, at, 8, FORMAT)?;
        let len = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        // The checksum is part of the chunk's frame.
        part(file, at + 8, len.saturating_add(4), FORMAT)?;
        match &head[4..] {
            b"IDAT" => payload += len as u64,
            b"IEND" => return Ok(payload),
            _ => {}
        }
        at += 12 + len;
    }
}

/// Bytes of a WebP's `VP8 ` or `VP8L` chunk.
///
/// # Errors
///
/// [`BaselineError::Format`] if it is none, or has none.
pub fn webp_payload(file: &[u8]) -> Result<u64, BaselineError> {
    const FORMAT: &str = "WebP";
    let head = part(file, 0, 12, FORMAT)?;
    if &head[..4] != b"RIFF" || &head[8..] != b"WEBP" {
        return Err(BaselineError::format(FORMAT, "no RIFF of WEBP"));
    }
    let (mut at, mut payload) = (12, 0);
    while at < file.len() {
        let head = part(file, at, 8, FORMAT)?;
        let len = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        part(file, at + 8, len, FORMAT)?;
        if matches!(&head[..4], b"VP8 " | b"VP8L") {
            payload += len as u64;
        }
        at = at.saturating_add(8).saturating_add(len).saturating_add(len % 2);
    }
    if payload == 0 {
        return Err(BaselineError::format(FORMAT, "no chunk VP8 or VP8L"));
    }
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(name: &[u8; 4], len: usize) -> Vec<u8> {
        let mut chunk = (len as u32).to_be_bytes().to_vec();
        chunk.extend_from_slice(name);
        chunk.resize(chunk.len() + len + 4, 7);
        chunk
    }

    /// By hand: two IDAT of 5 and 2 bytes; IHDR, IEND, lengths, names and checksums are frame.
    #[test]
    fn the_payload_of_a_png_is_its_idat() {
        let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
        for (name, len) in [(b"IHDR", 13), (b"IDAT", 5), (b"IDAT", 2), (b"IEND", 0)] {
            file.extend(chunk(name, len));
        }
        assert_eq!(png_payload(&file).expect("whole"), 7);
        assert!(png_payload(&file[..file.len() - 1]).is_err());
        assert!(png_payload(b"GIF89a").is_err());
    }

    /// By hand: ICCP of 3 bytes, padded to 4, then VP8L of 6.
    #[test]
    fn the_payload_of_a_webp_is_its_coded_chunk() {
        let mut file = b"RIFF\x1e\0\0\0WEBPICCP\x03\0\0\0abc\0VP8L\x06\0\0\0sixsix".to_vec();
        assert_eq!(webp_payload(&file).expect("whole"), 6);
        file.pop();
        assert!(webp_payload(&file).is_err());
        assert!(webp_payload(b"RIFF\0\0\0\0WEBP").is_err());
    }
}
