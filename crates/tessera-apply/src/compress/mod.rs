//! Files to compressed files and back.
//!
//! Codes are made in the [tiles](crate::tile) that every model in use runs on, so that what comes out of a compressed file is, bit for
//! bit, what an evaluation makes of the same samples. Ranks share the tiles; rank 0 codes and writes. The file is that of
//! `tessera-codec`: blocks of whole samples, which are checked and decoded alone.

mod blend;
mod codes;
mod expand;
pub(crate) mod given;
pub(crate) mod grid;
mod model;
mod out;
mod reconstruct;
mod stream;
mod tables;
mod writer;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;
use tessera_codec::{CodecError, Header, LevelShape, Tables, coder};
use tessera_comm::{Communicator, all_gather_bytes};
use tessera_control::Phase;
use tessera_model::{OpenModel, read_tables};

pub(crate) use self::expand::bytes_of;
pub use self::expand::{DecompressOptions, Decompressed, Lost, decompress};
use self::given::Given;
pub use self::given::Stream;
pub use self::model::PriorCoder;
pub(crate) use self::reconstruct::psnr;
pub use self::reconstruct::{ReconstructOptions, Reconstructed, reconstruct};
use self::stream::Pieces;
pub use self::tables::{Counted, CountedLevel, TablesOptions, count_tables};
pub(crate) use self::writer::partial_of;
use self::writer::{BlockWriter, OutFile, Written};
use crate::agreement::agree_on;
use crate::error::ApplyError;
use crate::input::codes_of;
use crate::tile;
use crate::watch::Watch;

/// Codes that a block has at least, where there are as many: its head is a thousandth of it then.
pub(crate) const CODES_OF_A_BLOCK: u64 = 1 << 15;

/// What is compressed, and into what.
#[derive(Debug, Clone, PartialEq)]
pub struct CompressOptions {
    /// A file, or all files of the model's kind below a folder.
    pub input: Stream,
    /// The compressed file.
    pub out: Stream,
    /// Levels of a residual quantiser that are kept, from 1 on; none: all. Fewer are a lower rate.
    pub levels: Option<usize>,
    /// Whether each sound is one stream.
    pub stream: Option<StreamOptions>,
    /// Whether files that cannot be read are left out.
    pub skips: bool,
    /// Whether a file that is there is replaced.
    pub force: bool,
}

/// Sound as one stream: a code is made, and heard, with all that came before it, instead of window by window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StreamOptions {
    /// Seconds of sound that are coded at a time, and of a compressed file each in a block of its own that is handed on at once. None: a
    /// sixteenth of the model's window, in blocks of many. Whole hops, at least what the network needs to begin, at most a window.
    pub latency: Option<f64>,
}

/// What was compressed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Compressed {
    /// The compressed file; none where it went to standard output.
    pub path: Option<PathBuf>,
    /// Files in it.
    pub num_files: usize,
    /// Samples that they were cut into.
    pub num_samples: u64,
    /// Codes.
    pub num_codes: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Those of coded codes alone.
    pub payload: u64,
    /// Bits that a code takes in them.
    pub bits_per_code: f64,
    /// Bytes of what was compressed, once it is decoded.
    pub raw_bytes: u64,
    /// Bytes of the files that were compressed; none of what came through a pipe.
    pub stored_bytes: Option<u64>,
    /// Whether the model has tables of its codes; without, each takes the logarithm of their number.
    pub has_tables: bool,
    /// Seconds that the work took, and of them entropy coding and writing.
    pub seconds: f64,
    /// Seconds of coding and writing.
    pub coding_seconds: f64,
}

/// What a model's codes may be coded with.
#[derive(Debug)]
pub struct Coding {
    tables: Tables,
    /// One table for all positions of each level, as streams need them.
    over_positions: Tables,
    uniform: Tables,
    has_tables: bool,
    prior: Option<PriorCoder>,
}

impl Coding {
    /// Those in `folder`, where they are this model's, and those that need no counting.
    ///
    /// # Errors
    ///
    /// [`ApplyError::Model`] where they are damaged.
    pub fn of(model: &OpenModel, folder: &Path) -> Result<Self, ApplyError> {
        let levels = model.file.autoencoder().code_levels();
        let uniform = uniform(&levels)?;
        let counted = read_tables(folder, &model.file)?;
        let has_tables = counted.is_some();
        let tables = counted.unwrap_or_else(|| uniform.clone());
        let over_positions = tables.over_positions();
        Ok(Self { tables, over_positions, uniform, has_tables, prior: None })
    }

    /// The same by a prior.
    #[must_use]
    pub fn by(self, prior: PriorCoder) -> Self {
        Self { prior: Some(prior), ..self }
    }

    /// The tables of this name, if they are known.
    fn named(&self, id: &str) -> Option<&Tables> {
        [&self.tables, &self.over_positions, &self.uniform]
            .into_iter()
            .find(|tables| tables.id() == id)
    }
}

