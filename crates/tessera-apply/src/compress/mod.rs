//! Files to compressed files and back.
//!
//! Codes are made in the [tiles](crate::tile) that every model in use runs on, so that what comes out of a compressed file is, bit for
//! bit, what an evaluation makes of the same samples. Ranks share the tiles; rank 0 codes and writes. The file is that of
//! `tessera-codec`: blocks of whole samples, which are checked and decoded alone.

mod blend;
mod expand;
pub(crate) mod given;
pub(crate) mod grid;
mod model;
mod out;
mod reconstruct;
mod tables;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;
use tessera_codec::{CodecError, FileWriter, Header, LevelShape, Place, Tables, coder};
use tessera_comm::{Communicator, all_gather_bytes};
use tessera_control::Phase;
use tessera_model::{OpenModel, read_tables};

pub use self::expand::{DecompressOptions, Decompressed, Lost, decompress};
use self::given::Given;
pub use self::given::Stream;
pub use self::model::PriorCoder;
pub use self::reconstruct::{ReconstructOptions, Reconstructed, reconstruct};
pub use self::tables::{Counted, CountedLevel, TablesOptions, count_tables};
use crate::agreement::agree_on;
use crate::error::ApplyError;
use crate::input::codes_of;
use crate::tile;
use crate::watch::Watch;

/// Codes that a block has at least, where there are as many: its head is a thousandth of it then.
pub(crate) const CODES_OF_A_BLOCK: u64 = 1 << 15;

/// What is compressed, and into what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompressOptions {
    /// A file, or all files of the model's kind below a folder.
    pub input: Stream,
    /// The compressed file.
    pub out: Stream,
    /// Levels of a residual quantiser that are kept, from 1 on; none: all. Fewer are a lower rate.
    pub levels: Option<usize>,
    /// Whether files that cannot be read are left out.
    pub skips: bool,
    /// Whether a file that is there is replaced.
    pub force: bool,
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
        Ok(Self { tables, uniform, has_tables, prior: None })
    }

    /// The same by a prior.
    #[must_use]
    pub fn by(self, prior: PriorCoder) -> Self {
        Self { prior: Some(prior), ..self }
    }

    /// The tables of this name, if they are known.
    fn named(&self, id: &str) -> Option<&Tables> {
        [&self.tables, &self.uniform].into_iter().find(|tables| tables.id() == id)
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
    let checked = check(comm, model, options);
    let levels = checked.and_then(|levels| match (&coding.prior, options.levels) {
        (Some(_), Some(_)) => {
            let problem = "a prior expects the codes of all levels: leave out --levels, or --prior";
            Err(ApplyError::BadInput(problem.to_owned()))
        }
        _ => Ok(levels),
    });
    let levels = agree_on(comm, levels)?;
    watch.activity.enter(Phase::Evaluate);
    let mut given = Given::open(comm, model, &options.input, options.skips, watch)?;
    let entries = given.files.iter().map(|file| file.place.clone()).collect();
    let header = header(model, coding, &levels, entries);
    let out = match comm.rank() {
        0 => OutFile::create(&options.out, options.force).map(Some),
        _ => Ok(None),
    };
    let mut out = agree_on(comm, out)?;
    let written = write(comm, (model, coding, &levels), (&mut given, header), out.as_mut(), watch);
    let finished = written.and_then(|written| {
        let named = out.take().map_or(Ok(()), OutFile::finish);
        agree_on(comm, named)?;
        Ok(written)
    });
    let written = finished?;
    let num_codes = given.num_samples() * written.codes_of_a_sample;
    Ok(Compressed {
        path: options.out.path(),
        num_files: given.files.len(),
        num_samples: given.num_samples(),
        num_codes,
        bytes: written.bytes,
        payload: written.payload,
        bits_per_code: 8.0 * written.payload as f64 / num_codes as f64,
        raw_bytes: given.num_bytes(),
        stored_bytes: given.num_stored(),
        has_tables: coding.has_tables || coding.prior.is_some(),
        seconds: begun.elapsed().as_secs_f64(),
        coding_seconds: written.coding_seconds,
    })
}

