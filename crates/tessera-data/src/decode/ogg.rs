//! The links of an Ogg file, and whether its pages are all there (RFC 3533).
//!
//! A chained file is several recordings one after another; decoders of streams read the first. A
//! page that does not match its checksum, or that is missing, is passed over by them. Both are seen
//! here from the heads of pages alone; what is in them is not decoded.

use std::collections::BTreeMap;
use std::ops::Range;

/// One recording of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    /// Its pages.
    pub(crate) bytes: Range<usize>,
    /// What its sound is.
    pub(crate) codec: Codec,
}

/// What the sound of a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Codec {
    Vorbis,
    Flac,
    Opus,
    Speex,
}

/// A page, without what is in it.
struct Page<'a> {
    begins: bool,
    ends: bool,
    /// Frames until the end of the page; none if no packet ends on it.
    position: Option<u64>,
    stream: u32,
    number: u32,
    body: &'a [u8],
    /// Of head and body.
    length: usize,
}

/// What was seen of a stream in a link.
#[derive(Default)]
struct Stream {
    codec: Option<Codec>,
    next: u32,
    has_sound: bool,
    ended: bool,
}

/// The links of a file that are sound; the error completes "sample ...".
pub(crate) fn links(bytes: &[u8]) -> Result<Vec<Link>, String> {
    let (mut links, mut start, mut at) = (Vec::new(), 0, 0);
    let (mut streams, mut in_head) = (BTreeMap::<u32, Stream>::new(), true);
    while at < bytes.len() {
        if !bytes[at..].starts_with(b"OggS") {
            // Tags that other formats put behind everything.
            let rest = &bytes[at..];
            if rest.starts_with(b"TAG") || rest.iter().all(|&byte| byte == 0) {
                break;
            }
            let head = b"OggS".starts_with(rest);
            return Err(if head { cut() } else { format!("is damaged at its byte {at}") });
        }
        let page = page(bytes, at)?;
        if page.begins && !in_head {
            links.extend(finish(&streams, start..at)?);
            (streams, start) = (BTreeMap::new(), at);
        }
        in_head = page.begins;
        let stream = streams.entry(page.stream).or_default();
        if page.begins {
            stream.codec = codec(page.body);
        }
        if stream.has_sound && page.number != stream.next {
            return Err(format!("is damaged: pages are missing before its byte {at}"));
        }
        stream.next = page.number.wrapping_add(1);
        stream.has_sound |= page.position.is_some_and(|position| position > 0);
        stream.ended |= page.ends;
        at += page.length;
    }
    links.extend(finish(&streams, start..at)?);
    if links.is_empty() {
        return Err("has no sound that can be decoded: Vorbis, FLAC, Opus and Speex can".to_owned());
    }
    Ok(links)
}

/// The link of these streams, if one of them is sound.
fn finish(streams: &BTreeMap<u32, Stream>, bytes: Range<usize>) -> Result<Option<Link>, String> {
    let sound = streams.values().find_map(|stream| stream.codec.map(|codec| (codec, stream)));
    let Some((codec, stream)) = sound else { return Ok(None) };
    if !stream.ended {
        return Err(format!(
            "is cut short: a recording in it has no last page (if that is right, `ffmpeg -i IN \
             -c copy OUT.ogg` gives it one), at its byte {}",
            bytes.end
        ));
    }
    Ok(Some(Link { bytes, codec }))
}

fn cut() -> String {
    "is cut short: it ends within a page".to_owned()
}

fn codec(body: &[u8]) -> Option<Codec> {
    let known = [
        (b"\x01vorbis".as_slice(), Codec::Vorbis),
        (b"\x7fFLAC", Codec::Flac),
        (b"OpusHead", Codec::Opus),
        (b"Speex   ", Codec::Speex),
    ];
    known.iter().find(|(start, _)| body.starts_with(start)).map(|(_, codec)| *codec)
}