/// Tables of codes that all come as often.
pub(crate) fn uniform(levels: &[LevelShape]) -> Result<Tables, ApplyError> {
    let num_codes: Vec<u32> = levels.iter().map(|level| level.num_codes).collect();
    Ok(Tables::uniform(&num_codes)?)
}

/// The levels of codes that a file of this model has, if it keeps so many of a residual quantiser.
fn kept_levels(model: &OpenModel, levels: Option<usize>) -> Result<Vec<LevelShape>, ApplyError> {
    let mut shapes = model.file.autoencoder().code_levels();
    let Some(num) = levels else { return Ok(shapes) };
    model.vqvae.check_levels(levels).map_err(ApplyError::BadInput)?;
    let is_one_residual = match model.vqvae.quantizers.as_slice() {
        [quantizer] => quantizer.num_residual_levels() == shapes.len(),
        _ => false,
    };
    if !is_one_residual {
        let problem = "--levels leaves out levels of one residual quantiser: this model has several quantisers";
        return Err(ApplyError::BadInput(problem.to_owned()));
    }
    shapes.truncate(num);
    Ok(shapes)
}

/// Compresses. Collective: ranks share the samples.
///
/// # Errors
///
/// [`ApplyError`]; there is no file then that was not there before.
pub fn compress(
    comm: &dyn Communicator,
    model: &OpenModel,
    coding: &Coding,
    options: &CompressOptions,
    watch: &Watch<'_>,
) -> Result<Compressed, ApplyError> {
    let begun = Instant::now();
    let checked = agree_on(comm, check(comm, model, coding, options))?;
    let (levels, pieces) = checked;
    watch.activity.enter(Phase::Evaluate);
    let input = (&options.input, pieces);
    let mut given = Given::open(comm, model, input, options.skips, watch)?;
    let tables = if pieces.is_some() { &coding.over_positions } else { &coding.tables };
    let header = Header {
        model: model.file.hash.clone(),
        tables: tables.id().to_owned(),
        prior: coding.prior.as_ref().map(PriorCoder::named),
        stream: pieces.is_some(),
        entries: given.files.iter().map(|file| file.place.clone()).collect(),
        levels,
    };
    let codes_of_a_sample = header.codes_of_a_sample();
    let out = match comm.rank() {
        0 => OutFile::create(&options.out, options.force).map(Some),
        _ => Ok(None),
    };
    let mut out = agree_on(comm, out)?;
    let is_live = options.stream.is_some_and(|stream| stream.latency.is_some());
    let work = Work { model, coding, levels: header.levels.clone(), pieces, watch };
    let writer = out.as_mut().map(|out| BlockWriter::begin(out, header, tables, is_live));
    let written = work.write(comm, &mut given, agree_on(comm, writer.transpose())?);
    let finished = written.and_then(|written| {
        let named = out.take().map_or(Ok(()), OutFile::finish);
        agree_on(comm, named)?;
        Ok(written)
    });
    let written = finished?;
    let num_codes = written.samples * codes_of_a_sample;
    let frame_bytes = 2 * u64::from(model.file.autoencoder().shape.channels);
    Ok(Compressed {
        path: options.out.path(),
        num_files: given.files.len(),
        num_samples: written.samples,
        num_codes,
        bytes: written.bytes,
        payload: written.payload,
        bits_per_code: 8.0 * written.payload as f64 / num_codes as f64,
        raw_bytes: written.frames.map_or(given.num_bytes(), |frames| frames * frame_bytes),
        stored_bytes: given.num_stored(),
        has_tables: coding.has_tables || coding.prior.is_some(),
        seconds: begun.elapsed().as_secs_f64(),
        coding_seconds: written.coding_seconds,
    })
}

/// The levels of codes that the file has, and what its streams are cut into.
fn check(
    comm: &dyn Communicator,
    model: &OpenModel,
    coding: &Coding,
    options: &CompressOptions,
) -> Result<(Vec<LevelShape>, Option<Pieces>), ApplyError> {
    let CompressOptions { input, out, levels, stream, .. } = options;
    refuse_pipes(comm, input, out)?;
    if let (Stream::Path(input), Stream::Path(out)) = (input, out)
        && out.starts_with(input)
    {
        let problem =
            format!("{} lies in what is compressed: name a file elsewhere", out.display());
        return Err(ApplyError::BadInput(problem));
    }
    let refused = |problem: &str| Err(ApplyError::BadInput(problem.to_owned()));
    match (&coding.prior, levels, stream) {
        (Some(_), Some(_), _) => {
            return refused(
                "a prior expects the codes of all levels: leave out --levels, or --prior",
            );
        }
        (Some(_), _, Some(_)) => {
            return refused("a prior expects windows of the model: leave out --stream, or --prior");
        }
        _ => {}
    }
    let levels = kept_levels(model, *levels)?;
    let Some(stream) = stream else { return Ok((levels, None)) };
    let pieces = Pieces::of(model, stream.latency)?;
    Ok((pieces.levels(levels), Some(pieces)))
}

