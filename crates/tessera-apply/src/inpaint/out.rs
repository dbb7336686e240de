//! What comes of filled pictures: files of each draw, their mean, a sheet, codes, and how they were made.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Serialize;
use tch::{Kind, Tensor};
use tessera_comm::Communicator;
use tessera_model::{CodesFile, OpenModel, raw_samples};
use tessera_nn::prior::sample::Sampling;

use super::InpaintOptions;
use super::given::Given;
use super::holes::Holes;
use super::places::filled;
use crate::agreement::agree_on;
use crate::decode::{pictures, shown_of};
use crate::error::ApplyError;
use crate::sample::{Drawn, write_about, write_tokens};
use crate::tile;
use crate::watch::Watch;

/// Most pictures, and draws of each, on the sheet.
const ON_SHEET: (usize, u32) = (20, 8);

/// What `inpaint.json` says.
#[derive(Serialize)]
pub(super) struct About<'a> {
    pub(super) format: &'static str,
    pub(super) version: u32,
    pub(super) prior: &'a str,
    pub(super) tokenizer: &'a str,
    pub(super) seed: u64,
    pub(super) num_draws: u32,
    /// -1: none.
    pub(super) class: i64,
    pub(super) sampling: &'a Sampling,
    pub(super) widen: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mask: Option<AboutMask>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) find: Option<AboutFound>,
    pub(super) pictures: Vec<AboutPicture>,
    /// Of the codes that were drawn; none where none was.
    pub(super) nats_per_token: Option<f64>,
    /// As in `samples.json`.
    pub(super) reproducible: bool,
}

/// A hole that all pictures have.
#[derive(Serialize)]
pub(super) struct AboutMask {
    /// SHA-256 of the hole: a byte a pixel, 1 in the hole, row after row.
    pub(super) sha256: String,
    pub(super) num_pixels: usize,
    /// Positions of the codes that were drawn, of each level.
    pub(super) drawn: Vec<Vec<usize>>,
}

/// How damage was found.
#[derive(Serialize)]
pub(super) struct AboutFound {
    pub(super) nats: f64,
    pub(super) passes: usize,
}

/// A picture that was filled.
#[derive(Serialize)]
pub(super) struct AboutPicture {
    pub(super) number: u64,
    pub(super) name: String,
    /// Of its bytes as a sample.
    pub(super) sha256: String,
    pub(super) num_given: usize,
    pub(super) num_drawn: usize,
    /// Positions of the codes that were found damaged, of each level.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) found: Option<Vec<Vec<usize>>>,
    /// Of its codes, given all others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) median_nats: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) largest_nats: Option<f32>,
}

/// Writes what comes of filled pictures.
pub(super) struct Out<'a> {
    pub(super) comm: &'a dyn Communicator,
    pub(super) tokenizer: &'a OpenModel,
    pub(super) options: &'a InpaintOptions,
    pub(super) given: &'a Given,
    pub(super) holes: &'a Holes<'a>,
    pub(super) watch: &'a Watch<'a>,
}

/// A picture and what became of it, `[H, W, C]` bytes each.
struct Filled {
    given: Tensor,
    with_hole: Tensor,
    /// Of each draw, as it was decoded, and within the picture.
    draws: Vec<[Tensor; 2]>,
    /// None of a single draw.
    mean: Option<Tensor>,
}

