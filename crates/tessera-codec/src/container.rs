//! The file: magic, header, blocks, end.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `\x89TSC\r\n\x1a\n`: a byte above 127 and both kinds of line ends, as PNG has them, so that a transfer as text is seen |
//! | 2 | version: 2 of streams, else 1 |
//! | 4 | length of the header |
//! | .. | the [`Header`], JSON compressed by DEFLATE (RFC 1951) |
//! | 4 | CRC-32 of all before it |
//! | .. | blocks |
//!
//! A block, and the end, which has no samples and no bytes:
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `\xb1TS\x0b` |
//! | 8 | number of its first sample; of the end, the number of all samples |
//! | 4 | samples |
//! | 4 | bytes |
//! | 4 | CRC-32 of the codes, each as four bytes |
//! | 4 | CRC-32 of the bytes |
//! | 4 | CRC-32 of the 28 before it |
//! | .. | the bytes, as [`coder`] writes them |
//!
//! All numbers have their low byte first. A block is decoded without the others, so damage costs the block that has it: a
//! reader whose place is lost goes on at the next four bytes of a block whose own checksum is right. The checksum of codes also
//! catches what one of bytes cannot: tables, or a program, that decode something else.
//!
//! The end of a stream whose length its header did not know has 8 bytes: its frames.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::{DeflateDecoder, DeflateEncoder};

use crate::ahead::Ahead;
use crate::{CodecError, Header, Tables, coder};

/// The newest version that is written and read; [`Header::version`] says which one a file has.
pub const VERSION: u16 = 2;

const MAGIC: [u8; 8] = *b"\x89TSC\r\n\x1a\n";
const MARK: [u8; 4] = *b"\xb1TS\x0b";
const BLOCK_HEAD: usize = 32;
/// Most bytes of a header, compressed or not.
const MOST_HEADER: u32 = 1 << 26;
/// Most codes of a block, but for a single sample that has more.
const MOST_CODES_OF_A_BLOCK: u64 = 1 << 22;

/// Writes a compressed file.
#[derive(Debug)]
pub struct FileWriter<'a, W: Write> {
    to: W,
    header: Header,
    positions: Vec<u32>,
    tables: &'a Tables,
    written: u64,
    bytes: u64,
    payload: u64,
}

/// What a file took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Samples in it.
    pub samples: u64,
    /// Bytes in all.
    pub bytes: u64,
    /// Those of coded codes alone; the others are the header, heads of blocks and the end.
    pub payload: u64,
}

impl<'a, W: Write> FileWriter<'a, W> {
    /// Begins a file. The tables are those that the header names.
    pub fn new(mut to: W, header: Header, tables: &'a Tables) -> Result<Self, CodecError> {
        header.validate()?;
        check_tables(&header, tables)?;
        let json = serde_json::to_vec(&header).map_err(std::io::Error::from)?;
        if json.len() as u64 > u64::from(MOST_HEADER) {
            return Err(CodecError::BadInput(format!(
                "{} files make a header of {} bytes, more than {MOST_HEADER}: compress them in several parts",
                header.entries.len(),
                json.len()
            )));
        }
        let mut text = Vec::new();
        DeflateEncoder::new(json.as_slice(), Compression::best()).read_to_end(&mut text)?;
        let mut head = MAGIC.to_vec();
        head.extend(header.version().to_le_bytes());
        head.extend((text.len() as u32).to_le_bytes());
        head.extend(text);
        head.extend(crc32fast::hash(&head).to_le_bytes());
        to.write_all(&head)?;
        let positions = header.positions();
        Ok(Self { to, header, positions, tables, written: 0, bytes: head.len() as u64, payload: 0 })
    }

    /// Most samples of a block.
    pub fn most_samples(&self) -> usize {
        most_samples(&self.header) as usize
    }

    /// Writes a block of whole samples, codes `[samples, positions, levels]` as [`coder::encode`] takes them.
    pub fn block(&mut self, codes: &[u32]) -> Result<(), CodecError> {
        let samples = codes.len() as u64 / self.header.codes_of_a_sample();
        if samples == 0 || samples > most_samples(&self.header) {
            let most = most_samples(&self.header);
            return Err(CodecError::BadInput(format!(
                "a block should have 1 to {most} samples, found {samples}"
            )));
        }
        let payload = coder::encode(codes, &self.positions, self.tables)?;
        self.coded_block(codes, &payload)
    }