/// The page that begins at `at`.
fn page(bytes: &[u8], at: usize) -> Result<Page<'_>, String> {
    let word = |from: usize| {
        let word = bytes.get(at + from..at + from + 4).ok_or_else(cut)?;
        Ok::<_, String>(u32::from_le_bytes(word.try_into().expect("four bytes")))
    };
    let (low, high) = (word(6)?, word(10)?);
    let (stream, number, checksum) = (word(14)?, word(18)?, word(22)?);
    let flags = bytes[at + 5];
    let segments = usize::from(*bytes.get(at + 26).ok_or_else(cut)?);
    let lengths = bytes.get(at + 27..at + 27 + segments).ok_or_else(cut)?;
    let start = at + 27 + segments;
    let end = start + lengths.iter().map(|&length| usize::from(length)).sum::<usize>();
    let body = bytes.get(start..end).ok_or_else(cut)?;
    // The checksum is taken with zeros in its own place.
    let found = [&bytes[at..at + 22], &[0; 4], &bytes[at + 26..end]];
    if found.iter().fold(0, |crc, piece| crc32(crc, piece)) != checksum {
        return Err(format!("is damaged: the page at its byte {at} does not match its checksum"));
    }
    let position = u64::from(high) << 32 | u64::from(low);
    Ok(Page {
        begins: flags & 2 != 0,
        ends: flags & 4 != 0,
        position: (position != u64::MAX).then_some(position),
        stream,
        number,
        body,
        length: end - at,
    })
}

/// Ogg's checksum goes through bits from the highest on, so it is not the one of zip and png.
fn crc32(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, &byte| crc << 8 ^ TABLE[usize::from((crc >> 24) as u8 ^ byte)])
}

static TABLE: [u32; 256] = {
    let (mut table, mut at) = ([0; 256], 0);
    while at < 256 {
        let (mut crc, mut bit) = ((at as u32) << 24, 0);
        while bit < 8 {
            crc = if crc >> 31 == 1 { crc << 1 ^ 0x04C1_1DB7 } else { crc << 1 };
            bit += 1;
        }
        table[at] = crc;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    /// A page by hand: `flags` 2 begins a stream, 4 ends it.
    fn page_of(stream: u32, number: u32, flags: u8, position: u64, body: &[u8]) -> Vec<u8> {
        let mut page = b"OggS\0".to_vec();
        page.push(flags);
        page.extend(position.to_le_bytes());
        for word in [stream, number, 0] {
            page.extend(word.to_le_bytes());
        }
        page.extend([1, body.len() as u8]);
        page.extend(body);
        let checksum = crc32(0, &page).to_le_bytes();
        page[22..26].copy_from_slice(&checksum);
        page
    }

    fn recording(stream: u32) -> Vec<u8> {
        let mut pages = page_of(stream, 0, 2, 0, b"OpusHead");
        pages.extend(page_of(stream, 1, 0, 960, b"sound"));
        pages.extend(page_of(stream, 2, 4, 1920, b"more"));
        pages
    }

    /// The polynomial of the format from its highest bit on: one byte of value 1 gives itself.
    #[test]
    fn the_checksum_is_that_of_the_format() {
        assert_eq!(crc32(0, &[1]), 0x04C1_1DB7);
        assert_eq!(crc32(0, &[0, 0, 1]), 0x04C1_1DB7);
    }

    #[test]
    fn each_recording_of_a_chain_is_a_link() {
        let (first, second) = (recording(7), recording(8));
        let chain = [first.clone(), second].concat();
        let found = links(&chain).unwrap();
        let ends: Vec<usize> = found.iter().map(|link| link.bytes.end).collect();
        assert_eq!(ends, [first.len(), chain.len()]);
        assert!(found.iter().all(|link| link.codec == Codec::Opus));
    }

    #[test]
    fn what_is_missing_or_changed_is_told() {
        let whole = recording(7);
        let refused = |bytes: &[u8]| links(bytes).unwrap_err();
        for end in 1..whole.len() {
            let error = refused(&whole[..end]);
            assert!(error.starts_with("is cut short"), "{end}: {error}");
        }
        let mut changed = whole.clone();
        *changed.last_mut().unwrap() ^= 1;
        assert!(refused(&changed).contains("checksum"));
        let mut pages = page_of(7, 0, 2, 0, b"OpusHead");
        pages.extend(page_of(7, 1, 0, 960, b"sound"));
        pages.extend(page_of(7, 3, 4, 1920, b"more"));
        assert!(refused(&pages).contains("pages are missing"));
        let words = page_of(7, 0, 6, 0, b"words");
        assert!(refused(&words).contains("no sound"));
    }
}
