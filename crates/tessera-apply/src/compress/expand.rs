//! A compressed file back to pictures, sounds and films.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;
use tch::{Kind, Tensor};
use tessera_codec::{FileReader, Header, Media, Place};
use tessera_comm::Communicator;
use tessera_control::{ExitCode, Phase};
use tessera_data::Modality;
use tessera_model::OpenModel;

use super::codes::Codes;
use super::given::{Stream, shape_of};
use super::grid::Grid;
use super::out::{Out, OutEntry, names};
use super::stream::{Pieces, decode_streams};
use super::{Coding, refuse_pipes};
use crate::agreement::agree_on;
use crate::decode::{shortened, shown_with};
use crate::error::ApplyError;
use crate::tile;
use crate::watch::Watch;

/// The gray that stands where pictures and film are lost; lost sound is silent.
const GRAY: u8 = 128;

/// Most bytes of what is put together in memory: a picture, a clip of film, a window of sound.
const MOST_BYTES: u64 = 1 << 30;

/// What is decompressed, and into what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecompressOptions {
    /// The compressed file.
    pub input: Stream,
    /// A file, where one was compressed; a folder, where one was.
    pub out: Stream,
    /// Whether a damaged file gives what is whole in it.
    pub salvage: bool,
    /// Whether what is there is replaced.
    pub force: bool,
}

/// What was decompressed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decompressed {
    /// What was written; none where it went to standard output.
    pub path: Option<PathBuf>,
    /// Files.
    pub num_files: usize,
    /// Samples that they were made of.
    pub num_samples: u64,
    /// Samples that damage has cost: gray, or silent.
    pub lost: Vec<Lost>,
    /// Seconds that the work took, and of them reading and entropy decoding.
    pub seconds: f64,
    /// Seconds of reading and decoding.
    pub coding_seconds: f64,
}

/// Samples that damage has cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Lost {
    /// Number of the first.
    pub first: u64,
    /// How many.
    pub num: u64,
    /// The files that they are in.
    pub files: Vec<String>,
}

/// Decompresses. Collective: ranks share the files that come out.
///
/// # Errors
///
/// [`ApplyError`]; nothing is there then that was not there before.
pub fn decompress(
    comm: &dyn Communicator,
    model: &OpenModel,
    coding: &Coding,
    options: &DecompressOptions,
    watch: &Watch<'_>,
) -> Result<Decompressed, ApplyError> {
    let begun = Instant::now();
    let opened = agree_on(comm, Opened::open(comm, model, coding, options))?;
    watch.activity.enter(Phase::Evaluate);
    let Opened { reader, files, pieces, out } = opened;
    let prepared = match comm.rank() {
        0 => out.prepare(),
        _ => Ok(()),
    };
    agree_on(comm, prepared)?;
    let (num_files, mut codes) = (files.len(), reader);
    let work = Work { model, files: &files, out: &out, share: (comm.rank(), comm.world_size()) };
    let done = match pieces {
        Some(pieces) => decode_streams(&work, pieces, &mut codes, options.salvage, watch),
        None => work.all(&mut codes, options.salvage, watch),
    };
    let done = agree_on(comm, done).and_then(|()| {
        let named = if comm.rank() == 0 { out.finish() } else { Ok(()) };
        agree_on(comm, named)
    });
    if done.is_err() && comm.rank() == 0 {
        out.discard();
    }
    done?;
    Ok(Decompressed {
        path: options.out.path(),
        num_files,
        num_samples: codes.next,
        lost: codes.lost.iter().map(|lost| told(lost, &files)).collect(),
        seconds: begun.elapsed().as_secs_f64(),
        coding_seconds: codes.seconds,
    })
}

/// What is open before anything is written.
struct Opened<'a> {
    reader: Codes<'a>,
    files: Vec<OutFile>,
    /// Of streams.
    pieces: Option<Pieces>,
    out: Out,
}

/// A file that comes out.
pub(super) struct OutFile {
    pub(super) name: String,
    pub(super) media: Media,
    grid: Grid,
    pub(super) samples: Range<u64>,
}

impl OutFile {
    /// Frames of a sound, where they are known.
    pub(super) fn frames(&self) -> Option<u64> {
        match self.media {
            Media::Audio { frames, .. } => frames,
            _ => None,
        }
    }
}