    /// Writes a block that somebody has coded, as [`FileReader::next_by`] is to read it.
    pub fn coded_block(&mut self, codes: &[u32], payload: &[u8]) -> Result<(), CodecError> {
        let samples = codes.len() as u64 / self.header.codes_of_a_sample();
        let head = BlockHead {
            first: self.written,
            samples: samples as u32,
            bytes: payload.len() as u32,
            crc_of_codes: crc_of_codes(codes),
            crc_of_bytes: crc32fast::hash(payload),
        };
        self.to.write_all(&head.to_bytes())?;
        self.to.write_all(payload)?;
        self.written += samples;
        self.bytes += (BLOCK_HEAD + payload.len()) as u64;
        self.payload += payload.len() as u64;
        Ok(())
    }

    /// Hands on all that was written so far.
    pub fn flush(&mut self) -> Result<(), CodecError> {
        Ok(self.to.flush()?)
    }

    /// Writes the end.
    pub fn finish(self) -> Result<Written, CodecError> {
        self.end(&[])
    }

    /// The same of a stream whose header did not know how many frames come.
    pub fn finish_with(self, frames: u64) -> Result<Written, CodecError> {
        self.end(&frames.to_le_bytes())
    }

    fn end(mut self, said: &[u8]) -> Result<Written, CodecError> {
        if let Some(wanted) = self.header.num_samples().filter(|wanted| *wanted != self.written) {
            let problem =
                format!("the header tells of {wanted} samples, {} were written", self.written);
            return Err(CodecError::BadInput(problem));
        }
        let end = BlockHead {
            first: self.written,
            samples: 0,
            bytes: said.len() as u32,
            crc_of_codes: 0,
            crc_of_bytes: crc32fast::hash(said),
        };
        self.to.write_all(&end.to_bytes())?;
        self.to.write_all(said)?;
        self.to.flush()?;
        Ok(Written {
            samples: self.written,
            bytes: self.bytes + (BLOCK_HEAD + said.len()) as u64,
            payload: self.payload,
        })
    }
}

/// Reads a compressed file, block by block.
#[derive(Debug)]
pub struct FileReader<R: Read> {
    from: Ahead<R>,
    header: Header,
    positions: Vec<u32>,
    /// Samples of all entries, if they are known.
    samples: Option<u64>,
    next: u64,
    ended: bool,
    frames: Option<u64>,
}

/// Who decodes blocks: gets the bytes of one and its number of samples, and gives its codes `[samples, positions, levels]`, or `None` where
/// the bytes are no such codes.
pub type DecodeBlock<'a> = &'a mut dyn FnMut(&[u8], usize) -> Option<Vec<u32>>;

/// What comes next in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// A block, whose codes are those that were written.
    Block {
        /// Number of its first sample.
        first: u64,
        /// Codes `[samples, positions, levels]`.
        codes: Vec<u32>,
    },
    /// Samples that damage has cost.
    Lost {
        /// Number of the first.
        first: u64,
        /// How many; `None`: all from there on, of a file that does not know how many.
        num: Option<u64>,
    },
    /// The end.
    End,
}

