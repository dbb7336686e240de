//! AVIF and JPEG XL: boxes of ISO's base media file format.

use super::part;
use crate::error::BaselineError;

/// Bytes of an AVIF's `mdat` boxes: AV1's own.
///
/// # Errors
///
/// [`BaselineError::Format`] if it is none, or has none.
pub fn avif_payload(file: &[u8]) -> Result<u64, BaselineError> {
    let boxes = boxes(file, "AVIF")?;
    if boxes.first().is_none_or(|(name, _)| name != b"ftyp") {
        return Err(BaselineError::format("AVIF", "no box ftyp"));
    }
    let data = boxes.iter().filter(|(name, _)| name == b"mdat");
    match data.map(|(_, content)| content.len() as u64).sum() {
        0 => Err(BaselineError::format("AVIF", "no box mdat")),
        payload => Ok(payload),
    }
}

/// Bytes of a JPEG XL's codestream: the whole file where there is no container.
///
/// # Errors
///
/// [`BaselineError::Format`] if it is neither.
pub fn jpeg_xl_payload(file: &[u8]) -> Result<u64, BaselineError> {
    const FORMAT: &str = "JPEG XL";
    if file.starts_with(&[0xff, 0x0a]) {
        return Ok(file.len() as u64);
    }
    let mut payload = 0;
    for (name, content) in boxes(file, FORMAT)? {
        match &name {
            b"jxlc" => payload += content.len() as u64,
            // A part of the codestream after four bytes of its number.
            b"jxlp" => payload += content.len().saturating_sub(4) as u64,
            _ => {}
        }
    }
    if payload == 0 {
        return Err(BaselineError::format(FORMAT, "no codestream"));
    }
    Ok(payload)
}

type Part<'a> = ([u8; 4], &'a [u8]);

/// The outermost boxes: name and content.
fn boxes<'a>(file: &'a [u8], format: &'static str) -> Result<Vec<Part<'a>>, BaselineError> {
    let (mut at, mut boxes) = (0, Vec::new());
    while at < file.len() {
        let head = part(file, at, 8, format)?;
        let name = [head[4], head[5], head[6], head[7]];
        let (head_len, len) = match u32::from_be_bytes([head[0], head[1], head[2], head[3]]) {
            0 => (8, file.len() - at),
            1 => {
                let long = part(file, at + 8, 8, format)?.try_into().expect("eight bytes");
                (16, usize::try_from(u64::from_be_bytes(long)).unwrap_or(usize::MAX))
            }
            short => (8, short as usize),
        };
        let content = len.checked_sub(head_len);
        let content = content.ok_or_else(|| BaselineError::format(format, "a box in its head"))?;
        boxes.push((name, part(file, at + head_len, content, format)?));
        at += len;
    }
    Ok(boxes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: a box of 8 + 4, one of 8 + 5, and one of 16 + 2 whose length has 64 bits.
    #[test]
    fn the_payload_of_an_avif_is_its_mdat() {
        let mut file = b"\0\0\0\x0cftypavif\0\0\0\x0dmdatfive!".to_vec();
        assert_eq!(avif_payload(&file).expect("whole"), 5);
        file.extend_from_slice(b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x12ab");
        assert_eq!(avif_payload(&file).expect("whole"), 7);
        file.extend_from_slice(b"\0\0\0\0mdatto the end");
        assert_eq!(avif_payload(&file).expect("whole"), 17);
        assert!(avif_payload(&file[..20]).is_err());
        assert!(avif_payload(b"\0\0\0\x04ftyp").is_err());
    }

    #[test]
    fn the_payload_of_a_jpeg_xl_is_its_codestream() {
        assert_eq!(jpeg_xl_payload(&[0xff, 0x0a, 1, 2, 3]).expect("bare"), 5);
        let file = b"\0\0\0\x0cJXL \r\n\x87\n\0\0\0\x0fjxlp\0\0\0\0abc\0\0\0\x0djxlp\x80\0\0\x01d";
        assert_eq!(jpeg_xl_payload(file).expect("whole"), 4);
        assert!(jpeg_xl_payload(b"\0\0\0\x0cJXL \r\n\x87\n").is_err());
    }
}
