//! Tokens to samples: a file of each (PNG, WAV, animated PNG), pictures on one sheet, samples of any kind as one NumPy array.
//!
//! Tokens name the model that made them, and no other one decodes them. Samples go through the decoder in the tiles in
//! which they lie in their set, so what comes out is bit for bit what an evaluation on [tiles](crate::tile) makes.

mod array;
pub(crate) mod pictures;
mod tokens;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tch::{Device, Tensor};
use tessera_comm::Communicator;
use tessera_control::Phase;
use tessera_model::{Level, OpenModel};
use tessera_nn::to_device;

use self::array::Array;
pub(crate) use self::array::npy_header;
pub use self::tokens::TokenFile;
use crate::agreement::agree_on;
use crate::error::ApplyError;
use crate::tile;
use crate::watch::Watch;

/// Digits of a hash that tell one model from another.
const DIGITS: usize = 12;

/// As much of a hash as a person compares.
pub(crate) fn shortened(hash: &str) -> &str {
    hash.get(..DIGITS).unwrap_or(hash)
}

/// What is decoded, and into what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeOptions {
    /// A token set, or a safetensors file of codes.
    pub tokens: PathBuf,
    /// Which split of a token set.
    pub split: String,
    /// Numbers of samples in the data set that was encoded; empty: all.
    pub ids: Vec<u64>,
    /// Samples at most.
    pub limit: Option<u64>,
    /// Levels in a row of residual quantisers that take part, from 1 on; none: all. Fewer are a lower rate.
    pub levels: Option<usize>,
    /// Where samples go, and in which form.
    pub form: Form,
}

/// Where samples go, and in which form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// `NUMBER.png` for each picture in this folder, `NUMBER.wav` for each sound, `NUMBER.apng` for each film.
    Files(PathBuf),
    /// All as one NumPy array, `samples.npy` in this folder: bytes `[N, H, W, C]` of pictures, `[N, T, H, W, C]` of film,
    /// int16 `[N, T, C]` of sound.
    Array(PathBuf),
    /// All on one sheet, this PNG file.
    Grid(PathBuf),
}

/// What was decoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decoded {
    /// The folder or file that was written.
    pub path: PathBuf,
    /// Samples.
    pub num_samples: u64,
}

/// Decodes tokens. Collective: ranks share the samples where each is a file of its own; an array or a sheet is rank 0's.
///
/// # Errors
///
/// [`ApplyError`].
pub fn decode(
    comm: &dyn Communicator,
    model: &OpenModel,
    options: &DecodeOptions,
    watch: &Watch<'_>,
) -> Result<Decoded, ApplyError> {
    let chosen = open(model, options).and_then(|tokens| {
        let rows = tokens.rows(&options.ids, options.limit)?;
        Ok((tokens, rows))
    });
    let (tokens, rows) = agree_on(comm, chosen)?;
    watch.activity.enter(Phase::Evaluate);
    let work = Work { model, tokens: &tokens, levels: options.levels, watch };
    let (rank, world_size) = (comm.rank(), comm.world_size());
    let done = match &options.form {
        Form::Files(folder) => work.files(&rows, folder, (rank, world_size)),
        Form::Array(folder) if rank == 0 => work.array(&rows, folder),
        Form::Grid(file) if rank == 0 => work.grid(&rows, file),
        Form::Array(_) | Form::Grid(_) => Ok(()),
    };
    agree_on(comm, done)?;
    let (Form::Files(path) | Form::Array(path) | Form::Grid(path)) = &options.form;
    Ok(Decoded { path: path.clone(), num_samples: rows.len() as u64 })
}

/// Opens tokens that this model made.
fn open(model: &OpenModel, options: &DecodeOptions) -> Result<TokenFile, ApplyError> {
    let tokens = TokenFile::of_model(&options.tokens, &options.split, model)?;
    match options.form {
        Form::Files(_) => pictures::check_alone(model.signal()),
        Form::Grid(_) => pictures::check(model.signal()),
        Form::Array(_) => Ok(()),
    }
    .map_err(ApplyError::BadInput)?;
    model.vqvae.check_levels(options.levels).map_err(ApplyError::BadInput)?;
    Ok(tokens)
}