impl<R: Read> FileReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    ///
    /// [`CodecError::NotCompressed`], [`Version`](CodecError::Version), [`Header`](CodecError::Header),
    /// [`CutOff`](CodecError::CutOff) or [`Io`](CodecError::Io).
    pub fn open(from: R) -> Result<Self, CodecError> {
        let mut from = Ahead::new(from);
        if from.fill(MAGIC.len())? < MAGIC.len() || from.take(MAGIC.len()) != MAGIC {
            return Err(CodecError::NotCompressed);
        }
        let mut hash = crc32fast::Hasher::new();
        hash.update(&MAGIC);
        let mut piece = |length: usize| -> Result<Vec<u8>, CodecError> {
            if from.fill(length)? < length {
                return Err(CodecError::CutOff);
            }
            let bytes = from.take(length);
            hash.update(&bytes);
            Ok(bytes)
        };
        let version = piece(2)?;
        let version = u16::from_le_bytes([version[0], version[1]]);
        let length = piece(4)?;
        let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]);
        if length > MOST_HEADER {
            // A later version may say so too, but a flipped bit is likelier where the version is ours.
            return Err(match version {
                1..=VERSION => CodecError::Header(format!("says that it has {length} bytes")),
                found => CodecError::Version { found, known: VERSION },
            });
        }
        let text = piece(length as usize)?;
        let told = hash.finalize();
        if from.fill(4)? < 4 {
            return Err(CodecError::CutOff);
        }
        let crc = from.take(4);
        if crc != told.to_le_bytes() {
            return Err(CodecError::Header("has another checksum than it should".to_owned()));
        }
        if !(1..=VERSION).contains(&version) {
            return Err(CodecError::Version { found: version, known: VERSION });
        }
        let mut json = Vec::new();
        let most = u64::from(MOST_HEADER) + 1;
        let inflated = DeflateDecoder::new(text.as_slice()).take(most).read_to_end(&mut json);
        let inflated = inflated.map_err(|error| error.to_string()).and_then(|length| {
            let fits = (length as u64) < most;
            fits.then_some(()).ok_or_else(|| format!("more than {MOST_HEADER} bytes"))
        });
        inflated.map_err(|error| CodecError::Header(format!("is not understood ({error})")))?;
        let header: Header = serde_json::from_slice(&json)
            .map_err(|error| CodecError::Header(format!("is not understood ({error})")))?;
        header.validate()?;
        if header.version() > version {
            let problem = format!("tells of a stream, which version {version} does not have");
            return Err(CodecError::Header(problem));
        }
        let (positions, samples) = (header.positions(), header.num_samples());
        Ok(Self { from, header, positions, samples, next: 0, ended: false, frames: None })
    }

    /// What the file says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Frames of a stream whose header did not know them; known at [`Next::End`].
    pub fn frames(&self) -> Option<u64> {
        self.frames
    }

    /// The next block, or what is lost before it. After [`Next::End`] there is nothing but it.
    ///
    /// # Errors
    ///
    /// [`CodecError::BadInput`] if the tables are not those that the header names; [`CodecError::Io`].
    pub fn next(&mut self, tables: &Tables) -> Result<Next, CodecError> {
        check_tables(&self.header, tables)?;
        let positions = self.positions.clone();
        self.next_by(&mut |payload, samples| coder::decode(payload, samples, &positions, tables))
    }

    /// The same with somebody else who decodes.
    ///
    /// # Errors
    ///
    /// [`CodecError::Io`].
    pub fn next_by(&mut self, decode: DecodeBlock<'_>) -> Result<Next, CodecError> {
        if self.ended {
            return Ok(Next::End);
        }
        let Some(head) = self.find()? else {
            self.ended = true;
            return Ok(self.lost_from_here());
        };
        if head.samples == 0 {
            self.ended = true;
            self.frames = self.said(&head)?;
            let tells_less = self.header.stream && self.header.is_open() && self.frames.is_none();
            return Ok(match head.first > self.next || tells_less {
                true => self.lost_until(head.first),
                false => Next::End,
            });
        }
        if head.first > self.next {
            // Found again behind what is damaged: the block itself comes with the next call.
            self.from.back(&head.to_bytes());
            return Ok(self.lost_until(head.first));
        }
        let bytes = head.bytes as usize;
        let found = self.from.fill(bytes)?;
        if found >= bytes {
            let payload = self.from.take(bytes);
            let codes = (crc32fast::hash(&payload) == head.crc_of_bytes)
                .then(|| decode(&payload, head.samples as usize))
                .flatten()
                .filter(|codes| crc_of_codes(codes) == head.crc_of_codes);
            self.next = head.first + u64::from(head.samples);
            return Ok(match codes {
                Some(codes) => Next::Block { first: head.first, codes },
                None => Next::Lost { first: head.first, num: Some(u64::from(head.samples)) },
            });
        }
        self.ended = true;
        Ok(self.lost_from_here())
    }

    /// What the end says of frames.
    fn said(&mut self, head: &BlockHead) -> Result<Option<u64>, CodecError> {
        const LENGTH: usize = 8;
        if head.bytes as usize != LENGTH || self.from.fill(LENGTH)? < LENGTH {
            return Ok(None);
        }
        let said = self.from.take(LENGTH);
        let is_whole = crc32fast::hash(&said) == head.crc_of_bytes;
        Ok(is_whole.then(|| u64::from_le_bytes(said.try_into().expect("eight bytes"))))
    }

    /// The head of the next block whose own checksum is right and which lies where one may lie.
    fn find(&mut self) -> Result<Option<BlockHead>, CodecError> {
        loop {
            if self.from.fill(BLOCK_HEAD)? < BLOCK_HEAD {
                return Ok(None);
            }
            if let Some(head) =
                BlockHead::of_bytes(self.from.see(BLOCK_HEAD)).filter(|head| self.may_be_next(head))
            {
                self.from.take(BLOCK_HEAD);
                return Ok(Some(head));
            }
            self.from.skip_to(MARK[0]);
        }
    }

    /// Whether a block like this can come now; its lengths are bounded then.
    fn may_be_next(&self, head: &BlockHead) -> bool {
        let end = head.first.checked_add(u64::from(head.samples));
        let within = end.is_some_and(|end| self.samples.is_none_or(|num| end <= num));
        let most_bytes = u64::from(head.samples) * self.header.codes_of_a_sample() * 4 + 16;
        let samples = u64::from(head.samples) <= most_samples(&self.header);
        head.first >= self.next && within && samples && u64::from(head.bytes) <= most_bytes
    }

    fn lost_until(&mut self, first: u64) -> Next {
        let lost = Next::Lost { first: self.next, num: Some(first - self.next) };
        self.next = first;
        lost
    }

    /// All that should come and does not: a file without its end was cut off, even where every sample came.
    fn lost_from_here(&self) -> Next {
        let num = self.samples.map(|num| num - self.next);
        Next::Lost { first: self.next, num }
    }
}

