//! Whether a file that FFmpeg reads is as long as its container says.
//!
//! FFmpeg decodes what is there of a file that was cut, and ends without an error. Most containers
//! say how long they are, or their parts; only those numbers are compared here.

use std::io::{self, Read, Seek, SeekFrom};

/// What a file begins with.
const HEAD: usize = 64;

/// Compares the length of a file with what it says; the error completes "sample ...". Says nothing
/// of a file that does not say it, as one that was written into a pipe, or of another kind.
pub(crate) fn check(source: &mut (impl Read + Seek)) -> Result<(), String> {
    let promised = promised(source).map_err(|error| format!("cannot be read ({error})"))?;
    match promised {
        Some((promised, there)) if promised > there => {
            Err(format!("is cut short: it says that it has {promised} bytes, {there} are there"))
        }
        _ => Ok(()),
    }
}

/// Bytes that a file should have, and those that it has.
fn promised(source: &mut (impl Read + Seek)) -> io::Result<Option<(u64, u64)>> {
    let there = source.seek(SeekFrom::End(0))?;
    let head = bytes_at(source, 0)?;
    let end = match &head {
        head if head[..4] == *b"RIFF" || head[..4] == *b"RIFX" => riff_end(source, there)?,
        head if head[4..8] == *b"ftyp" || head[4..8] == *b"moov" || head[4..8] == *b"wide" => {
            boxes_end(source, there)?
        }
        head if head[..4] == *b"\x1A\x45\xDF\xA3" => matroska_end(source)?,
        head if head[..4] == *b"FORM" => known(u32_be(head, 4)).map(|size| 8 + size),
        head if head[..4] == *b"caff" => caf_end(source, there)?,
        head if head[..4] == *b".snd" => {
            known(u32_be(head, 8)).map(|size| u64::from(u32_be(head, 4)) + size)
        }
        head if head[..4] == *b"riff" => {
            // Sony's Wave64: names are GUIDs, and sizes hold their own heads.
            let size = u64::from_le_bytes(head[16..24].try_into().expect("eight bytes"));
            (size > 40 && size < 1 << 62).then_some(size)
        }
        head if head[..7] == *b"NIST_1A" => sphere_end(source)?,
        _ => None,
    };
    // A last byte that only fills up is often left out.
    Ok(end.map(|end| (if end == there + 1 { there } else { end }, there)))
}

/// A size that does not say "until the end".
fn known(size: u32) -> Option<u64> {
    (size != 0 && !(0x7F00_0000..=0x8000_0000).contains(&size) && size < 0xFFFF_0000)
        .then_some(u64::from(size))
}