/// Refuses streams that only one process can have.
fn refuse_pipes(comm: &dyn Communicator, input: &Stream, out: &Stream) -> Result<(), ApplyError> {
    if comm.world_size() > 1 && [input, out].contains(&&Stream::Pipe) {
        let problem =
            "several ranks cannot share standard input or output: name files, or start one process";
        return Err(ApplyError::BadInput(problem.to_owned()));
    }
    Ok(())
}

/// What a process codes with.
struct Work<'a> {
    model: &'a OpenModel,
    coding: &'a Coding,
    levels: Vec<LevelShape>,
    /// Of streams.
    pieces: Option<Pieces>,
    watch: &'a Watch<'a>,
}

impl Work<'_> {
    /// Codes all that is given, and gives what was written, the same on every rank. Collective.
    fn write(
        &self,
        comm: &dyn Communicator,
        given: &mut Given,
        mut writer: Option<BlockWriter<'_>>,
    ) -> Result<Written, ApplyError> {
        let frames = match self.pieces {
            Some(pieces) => {
                let work = (self.model, pieces, self.levels.as_slice());
                stream::encode_streams(comm, work, given, writer.as_mut(), self.watch)?
            }
            None => self.tiles(comm, given, writer.as_mut()).map(|()| None)?,
        };
        let mine = writer.map_or(Ok(Written::default()), |writer| writer.finish(frames));
        let mine = serde_json::to_vec(&agree_on(comm, mine)?).expect("it is plain data");
        let of_first = tessera_comm::broadcast_bytes(comm, &mine)?;
        Ok(serde_json::from_slice(&of_first).expect("rank 0 sends it"))
    }

    /// Codes all samples, tile by tile: those whose number is a rank's, modulo the number of ranks, are its own.
    fn tiles(
        &self,
        comm: &dyn Communicator,
        given: &mut Given,
        mut writer: Option<&mut BlockWriter<'_>>,
    ) -> Result<(), ApplyError> {
        let Self { model, coding, watch, .. } = self;
        let positions: Vec<u32> = self.levels.iter().map(|level| level.positions).collect();
        let (rank, world_size) = (comm.rank() as u64, comm.world_size() as u64);
        let (size, num) = (tile::size(&model.signal()) as u64, given.num_samples());
        let num_tiles = num.div_ceil(size);
        for round in 0..num_tiles.div_ceil(world_size) {
            let first = (round * world_size + rank) * size;
            let tile = first..num.min(first + size);
            let mine = watch.check().and_then(|()| codes(model, coding, given, tile, &positions));
            let (codes, payload) = agree_on(comm, mine)?;
            let all = all_gather_bytes(comm, &codes)?;
            let payloads = match &coding.prior {
                Some(_) => all_gather_bytes(comm, &payload)?,
                None => Vec::new(),
            };
            let added = writer.as_mut().map_or(Ok(()), |writer| match &coding.prior {
                Some(_) => all
                    .iter()
                    .zip(&payloads)
                    .try_for_each(|(codes, payload)| writer.add_coded(&numbers(codes), payload)),
                None => writer.add(&numbers(&all.concat())),
            });
            agree_on(comm, added)?;
            watch.activity.part_done();
        }
        Ok(())
    }
}

fn numbers(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|quad| u32::from_le_bytes(*quad)).collect()
}

/// The codes of these samples in the order of a stream, four bytes each, and what a prior makes of them; none where there is no
/// such sample.
fn codes(
    model: &OpenModel,
    coding: &Coding,
    given: &mut Given,
    samples: std::ops::Range<u64>,
    positions: &[u32],
) -> Result<(Vec<u8>, Vec<u8>), ApplyError> {
    if samples.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let bytes = given.read(samples.clone())?;
    let kept = positions.iter().sum::<u32>() as usize;
    let of_samples = codes_of(model, &bytes, samples.start)?;
    let payload = match &coding.prior {
        Some(prior) => prior.encode(&of_samples)?,
        None => Vec::new(),
    };
    let streams = of_samples.iter().flat_map(|codes| coder::interleaved(&codes[..kept], positions));
    Ok((streams.flat_map(u32::to_le_bytes).collect(), payload))
}

/// The samples of sound as it lies in memory.
pub(crate) fn sound_samples(bytes: &[u8]) -> Vec<i16> {
    bytes.as_chunks().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect()
}

/// What is said of a place that cannot be written to.
pub(crate) fn unwritable(path: &Path, error: &io::Error) -> ApplyError {
    ApplyError::BadInput(format!(
        "{} cannot be written ({error}): name a place that can",
        path.display()
    ))
}

impl From<CodecError> for ApplyError {
    fn from(error: CodecError) -> Self {
        use tessera_control::ExitCode;
        let code = match error {
            CodecError::BadInput(_) | CodecError::NotCompressed | CodecError::Version { .. } => {
                ExitCode::BadInput
            }
            CodecError::Header(_) | CodecError::CutOff => ExitCode::DataCorrupt,
            _ => ExitCode::Failed,
        };
        Self::Opened { code, message: error.to_string() }
    }
}