/// A process's work.
struct Work<'a> {
    model: &'a OpenModel,
    tokens: &'a TokenFile,
    levels: Option<usize>,
    watch: &'a Watch<'a>,
}

impl Work<'_> {
    /// Calls `each` with the number of a sample and its raw values `[..]`, for these rows of the tokens, tile by tile.
    fn samples(
        &self,
        rows: &[u64],
        mut each: impl FnMut(u64, &Tensor) -> Result<(), ApplyError>,
    ) -> Result<(), ApplyError> {
        let size = self.tile_size();
        let tile_of = |row: u64| row / size;
        for of_tile in rows.chunk_by(|a, b| tile_of(*a) == tile_of(*b)) {
            let first = tile_of(of_tile[0]) * size;
            let raw = self.tile(first)?;
            for &row in of_tile {
                each(self.tokens.number(row), &raw.get((row - first) as i64))?;
            }
            self.watch.activity.part_done();
        }
        Ok(())
    }

    fn tile_size(&self) -> u64 {
        tile::size(&self.model.signal()) as u64
    }

    /// The raw samples `[tile, ..]` of the tile that begins with a row.
    fn tile(&self, first: u64) -> Result<Tensor, ApplyError> {
        Ok(shown_with(self.model, &self.tokens.tile(first, self.tile_size())?, self.levels))
    }

    fn files(
        &self,
        rows: &[u64],
        folder: &Path,
        (rank, world_size): (usize, usize),
    ) -> Result<(), ApplyError> {
        fs::create_dir_all(folder).map_err(ApplyError::file("make the folder", folder))?;
        let size = self.tile_size();
        let is_mine = |row: u64| (row / size) % world_size as u64 == rank as u64;
        let mine: Vec<u64> = rows.iter().copied().filter(|row| is_mine(*row)).collect();
        self.samples(&mine, |number, raw| {
            pictures::write_alone(folder, &format!("{number:08}"), raw, self.model)
        })
    }

    fn array(&self, rows: &[u64], folder: &Path) -> Result<(), ApplyError> {
        fs::create_dir_all(folder).map_err(ApplyError::file("make the folder", folder))?;
        let path = folder.join("samples.npy");
        let mut array = Array::create(&path, rows.len(), self.model.signal())?;
        self.samples(rows, |_, raw| array.add(raw))?;
        array.finish()
    }

    fn grid(&self, rows: &[u64], path: &Path) -> Result<(), ApplyError> {
        let mut all = BTreeMap::new();
        self.samples(rows, |number, raw| {
            all.insert(number, raw.copy());
            Ok(())
        })?;
        let all: Vec<Tensor> = all.into_values().collect();
        pictures::write(path, &all, self.model.signal())
    }
}

/// The raw samples `[tile, ..]`, on the CPU, that a model makes of the codes of up to a tile of samples: of each those of all
/// levels, one after another.
pub(crate) fn shown_of(model: &OpenModel, samples: &[Vec<u32>]) -> Tensor {
    shown_with(model, samples, None)
}

/// As [`shown_of`], with the first so many levels in a row of residual quantisers.
pub(crate) fn shown_with(
    model: &OpenModel,
    samples: &[Vec<u32>],
    num_levels: Option<usize>,
) -> Tensor {
    let vqvae = &model.vqvae;
    let flat: Vec<i64> = samples.iter().flatten().map(|&code| i64::from(code)).collect();
    let codes_nt = Tensor::from_slice(&flat).view([samples.len() as i64, -1]);
    let levels = Level::split(&model.file.autoencoder().levels, &codes_nt);
    let size = tile::size(&vqvae.signal);
    let codes = levels.iter().zip(&vqvae.quantizers).map(|(codes, quantizer)| {
        let all = to_device(tile::padded(codes, size), vqvae.device());
        match num_levels {
            None => all,
            Some(num) => {
                let (num, flat_nl) = (num.min(quantizer.num_residual_levels()), all.flatten(0, 1));
                quantizer.leave_out(&flat_nl, num).view_as(&all)
            }
        }
    });
    let codes: Vec<Tensor> = codes.collect();
    vqvae.signal.to_raw(&tile::decode(vqvae, &codes)).to_device(Device::Cpu)
}