impl Out<'_> {
    /// Writes all of it. A rank writes the pictures whose first draw is in one of its tiles. Collective.
    pub(super) fn write(
        &self,
        codes: &CodesFile,
        drawn: &BTreeMap<u64, Drawn>,
        about: &About<'_>,
    ) -> Result<(), ApplyError> {
        let folder = &self.options.out;
        let described = match self.comm.rank() {
            0 => write_tokens(folder, codes, drawn, &vec![about.class; drawn.len()])
                .and_then(|()| write_about(&folder.join("inpaint.json"), about)),
            _ => Ok(()),
        };
        agree_on(self.comm, described)?;
        let world_size = self.comm.world_size() as u64;
        let size = self.tile_size();
        let is_mine = |at: &usize| {
            let first = *at as u64 * u64::from(self.options.num) / size;
            first % world_size == self.comm.rank() as u64
        };
        let own = (0..self.given.numbers.len()).filter(is_mine);
        let written = self.each(drawn, own, |at, filled| {
            let number = format!("{:08}", self.given.numbers[at]);
            for (draw, [decoded, within]) in filled.draws.iter().enumerate() {
                let name = format!("{number}-{draw:03}.png");
                self.picture("pictures", &name, within)?;
                if self.options.raw {
                    self.picture("raw", &name, decoded)?;
                }
            }
            match &filled.mean {
                Some(mean) => self.picture("means", &format!("{number}.png"), mean),
                None => Ok(()),
            }
        });
        agree_on(self.comm, written)?;
        let sheet = match self.comm.rank() {
            0 => self.sheet(drawn),
            _ => Ok(()),
        };
        agree_on(self.comm, sheet)
    }

    /// Writes one picture to a folder of that name.
    fn picture(&self, folder: &str, name: &str, raw: &Tensor) -> Result<(), ApplyError> {
        let folder = self.options.out.join(folder);
        fs::create_dir_all(&folder).map_err(ApplyError::file("make the folder", &folder))?;
        pictures::write(&folder.join(name), &[raw.shallow_clone()], self.tokenizer.signal())
    }

    /// A row of each picture: as it was given, with its hole, its draws and their mean.
    fn sheet(&self, drawn: &BTreeMap<u64, Drawn>) -> Result<(), ApplyError> {
        let (num_pictures, num_draws) = ON_SHEET;
        let shown = 0..self.given.numbers.len().min(num_pictures);
        let (mut all, mut columns) = (Vec::new(), 0);
        self.each(drawn, shown, |_, filled| {
            let Filled { given, with_hole, draws, mean } = filled;
            let start = all.len();
            all.extend([given, with_hole]);
            all.extend(draws.into_iter().take(num_draws as usize).map(|[_, within]| within));
            all.extend(mean);
            columns = all.len() - start;
            Ok(())
        })?;
        let path: &Path = &self.options.out.join("grid.png");
        pictures::write_rows(path, &all, columns as i64, self.tokenizer.signal())
    }

    /// Calls `each` with these pictures, ascending, and what became of them.
    fn each(
        &self,
        drawn: &BTreeMap<u64, Drawn>,
        pictures: impl Iterator<Item = usize>,
        mut each: impl FnMut(usize, Filled) -> Result<(), ApplyError>,
    ) -> Result<(), ApplyError> {
        let num = u64::from(self.options.num);
        let mut tile: Option<(u64, Tensor)> = None;
        for at in pictures {
            let bytes = self.given.read(at)?;
            let is_hole = self.holes.pixels(at);
            let channels = self.tokenizer.signal().channels();
            let with_hole = self.raw(&filled(&bytes, &is_hole, channels as usize));
            let given = self.raw(&bytes);
            let is_hole_hw1 = Tensor::from_slice(&is_hole).view_as(&given.narrow(2, 0, 1));
            let mut draws = Vec::new();
            for draw in at as u64 * num..(at as u64 + 1) * num {
                let first = draw - draw % self.tile_size();
                let decoded = match &tile {
                    Some((known, decoded)) if *known == first => decoded.shallow_clone(),
                    _ => self.decode(drawn, first),
                };
                tile = Some((first, decoded.shallow_clone()));
                let decoded = decoded.get((draw - first) as i64);
                let within = decoded.where_self(&is_hole_hw1, &given);
                draws.push([decoded, within]);
            }
            let mean = (num > 1).then(|| mean_of(&draws));
            each(at, Filled { given, with_hole, draws, mean })?;
            self.watch.activity.part_done();
        }
        Ok(())
    }

    /// What the decoder makes of the tile of draws that begins with this one, `[tile, H, W, C]` bytes.
    fn decode(&self, drawn: &BTreeMap<u64, Drawn>, first: u64) -> Tensor {
        let of_tile = drawn.range(first..first + self.tile_size());
        let samples: Vec<Vec<u32>> = of_tile.map(|(_, draw)| draw.tokens.clone()).collect();
        shown_of(self.tokenizer, &samples)
    }

    fn tile_size(&self) -> u64 {
        tile::size(&self.tokenizer.signal()) as u64
    }

    /// The bytes of a picture as `[H, W, C]`.
    fn raw(&self, bytes: &[u8]) -> Tensor {
        raw_samples(bytes, self.tokenizer.file.autoencoder().shape).get(0)
    }
}

/// The mean of draws within their picture, rounded.
fn mean_of(draws: &[[Tensor; 2]]) -> Tensor {
    let num = draws.len() as i64;
    let within: Vec<Tensor> = draws.iter().map(|[_, within]| within.to_kind(Kind::Int64)).collect();
    let sum = Tensor::stack(&within, 0).sum_dim_intlist([0i64].as_slice(), false, Kind::Int64);
    ((sum * 2 + num).divide_scalar_mode(2 * num, "floor")).to_kind(Kind::Uint8)
}
