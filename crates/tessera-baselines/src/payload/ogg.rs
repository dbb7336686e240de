//! Ogg: packets in pages, for Opus.

use super::part;
use crate::error::BaselineError;

const FORMAT: &str = "Ogg";
/// Opus' head and its comments.
const HEADS: usize = 2;

/// Bytes of an Opus file's packets of sound, without Ogg's pages and the two packets of heads.
///
/// # Errors
///
/// [`BaselineError::Format`] if it is none, or a page is cut off.
pub fn ogg_payload(file: &[u8]) -> Result<u64, BaselineError> {
    let packets = packets(file)?;
    if packets.len() < HEADS || !packets[0].starts_with(b"OpusHead") {
        return Err(BaselineError::format(FORMAT, "no head of Opus"));
    }
    Ok(packets[HEADS..].iter().map(|packet| packet.len() as u64).sum())
}

/// The packets of a file with one stream.
fn packets(file: &[u8]) -> Result<Vec<Vec<u8>>, BaselineError> {
    let (mut at, mut packets, mut open) = (0, Vec::new(), Vec::new());
    while at < file.len() {
        let head = part(file, at, 27, FORMAT)?;
        if &head[..4] != b"OggS" {
            return Err(BaselineError::format(FORMAT, format!("no page at {at}")));
        }
        let table = part(file, at + 27, usize::from(head[26]), FORMAT)?;
        at += 27 + table.len();
        for len in table {
            open.extend_from_slice(part(file, at, usize::from(*len), FORMAT)?);
            at += usize::from(*len);
            // A piece of 255 goes on in the next one, which may lie in the next page.
            if *len < 255 {
                packets.push(std::mem::take(&mut open));
            }
        }
    }
    if !open.is_empty() {
        return Err(BaselineError::format(FORMAT, "its last packet has no end"));
    }
    Ok(packets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(pieces: &[u8], content: &[u8]) -> Vec<u8> {
        let mut page = b"OggS".to_vec();
        page.resize(26, 0);
        page.push(pieces.len() as u8);
        page.extend_from_slice(pieces);
        page.extend_from_slice(content);
        page
    }

    /// By hand: heads of 8 and 3 bytes, a packet of 255 + 4 over two pages, one of 2.
    #[test]
    fn the_payload_is_all_packets_but_the_heads() {
        let mut file = page(&[8], b"OpusHead");
        file.extend(page(&[3], b"tag"));
        file.extend(page(&[255], &[1; 255]));
        file.extend(page(&[4, 2], b"fourtw"));
        assert_eq!(ogg_payload(&file).expect("whole"), 261);
        assert!(ogg_payload(&file[..file.len() - 1]).is_err());
        assert!(ogg_payload(&page(&[3], b"tag")).is_err());
    }
}