impl<'a> Opened<'a> {
    fn open(
        comm: &dyn Communicator,
        model: &OpenModel,
        coding: &'a Coding,
        options: &DecompressOptions,
    ) -> Result<Self, ApplyError> {
        let DecompressOptions { input, out, force, .. } = options;
        refuse_pipes(comm, input, out)?;
        let from: Box<dyn Read> = match input {
            Stream::Pipe => Box::new(io::stdin()),
            Stream::Path(path) => Box::new(File::open(path).map_err(|error| {
                let problem = format!("{} cannot be read ({error})", path.display());
                ApplyError::BadInput(problem)
            })?),
        };
        let reader = FileReader::open(from)?;
        let pieces = check_model(model, reader.header())?;
        let prior = match (&reader.header().prior, &coding.prior) {
            (None, _) => None,
            (Some(file), Some(prior)) => {
                prior.check(file)?;
                Some(prior)
            }
            (Some(file), None) => {
                return Err(ApplyError::BadInput(format!(
                    "this file was coded by the prior {}: name it with --prior",
                    shortened(&file.prior)
                )));
            }
        };
        let id = &reader.header().tables;
        let named = coding.named(id).or(prior.map(|_| &coding.uniform));
        let tables = named.ok_or_else(|| {
            ApplyError::BadInput(format!(
                "the codes of this file were coded with the tables {}, this model has {}: decompress it with the model \
                 folder that compressed it",
                shortened(id),
                shortened(coding.tables.id())
            ))
        })?;
        let files = files_of(model, pieces, reader.header())?;
        let is_alone =
            matches!(reader.header().entries.as_slice(), [entry] if entry.name.is_empty());
        let out = Out::of(out, is_alone.then(|| files[0].media), *force)?;
        Ok(Self { reader: Codes::new(reader, tables, prior), files, pieces, out })
    }
}

/// Refuses codes that this model has not made; what streams are cut into.
fn check_model(model: &OpenModel, header: &Header) -> Result<Option<Pieces>, ApplyError> {
    let (theirs, ours) = (&header.model, &model.file.hash);
    if theirs != ours {
        let [theirs, ours] = [theirs, ours].map(|hash| shortened(hash));
        return Err(ApplyError::BadInput(format!(
            "this file was compressed with the model {theirs}, this one is {ours}: decompress it with that model"
        )));
    }
    if header.stream {
        return Pieces::of_header(model, header).map(Some).map_err(|problem| wrong(&problem));
    }
    let levels = model.file.autoencoder().code_levels();
    match levels.starts_with(&header.levels) {
        true => Ok(None),
        false => Err(wrong("tells of other levels of codes than its model has")),
    }
}

/// What is said of a header that cannot be.
fn wrong(problem: &str) -> ApplyError {
    ApplyError::Opened {
        code: ExitCode::DataCorrupt,
        message: format!(
            "the header of this compressed file {problem}: the file was made by no `tessera compress`"
        ),
    }
}

/// The files of a header, with the samples that they are made of.
fn files_of(
    model: &OpenModel,
    pieces: Option<Pieces>,
    header: &Header,
) -> Result<Vec<OutFile>, ApplyError> {
    let sample = pieces.map_or(model.file.autoencoder().shape, |pieces| pieces.shape(model));
    let (names, mut next) = (names(&header.entries), 0u64);
    let mut files = Vec::new();
    for (Place { name: told, media, samples }, name) in header.entries.iter().zip(names) {
        let native = shape_of(media);
        let is_alike = native.modality == sample.modality
            && native.channels == sample.channels
            && native.sample_rate == sample.sample_rate;
        if !is_alike || native.frames == 0 {
            return Err(wrong(&format!(
                "tells of {native} in {told:?}, samples of its model are {sample}"
            )));
        }
        let grid = Grid::new(native, sample);
        let is_open = pieces.is_some() && matches!(media, Media::Audio { frames: None, .. });
        let num = (!is_open).then(|| grid.num_samples());
        if *samples != num {
            let found = samples.map_or("an unknown number of".to_owned(), |num| num.to_string());
            return Err(wrong(&format!(
                "tells of {found} samples of {told:?}, {} make it",
                grid.num_samples()
            )));
        }
        let of_clip = native.frames.min(sample.frames) as u64 * grid.frame_bytes() as u64;
        if of_clip > MOST_BYTES {
            return Err(wrong(&format!(
                "tells of {native} in {told:?}, more than {MOST_BYTES} bytes at a time"
            )));
        }
        let samples = next..num.map_or(u64::MAX, |num| next + num);
        next = samples.end;
        files.push(OutFile { name, media: *media, grid, samples });
    }
    Ok(files)
}

/// A rank's work.
pub(super) struct Work<'a> {
    pub(super) model: &'a OpenModel,
    pub(super) files: &'a [OutFile],
    pub(super) out: &'a Out,
    /// Rank and number of ranks.
    pub(super) share: (usize, usize),
}

