//! JPEG: the entropy-coded data of all scans.

use super::part;
use crate::error::BaselineError;

const FORMAT: &str = "JPEG";
const START_OF_SCAN: u8 = 0xda;
const END: u8 = 0xd9;

/// Bytes of a JPEG's entropy-coded segments: what follows each head of a scan, stuffed zeros and
/// restart markers included, up to the next marker. Huffman and quantization tables are not counted.
///
/// # Errors
///
/// [`BaselineError::Format`] if it is none, or ends before its end marker.
pub fn jpeg_payload(file: &[u8]) -> Result<u64, BaselineError> {
    if !file.starts_with(&[0xff, 0xd8]) {
        return Err(BaselineError::format(FORMAT, "no start marker"));
    }
    let (mut at, mut payload) = (2, 0);
    loop {
        let head = part(file, at, 2, FORMAT)?;
        match (head[0], head[1]) {
            (0xff, END) => return Ok(payload),
            // A byte of fill before a marker.
            (0xff, 0xff) => at += 1,
            (0xff, marker) => {
                let len = part(file, at + 2, 2, FORMAT)?;
                at += 2 + usize::from(u16::from_be_bytes([len[0], len[1]])).max(2);
                if marker == START_OF_SCAN {
                    let scan = scan_len(file.get(at..).unwrap_or_default());
                    payload += scan as u64;
                    at += scan;
                }
            }
            _ => return Err(BaselineError::format(FORMAT, format!("no marker at {at}"))),
        }
    }
}

/// Bytes before the next marker that ends a scan.
fn scan_len(data: &[u8]) -> usize {
    let ends = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0 | 0xd0..=0xd7);
    data.windows(2).position(ends).unwrap_or(data.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: a comment of 2 + 2 bytes, a scan of 3 + 2 + 2 bytes (a stuffed zero and a restart
    /// marker in it), a scan of one byte.
    #[test]
    fn the_payload_is_what_follows_heads_of_scans() {
        let mut file = vec![0xff, 0xd8, 0xff, 0xfe, 0, 4, b'h', b'i'];
        file.extend([0xff, 0xda, 0, 3, 9, 1, 2, 3, 0xff, 0, 0xff, 0xd3]);
        file.extend([0xff, 0xda, 0, 2, 5, 0xff, 0xd9]);
        assert_eq!(jpeg_payload(&file).expect("whole"), 8);
        assert!(jpeg_payload(&file[..file.len() - 1]).is_err());
        assert!(jpeg_payload(b"BM").is_err());
    }
}