fn check(
    comm: &dyn Communicator,
    model: &OpenModel,
    options: &CompressOptions,
) -> Result<Vec<LevelShape>, ApplyError> {
    let CompressOptions { input, out, levels, .. } = options;
    refuse_pipes(comm, input, out)?;
    if let (Stream::Path(input), Stream::Path(out)) = (input, out)
        && out.starts_with(input)
    {
        let problem =
            format!("{} lies in what is compressed: name a file elsewhere", out.display());
        return Err(ApplyError::BadInput(problem));
    }
    kept_levels(model, *levels)
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

fn header(
    model: &OpenModel,
    coding: &Coding,
    levels: &[LevelShape],
    entries: Vec<Place>,
) -> Header {
    Header {
        model: model.file.hash.clone(),
        tables: coding.tables.id().to_owned(),
        prior: coding.prior.as_ref().map(PriorCoder::named),
        levels: levels.to_vec(),
        entries,
    }
}

/// What was written; the same on every rank.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
struct Written {
    bytes: u64,
    payload: u64,
    codes_of_a_sample: u64,
    coding_seconds: f64,
}

/// Codes all samples, tile by tile: those whose number is a rank's, modulo the number of ranks, are its own.
fn write(
    comm: &dyn Communicator,
    (model, coding, levels): (&OpenModel, &Coding, &[LevelShape]),
    (given, header): (&mut Given, Header),
    out: Option<&mut OutFile>,
    watch: &Watch<'_>,
) -> Result<Written, ApplyError> {
    let positions: Vec<u32> = levels.iter().map(|level| level.positions).collect();
    let codes_of_a_sample = header.codes_of_a_sample();
    let coder = out.map(|out| Coder::begin(&mut out.to, header, &coding.tables)).transpose();
    let mut coder = agree_on(comm, coder)?;
    let (rank, world_size) = (comm.rank() as u64, comm.world_size() as u64);
    let (size, num) = (tile::size(&model.signal()) as u64, given.num_samples());
    let num_tiles = num.div_ceil(size);
    for round in 0..num_tiles.div_ceil(world_size) {
        let first = (round * world_size + rank) * size;
        let mine = watch
            .check()
            .and_then(|()| codes(model, coding, given, first..num.min(first + size), &positions));
        let (codes, payload) = agree_on(comm, mine)?;
        let all = all_gather_bytes(comm, &codes)?;
        let payloads = match &coding.prior {
            Some(_) => all_gather_bytes(comm, &payload)?,
            None => Vec::new(),
        };
        let added = coder.as_mut().map_or(Ok(()), |coder| match &coding.prior {
            Some(_) => all
                .iter()
                .zip(&payloads)
                .try_for_each(|(codes, payload)| coder.add_coded(&numbers(codes), payload)),
            None => coder.add(&numbers(&all.concat())),
        });
        agree_on(comm, added)?;
        watch.activity.part_done();
    }
    let mine = match coder {
        Some(coder) => coder.finish().map(|written| Written { codes_of_a_sample, ..written }),
        None => Ok(Written::default()),
    };
    let mine = serde_json::to_vec(&agree_on(comm, mine)?).expect("it is plain data");
    let of_first = tessera_comm::broadcast_bytes(comm, &mine)?;
    Ok(serde_json::from_slice(&of_first).expect("rank 0 sends it"))
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

/// Codes on their way into blocks.
struct Coder<'a> {
    writer: FileWriter<'a, &'a mut BufWriter<Box<dyn Write>>>,
    waiting: Vec<u32>,
    /// Codes of a block.
    block: usize,
    seconds: f64,
}

impl<'a> Coder<'a> {
    fn begin(
        to: &'a mut BufWriter<Box<dyn Write>>,
        header: Header,
        tables: &'a Tables,
    ) -> Result<Self, ApplyError> {
        let of_a_sample = header.codes_of_a_sample();
        let writer = FileWriter::new(to, header, tables)?;
        let samples = CODES_OF_A_BLOCK.div_ceil(of_a_sample).min(writer.most_samples() as u64);
        let block = (samples * of_a_sample) as usize;
        Ok(Self { writer, waiting: Vec::new(), block, seconds: 0.0 })
    }

    fn add(&mut self, codes: &[u32]) -> Result<(), ApplyError> {
        let begun = Instant::now();
        self.waiting.extend(codes);
        let whole = self.waiting.len() / self.block * self.block;
        for block in self.waiting[..whole].chunks_exact(self.block) {
            self.writer.block(block)?;
        }
        self.waiting.drain(..whole);
        self.seconds += begun.elapsed().as_secs_f64();
        Ok(())
    }

    /// Adds a block that is coded already; none where it has no samples.
    fn add_coded(&mut self, codes: &[u32], payload: &[u8]) -> Result<(), ApplyError> {
        match codes.is_empty() {
            true => Ok(()),
            false => Ok(self.writer.coded_block(codes, payload)?),
        }
    }

    fn finish(mut self) -> Result<Written, ApplyError> {
        let begun = Instant::now();
        if !self.waiting.is_empty() {
            self.writer.block(&self.waiting)?;
        }
        let written = self.writer.finish()?;
        Ok(Written {
            bytes: written.bytes,
            payload: written.payload,
            codes_of_a_sample: 0,
            coding_seconds: self.seconds + begun.elapsed().as_secs_f64(),
        })
    }
}

/// A file in the making: it has its name when it is whole, and is gone when it never is.
struct OutFile {
    to: BufWriter<Box<dyn Write>>,
    /// The name that it has, and the one that it gets; none of standard output.
    names: Option<(PathBuf, PathBuf)>,
}

impl OutFile {
    fn create(out: &Stream, force: bool) -> Result<Self, ApplyError> {
        let Stream::Path(path) = out else {
            return Ok(Self { to: BufWriter::new(Box::new(io::stdout())), names: None });
        };
        check_free(path, force)?;
        let partial = partial_of(path);
        let file = File::create(&partial).map_err(|error| unwritable(path, &error))?;
        let names = Some((partial, path.clone()));
        Ok(Self { to: BufWriter::new(Box::new(file)), names })
    }

    fn finish(mut self) -> Result<(), ApplyError> {
        let told = self.names.as_ref().map_or(Path::new("standard output"), |(_, path)| path);
        self.to.flush().map_err(ApplyError::file("write", told))?;
        match self.names.take() {
            Some((partial, path)) => {
                fs::rename(&partial, &path).map_err(ApplyError::file("rename", &partial))
            }
            None => Ok(()),
        }
    }
}

impl Drop for OutFile {
    fn drop(&mut self) {
        if let Some((partial, _)) = &self.names {
            // What cannot be removed is what an error has told of already.
            let _ = fs::remove_file(partial);
        }
    }
}

/// Refuses to write over what is there.
fn check_free(path: &Path, force: bool) -> Result<(), ApplyError> {
    if path.is_dir() {
        let problem = format!("{} is a folder: name a file that is to be written", path.display());
        return Err(ApplyError::BadInput(problem));
    }
    match path.exists() && !force {
        true => Err(ApplyError::BadInput(format!(
            "{} is there already: name another file, or give --force to replace it",
            path.display()
        ))),
        false => Ok(()),
    }
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

/// A name beside a path for what is not whole yet.
fn partial_of(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".partial");
    path.with_file_name(name)
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