impl Work<'_> {
    /// Writes this rank's files: those whose first sample is in one of its tiles.
    fn all(
        &self,
        codes: &mut Codes<'_>,
        salvage: bool,
        watch: &Watch<'_>,
    ) -> Result<(), ApplyError> {
        let num = self.files.last().map_or(0, |file| file.samples.end);
        let size = tile::size(&self.model.signal()) as u64;
        let is_mine = |file: &OutFile| {
            (file.samples.start / size) % self.share.1 as u64 == self.share.0 as u64
        };
        let mine: Vec<&OutFile> = self.files.iter().filter(|file| is_mine(file)).collect();
        let (mut next, mut open) = (0, None::<Making>);
        for first in (0..num).step_by(size as usize) {
            watch.check()?;
            let there = first..num.min(first + size);
            let of_tile = codes.take((there.end - there.start) as usize)?;
            if let (false, Some(lost)) = (salvage, codes.lost.first()) {
                return Err(damaged(lost, self.files));
            }
            let wanted = mine[next..].first().is_some_and(|file| file.samples.start < there.end);
            if !wanted {
                continue;
            }
            let raw = self.samples(&of_tile)?;
            let sample_bytes = self.model.file.autoencoder().shape.num_bytes();
            while let Some(file) = mine.get(next).filter(|file| file.samples.start < there.end) {
                let making = match &mut open {
                    Some(making) => making,
                    none => none.insert(Making::begin(file, self.out.path(&file.name).as_deref())?),
                };
                let ids = file.samples.start.max(there.start)..file.samples.end.min(there.end);
                for id in ids {
                    let at = (id - there.start) as usize * sample_bytes;
                    making.add(id - file.samples.start, &raw[at..at + sample_bytes])?;
                }
                if file.samples.end > there.end {
                    break;
                }
                open.take().expect("it is in the making").entry.finish()?;
                next += 1;
            }
            watch.activity.part_done();
        }
        match codes.end()? || salvage {
            true => Ok(()),
            false => Err(damaged(&(num..num), self.files)),
        }
    }

    /// The bytes of a tile's samples; gray or silent where they are lost.
    fn samples(&self, codes: &[Option<Vec<u32>>]) -> Result<Vec<u8>, ApplyError> {
        let file = self.model.file.autoencoder();
        let levels = file.code_levels();
        let whole = levels.iter().map(|level| level.positions as usize).sum();
        let complete = |codes: &Option<Vec<u32>>| {
            let mut codes = codes.clone().unwrap_or_default();
            codes.resize(whole, 0);
            codes
        };
        let all: Vec<Vec<u32>> = codes.iter().map(complete).collect();
        let kept = codes.iter().flatten().next().map(Vec::len).filter(|kept| *kept < whole);
        let num_levels = kept.map(|kept| kept / levels[0].positions as usize);
        let raw = shown_with(self.model, &all, num_levels).narrow(0, 0, codes.len() as i64);
        let mut bytes = bytes_of(&raw)?;
        let empty = if file.shape.modality == Modality::Audio { 0 } else { GRAY };
        let samples = bytes.chunks_exact_mut(file.shape.num_bytes());
        for (_, sample) in codes.iter().zip(samples).filter(|(codes, _)| codes.is_none()) {
            sample.fill(empty);
        }
        Ok(bytes)
    }
}

pub(crate) fn bytes_of(raw: &Tensor) -> Result<Vec<u8>, ApplyError> {
    Ok(Vec::<u8>::try_from(raw.contiguous().view([-1]).view_dtype(Kind::Uint8))?)
}

/// A file that is being put together.
struct Making {
    entry: OutEntry,
    grid: Grid,
    clip: Vec<u8>,
}

impl Making {
    fn begin(file: &OutFile, path: Option<&Path>) -> Result<Self, ApplyError> {
        let entry = OutEntry::create(path, &file.media)?;
        Ok(Self { entry, grid: file.grid, clip: Vec::new() })
    }

    /// Adds the sample of this number in the file; they come in order.
    fn add(&mut self, id: u64, sample: &[u8]) -> Result<(), ApplyError> {
        let (clip, tile) = (id / self.grid.per_clip(), id % self.grid.per_clip());
        let frames = self.grid.frames(clip);
        self.clip.resize((frames.end - frames.start) as usize * self.grid.frame_bytes(), 0);
        self.grid.put(sample, tile, &mut self.clip);
        match tile + 1 == self.grid.per_clip() {
            true => self.entry.add(&self.clip),
            false => Ok(()),
        }
    }
}

/// The files that samples are in.
fn told(lost: &Range<u64>, files: &[OutFile]) -> Lost {
    let is_hit = |file: &&OutFile| file.samples.start < lost.end && lost.start < file.samples.end;
    let files = files.iter().filter(is_hit).map(|file| file.name.clone()).collect();
    Lost { first: lost.start, num: lost.end - lost.start, files }
}

pub(super) fn damaged(lost: &Range<u64>, files: &[OutFile]) -> ApplyError {
    let Lost { num, files, .. } = told(lost, files);
    let of = match files.as_slice() {
        [] => String::new(),
        [name] => format!(" of {name}"),
        [name, .., last] => format!(" of {name} to {last}"),
    };
    let what = match num {
        0 => "is cut off behind its last sample".to_owned(),
        1 => format!("has lost one sample{of}"),
        num => format!("has lost {num} samples{of}, or more"),
    };
    ApplyError::Opened {
        code: ExitCode::DataCorrupt,
        message: format!(
            "the compressed file {what}: take another copy of it, or give --salvage for what is whole"
        ),
    }
}
