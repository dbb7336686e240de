//! Where the samples of a WAV file are: RIFF, RF64 and BW64, also where their sizes are not true.
//!
//! A program that writes into a pipe cannot know the sizes in the header; each has a number of its
//! own for "until the end". Libraries refuse such files, so the chunks are walked here, and the
//! samples are handed on below a header without any of that. Decoding is symphonia's.

use std::ops::Range;

/// Where the samples are, and what they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wav {
    /// Format tag; that of the subformat where there is one, 0 if that is none of Microsoft's.
    pub(crate) tag: u16,
    /// Frames a second.
    pub(crate) rate: u32,
    /// Number of channels.
    pub(crate) channels: u16,
    /// Where each channel is, one bit each, from WAVEFORMATEXTENSIBLE; 0 if that is not said.
    pub(crate) mask: u32,
    /// Bits of a sample as it is stored.
    bits: u16,
    /// The chunk `fmt `, without its head.
    format: Range<usize>,
    /// The samples.
    data: Range<usize>,
    /// Frames that the chunk `fact` tells, of what is not PCM.
    fact: Option<u32>,
}

const PCM: u16 = 1;
const ADPCM: u16 = 2;
const FLOAT: u16 = 3;
const ALAW: u16 = 6;
const MULAW: u16 = 7;
const IMA_ADPCM: u16 = 0x11;
const EXTENSIBLE: u16 = 0xFFFE;

/// The end of the GUID of a subformat whose beginning is a format tag.
const MICROSOFT: [u8; 14] = *b"\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71";

/// Chunks that may follow one of odd length without the byte that should fill it up.
const KNOWN: [&[u8; 4]; 12] = [
    b"fmt ", b"data", b"fact", b"LIST", b"bext", b"cue ", b"smpl", b"PEAK", b"JUNK", b"id3 ",
    b"iXML", b"ds64",
];

/// Whether these bytes begin as a WAV file does whose numbers are little endian.
pub(crate) fn is_wav(bytes: &[u8]) -> bool {
    let kind = bytes.get(..4);
    let riff = [b"RIFF", b"RF64", b"BW64"].iter().any(|&name| kind == Some(name));
    riff && bytes.get(8..12) == Some(b"WAVE")
}

impl Wav {
    /// Finds the samples; the error completes "sample ...".
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, String> {
        Self::parse_head(bytes, bytes.len())
    }

    /// The same of a file of `total` bytes whose beginning these are, up to its samples at least.
    pub(crate) fn parse_head(bytes: &[u8], total: usize) -> Result<Self, String> {
        let riff = u32_at(bytes, 4).unwrap_or(0);
        let (mut at, mut format, mut long, mut fact) = (12, None, None, None);
        loop {
            let Some(size) = u32_at(bytes, at + 4) else {
                return Err("is cut short: it ends before its samples begin".to_owned());
            };
            let (name, start) = (&bytes[at..at + 4], at + 8);
            if name == b"data" {
                let Some(format) = format else {
                    return Err("has samples before it says of which format".to_owned());
                };
                let size = match long {
                    Some(long) if size == u32::MAX => long,
                    _ => u64::from(size),
                };
                return Self::of((bytes, total), format, fact, start, size, riff);
            }
            let end = start.saturating_add(size as usize);
            let Some(chunk) = bytes.get(start..end) else {
                let name = String::from_utf8_lossy(name);
                return Err(format!(
                    "is cut short: its chunk {name:?} has {size} bytes, {} are there",
                    bytes.len() - start
                ));
            };
            match name {
                b"fmt " => format = Some(start..end),
                b"ds64" => long = chunk.get(8..16).map(u64_of),
                b"fact" => fact = u32_at(chunk, 0),
                _ => {}
            }
            at = end + usize::from(size % 2 == 1 && !fill_is_missing(bytes, end));
        }
    }