fn bytes_at(source: &mut (impl Read + Seek), at: u64) -> io::Result<[u8; HEAD]> {
    let mut bytes = [0; HEAD];
    source.seek(SeekFrom::Start(at))?;
    let mut filled = 0;
    while filled < HEAD {
        match source.read(&mut bytes[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(bytes)
}

fn u32_be(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_be(bytes: &[u8], at: usize) -> u64 {
    u64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// RIFF and what follows it: AVI is a row of them, as long as it is.
fn riff_end(source: &mut (impl Read + Seek), there: u64) -> io::Result<Option<u64>> {
    let mut at = 0;
    while at + 12 <= there {
        let head = bytes_at(source, at)?;
        let size = match &head[..4] {
            b"RIFF" => known(u32::from_le_bytes(head[4..8].try_into().expect("four bytes"))),
            b"RIFX" => known(u32_be(&head, 4)),
            _ => return Ok(None),
        };
        let Some(size) = size else { return Ok(None) };
        at += 8 + size + size % 2;
    }
    Ok(Some(at))
}

/// Boxes of the ISO base media format: MP4, MOV, M4A, 3GP.
fn boxes_end(source: &mut (impl Read + Seek), there: u64) -> io::Result<Option<u64>> {
    let mut at = 0;
    while at + 8 <= there {
        let head = bytes_at(source, at)?;
        let size = match u32_be(&head, 0) {
            // Until the end of the file.
            0 => return Ok(None),
            1 => u64_be(&head, 8),
            size => u64::from(size),
        };
        let named = head[4..8].iter().all(|byte| (b' '..=b'~').contains(byte) || *byte == 0xA9);
        if size < 8 || !named {
            return Ok(None);
        }
        at = at.saturating_add(size);
    }
    Ok(Some(at))
}

/// A header and a segment, each with a size; that of a segment that was sent is unknown.
fn matroska_end(source: &mut (impl Read + Seek)) -> io::Result<Option<u64>> {
    let mut at = 0;
    for name in [b"\x1A\x45\xDF\xA3", b"\x18\x53\x80\x67"] {
        let head = bytes_at(source, at)?;
        let first = head[4];
        let length = first.leading_zeros() as usize + 1;
        if head[..4] != *name || length > 8 {
            return Ok(None);
        }
        // The first bit that is set tells the length of the number, and is no part of it.
        let all = (1 << (7 * length)) - 1;
        let size = u64_be(&head, 4) >> (64 - 8 * length) & all;
        if size == all {
            return Ok(None);
        }
        at += 4 + length as u64 + size;
    }
    Ok(Some(at))
}

/// Apple's Core Audio Format: chunks with sizes of 64 bits; the last may be -1.
fn caf_end(source: &mut (impl Read + Seek), there: u64) -> io::Result<Option<u64>> {
    let mut at = 8;
    while at + 12 <= there {
        let size = u64_be(&bytes_at(source, at)?, 4);
        if size > i64::MAX as u64 {
            return Ok(None);
        }
        at = at.saturating_add(12).saturating_add(size);
    }
    Ok(Some(at))
}

/// NIST SPHERE: a head of lines `name -type value`, as TIMIT has.
fn sphere_end(source: &mut (impl Read + Seek)) -> io::Result<Option<u64>> {
    let mut head = Vec::new();
    source.seek(SeekFrom::Start(0))?;
    source.take(1024).read_to_end(&mut head)?;
    let head = String::from_utf8_lossy(&head);
    let number = |name: &str| -> Option<u64> {
        let line = head.lines().find(|line| line.split(' ').next() == Some(name))?;
        line.split(' ').nth(2)?.parse().ok()
    };
    let compressed = head.lines().any(|line| line.contains("shorten"));
    let count = (number("sample_count"), number("sample_n_bytes"), number("channel_count"));
    Ok(match count {
        (Some(count), Some(bytes), Some(channels)) if !compressed => {
            let length = head.lines().nth(1).and_then(|line| line.trim().parse::<u64>().ok());
            Some(length.unwrap_or(1024) + count.saturating_mul(bytes).saturating_mul(channels))
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn checked(bytes: &[u8]) -> Result<(), String> {
        check(&mut Cursor::new(bytes))
    }

    /// Each file by hand, with twenty bytes of contents: whole, with one byte less, with half.
    #[test]
    fn a_file_that_is_shorter_than_it_says_is_told() {
        let contents = [7; 20];
        let files: [(&str, Vec<u8>); 8] = [
            ("avi", b"RIFF\x18\0\0\0AVI ".to_vec()),
            ("rifx", b"RIFX\0\0\0\x18WAVE".to_vec()),
            ("mp4", b"\0\0\0\x08ftyp\0\0\0\x1cmdat".to_vec()),
            ("long mp4", b"\0\0\0\x08ftyp\0\0\0\x01mdat\0\0\0\0\0\0\0\x24".to_vec()),
            ("mkv", b"\x1A\x45\xDF\xA3\x82ab\x18\x53\x80\x67\x40\x14".to_vec()),
            ("aiff", b"FORM\0\0\0\x18AIFF".to_vec()),
            ("caf", b"caff\0\x01\0\0data\0\0\0\0\0\0\0\x14".to_vec()),
            ("au", b".snd\0\0\0\x18\0\0\0\x14\0\0\0\x03\0\0\x1f\x40\0\0\0\x01".to_vec()),
        ];
        for (name, mut file) in files {
            file.extend(contents);
            assert_eq!(checked(&file), Ok(()), "{name}");
            // One byte can be one that only fills up.
            for left_out in [2, 10] {
                let error = checked(&file[..file.len() - left_out]).unwrap_err();
                assert!(error.starts_with("is cut short"), "{name}: {error}");
            }
        }
    }

    #[test]
    fn a_file_that_does_not_say_its_length_passes() {
        let files: [&[u8]; 6] = [
            b"RIFF\xff\xff\xff\xffAVI and more",
            b"RIFF\0\0\0\0AVI and more",
            b"\0\0\0\x08ftyp\0\0\0\0mdat and more",
            b"\x1A\x45\xDF\xA3\x82ab\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff and more",
            b"caff\0\x01\0\0data\xff\xff\xff\xff\xff\xff\xff\xff and more",
            b"no film at all",
        ];
        for file in files {
            assert_eq!(checked(file), Ok(()));
        }
        assert_eq!(checked(b""), Ok(()));
    }

    /// TIMIT's: three samples of two bytes behind a head of 1024 bytes.
    #[test]
    fn sphere_counts_its_samples() {
        let mut file = b"NIST_1A\n   1024\nchannel_count -i 1\nsample_count -i 3\n\
                         sample_n_bytes -i 2\nend_head\n"
            .to_vec();
        file.resize(1024 + 6, 0);
        assert_eq!(checked(&file), Ok(()));
        assert!(checked(&file[..1024 + 2]).is_err());
    }
}