/// The head of a block.
#[derive(Debug, Clone, Copy)]
struct BlockHead {
    first: u64,
    samples: u32,
    bytes: u32,
    crc_of_codes: u32,
    crc_of_bytes: u32,
}

impl BlockHead {
    fn to_bytes(self) -> [u8; BLOCK_HEAD] {
        let mut bytes = [0; BLOCK_HEAD];
        bytes[..4].copy_from_slice(&MARK);
        bytes[4..12].copy_from_slice(&self.first.to_le_bytes());
        for (number, value) in
            [self.samples, self.bytes, self.crc_of_codes, self.crc_of_bytes].into_iter().enumerate()
        {
            bytes[12 + 4 * number..16 + 4 * number].copy_from_slice(&value.to_le_bytes());
        }
        let crc = crc32fast::hash(&bytes[..28]);
        bytes[28..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// `None` if the mark or the checksum is another.
    fn of_bytes(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        if bytes[..4] != MARK || crc32fast::hash(&bytes[..28]) != number(28) {
            return None;
        }
        Some(Self {
            first: u64::from(number(4)) | u64::from(number(8)) << 32,
            samples: number(12),
            bytes: number(16),
            crc_of_codes: number(20),
            crc_of_bytes: number(24),
        })
    }
}

fn crc_of_codes(codes: &[u32]) -> u32 {
    let mut hash = crc32fast::Hasher::new();
    codes.iter().for_each(|code| hash.update(&code.to_le_bytes()));
    hash.finalize()
}

/// Most samples of a block: as many as have 2^22 codes, and at least one.
fn most_samples(header: &Header) -> u64 {
    (MOST_CODES_OF_A_BLOCK / header.codes_of_a_sample()).max(1)
}

/// Whether tables are those of the header, for levels like its.
fn check_tables(header: &Header, tables: &Tables) -> Result<(), CodecError> {
    let levels = tables.levels();
    let fit = levels.len() >= header.levels.len()
        && header.levels.iter().zip(levels).all(|(shape, table)| {
            let positions = table.num_positions();
            table.num_codes() == shape.num_codes
                && (positions == 1 || positions == shape.positions as usize)
        });
    if fit && tables.id() == header.tables {
        return Ok(());
    }
    Err(CodecError::BadInput(
        "the codes were coded with other tables than this model has: decompress with the model that compressed".to_owned(),
    ))
}