    fn of(
        (bytes, total): (&[u8], usize),
        format: Range<usize>,
        fact: Option<u32>,
        start: usize,
        size: u64,
        riff: u32,
    ) -> Result<Self, String> {
        let head = &bytes[format.clone()];
        let word = |at: usize| u16_at(head, at);
        let (Some(tag), Some(channels), Some(rate), Some(block)) =
            (word(0), word(2), u32_at(head, 4), word(12))
        else {
            return Err("says too little about the format of its samples".to_owned());
        };
        if channels == 0 {
            return Err("says that it has no channels".to_owned());
        }
        let bits = word(14).unwrap_or(8 * (block / channels));
        let (tag, mask) = match (tag, head.get(26..40)) {
            (EXTENSIBLE, Some(rest)) if rest == MICROSOFT => {
                (word(24).expect("40 bytes"), u32_at(head, 20).expect("40 bytes"))
            }
            (EXTENSIBLE, Some(_)) => (0, 0),
            (EXTENSIBLE, None) => (PCM, 0),
            (tag, _) => (tag, 0),
        };
        let mut bits = bits.next_multiple_of(8);
        if tag == PCM && block / channels > bits / 8 && block % channels == 0 {
            // Samples of fewer bits than they are stored in stand at the upper end.
            bits = 8 * (block / channels);
        }
        let there = total - start;
        let data = match size {
            size if is_until_end(size, riff, start) && size != there as u64 => start..total,
            size => start..start + size.min(there as u64) as usize,
        };
        let fact = fact.filter(|_| [ADPCM, IMA_ADPCM].contains(&tag));
        let wav = Self { tag, rate, channels, mask, bits, format, data, fact };
        let frame = u64::from(wav.frame_bytes().unwrap_or(1));
        let (promised, found) = (size / frame, wav.data.len() as u64 / frame);
        if wav.data.end == total && !is_until_end(size, riff, start) && found < promised {
            let unit = if wav.frame_bytes().is_some() { "frames" } else { "bytes" };
            return Err(format!("is cut short: it promises {promised} {unit} and has {found}"));
        }
        Ok(wav)
    }

    /// Whether what it holds can be decoded without FFmpeg.
    pub(crate) fn is_plain(&self) -> bool {
        match self.tag {
            PCM => [8, 16, 24, 32].contains(&self.bits),
            FLOAT => [32, 64].contains(&self.bits),
            ALAW | MULAW => self.bits == 8,
            ADPCM | IMA_ADPCM => self.bits == 8,
            _ => false,
        }
    }

    /// Bytes of a frame, where all frames are alike.
    fn frame_bytes(&self) -> Option<u32> {
        let alike = [PCM, FLOAT, ALAW, MULAW].contains(&self.tag);
        alike.then(|| u32::from(self.channels) * u32::from(self.bits / 8)).filter(|&size| size > 0)
    }

    /// Frames, where they can be counted without decoding.
    pub(crate) fn num_frames(&self) -> Option<u64> {
        self.frame_bytes().map(|size| self.data.len() as u64 / u64::from(size))
    }

    /// Frames that are not to be exceeded, of what is decoded in blocks.
    pub(crate) fn most_frames(&self) -> Option<u64> {
        self.fact.map(u64::from).filter(|&frames| frames > 0)
    }

    /// Where these frames lie in the file, where all frames are alike.
    pub(crate) fn place(&self, frames: Range<u64>) -> Option<Range<u64>> {
        let size = u64::from(self.frame_bytes()?);
        let start = self.data.start as u64;
        Some(start + frames.start * size..start + frames.end * size)
    }

    /// Samples that lie somewhere in the file, below a header of their own.
    pub(crate) fn plain_of(&self, data: &[u8]) -> Vec<u8> {
        debug_assert!(self.frame_bytes().is_some(), "all frames are alike");
        Self { data: 0..data.len(), ..self.clone() }.plain(data)
    }

    /// The same samples below the shortest header that tells what they are.
    pub(crate) fn plain(&self, bytes: &[u8]) -> Vec<u8> {
        let mut format = Vec::new();
        match self.frame_bytes() {
            Some(frame) => {
                format.extend(self.tag.to_le_bytes());
                format.extend(self.channels.to_le_bytes());
                format.extend(self.rate.to_le_bytes());
                format.extend(self.rate.wrapping_mul(frame).to_le_bytes());
                format.extend((frame as u16).to_le_bytes());
                format.extend(self.bits.to_le_bytes());
                if [ALAW, MULAW].contains(&self.tag) {
                    format.extend([0, 0]);
                }
            }
            None => format.extend(&bytes[self.format.clone()]),
        }
        let data = &bytes[self.data.clone()];
        let unknown = u32::MAX;
        let size = u32::try_from(data.len()).unwrap_or(unknown);
        let mut plain = b"RIFF".to_vec();
        plain.reserve(data.len() + 64);
        plain
            .extend(u32::try_from(data.len() + format.len() + 20).unwrap_or(unknown).to_le_bytes());
        plain.extend(b"WAVEfmt ");
        plain.extend((format.len() as u32).to_le_bytes());
        plain.extend(format);
        plain.extend(b"data");
        plain.extend(size.to_le_bytes());
        plain.extend(data);
        plain
    }
}

/// Whether a size of the samples says "until the end": what programs write that cannot go back to
/// the header (sox 0x7FFFF000, FFmpeg 0xFFFFFFFF, others a number near 2^31 or 2^32), or 0 where
/// the size of the whole was not set either.
fn is_until_end(size: u64, riff: u32, start: usize) -> bool {
    let near = |size: u64| {
        (0x7FFF_0000..=0x8000_0000).contains(&size) || (0xFFFF_0000..=0xFFFF_FFFF).contains(&size)
    };
    let unset = riff as usize + 8 <= start || near(u64::from(riff));
    near(size) || size == u64::MAX || (size == 0 && unset)
}

/// Whether what follows a chunk of odd length follows at once.
fn fill_is_missing(bytes: &[u8], end: usize) -> bool {
    let known = |at: usize| {
        bytes.get(at..at + 4).is_some_and(|name| KNOWN.iter().any(|known| name == *known))
    };
    known(end) && !known(end + 1)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().expect("two bytes")))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().expect("four bytes")))
}

fn u64_of(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of four chunks by hand; samples of one channel and two bytes.
    fn file(name: &[u8; 4], riff: u32, size: u32, between: &[u8], samples: &[u8]) -> Vec<u8> {
        let mut file = name.to_vec();
        file.extend(riff.to_le_bytes());
        file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0");
        file.extend(between);
        file.extend(b"data");
        file.extend(size.to_le_bytes());
        file.extend(samples);
        file
    }

    #[test]
    fn sizes_that_say_until_the_end_are_taken_so() {
        let sizes = [
            (0xFFFF_FFFF, 0xFFFF_FFFF), // FFmpeg
            (0x7FFF_F024, 0x7FFF_F000), // sox
            (0x7FFF_FFFF, 0x7FFF_FFDB),
            (0, 0),
            (36, 0),
            (36, 6), // only that of the whole was not set
        ];
        for (riff, size) in sizes {
            let bytes = file(b"RIFF", riff, size, b"", &[1, 2, 3, 4, 5, 6]);
            let wav = Wav::parse(&bytes).unwrap();
            assert_eq!((wav.num_frames(), wav.rate), (Some(3), 8000), "{riff:x} {size:x}");
            assert_eq!(wav.plain(&bytes)[44..], [1, 2, 3, 4, 5, 6]);
        }
        // An empty one, with a chunk behind it, whose whole has its size.
        let mut bytes = file(b"RIFF", 48, 0, b"", b"");
        bytes.extend(b"LIST\x04\0\0\0INFO");
        assert_eq!(Wav::parse(&bytes).unwrap().num_frames(), Some(0));
    }

    #[test]
    fn a_size_that_is_plainly_too_large_is_told() {
        let error = Wav::parse(&file(b"RIFF", 136, 100, b"", &[0; 90])).unwrap_err();
        assert_eq!(error, "is cut short: it promises 50 frames and has 45");
        let error = Wav::parse(&file(b"RIFF", 136, 8, b"LIST\x40\0\0\0INFO", b"")).unwrap_err();
        assert!(error.contains("cut short") && error.contains("LIST"), "{error}");
    }

    #[test]
    fn rf64_has_its_size_in_a_chunk_of_its_own() {
        for (name, size, frames) in [(b"RF64", 4u64, 2), (b"BW64", u64::MAX, 3), (b"RF64", 0, 3)] {
            let mut ds64 = b"ds64\x1c\0\0\0\0\0\0\0\0\0\0\0".to_vec();
            ds64.extend(size.to_le_bytes());
            ds64.extend([0; 12]);
            let bytes = file(name, u32::MAX, u32::MAX, &ds64, &[1, 2, 3, 4, 5, 6]);
            assert_eq!(Wav::parse(&bytes).unwrap().num_frames(), Some(frames), "{size}");
        }
    }

    #[test]
    fn a_chunk_of_odd_length_is_filled_up_or_not() {
        for between in [b"note\x03\0\0\0abc\0".as_slice(), b"note\x03\0\0\0abc"] {
            let bytes = file(b"RIFF", 0, 4, between, &[1, 2, 3, 4]);
            assert_eq!(Wav::parse(&bytes).unwrap().plain(&bytes)[44..], [1, 2, 3, 4]);
        }
    }

    /// Twenty bits in three bytes, with places for both channels.
    #[test]
    fn an_extensible_format_is_that_of_its_subformat() {
        let mut bytes =
            b"RIFF\x50\0\0\0WAVEfmt \x28\0\0\0\xfe\xff\x02\0\x40\x1f\0\0\0\0\0\0\x06\0\x14\0\
                          \x16\0\x14\0\x30\0\0\0\x01\0"
                .to_vec();
        bytes.extend(MICROSOFT);
        bytes.extend(b"data\x0c\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
        let wav = Wav::parse(&bytes).unwrap();
        assert_eq!((wav.tag, wav.bits, wav.mask, wav.num_frames()), (PCM, 24, 0x30, Some(2)));
        assert!(wav.is_plain());
    }
}
