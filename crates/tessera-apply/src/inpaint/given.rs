//! The pictures that are given, the hole in them, and their codes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tessera_checkpoint::sha256_hex;
use tessera_comm::{Communicator, all_gather_bytes};
use tessera_data::Source;
use tessera_model::OpenModel;

use super::holes::Holes;
use super::out::AboutPicture;
use super::places::{Places, filled};
use super::{InpaintOptions, Input};
use crate::agreement::agree_on;
use crate::encode::{check_data, usual_data};
use crate::error::ApplyError;
use crate::input;
use crate::sample::{Drawn, gather};
use crate::tile;
use crate::watch::Watch;

/// Pictures that are given.
pub(super) struct Given {
    source: Arc<dyn Source>,
    /// Numbers of the pictures in their source, ascending.
    pub(super) numbers: Vec<u64>,
}

impl Given {
    /// Opens what `options` name, the same on every rank. Collective.
    pub(super) fn open(
        comm: &dyn Communicator,
        tokenizer: &OpenModel,
        options: &InpaintOptions,
    ) -> Result<Self, ApplyError> {
        let given = agree_on(comm, Self::of(tokenizer, &options.input))?;
        let mine = given.source.fingerprint();
        let all = all_gather_bytes(comm, mine.as_bytes())?;
        let is_same = match all[0] == mine.as_bytes() {
            true => Ok(()),
            false => Err(ApplyError::BadInput(format!(
                "rank {} sees other pictures than rank 0: put them where all hosts see the same files",
                comm.rank()
            ))),
        };
        agree_on(comm, is_same)?;
        Ok(given)
    }

    fn of(tokenizer: &OpenModel, input: &Input) -> Result<Self, ApplyError> {
        let (source, ids) = match input {
            Input::Files(path) => (input::files(&tokenizer.file, path)?, None),
            Input::Data { split, ids } => {
                let data = usual_data(&tokenizer.file, false)?;
                (tessera_data::source::open(&data, split)?, Some(ids))
            }
        };
        check_data(&tokenizer.file, source.shape())?;
        let num = source.num_samples();
        let mut numbers: Vec<u64> = ids.map_or_else(|| (0..num).collect(), Clone::clone);
        numbers.sort_unstable();
        numbers.dedup();
        match numbers.last() {
            Some(last) if *last < num => Ok(Self { source, numbers }),
            last => {
                let named = last.map_or("no picture".to_owned(), u64::to_string);
                let problem = format!("--ids names {named}: there are {num}, counted from 0");
                Err(ApplyError::BadInput(problem))
            }
        }
    }

    pub(super) fn num(&self) -> u64 {
        self.numbers.len() as u64
    }

    /// The bytes of a picture, `[H, W, C]`.
    pub(super) fn read(&self, at: usize) -> Result<Vec<u8>, ApplyError> {
        input::read(&*self.source, self.numbers[at])
    }

    /// What is told of each picture.
    pub(super) fn about(&self, holes: &Holes<'_>) -> Result<Vec<AboutPicture>, ApplyError> {
        let mut pictures = Vec::new();
        for (at, &number) in self.numbers.iter().enumerate() {
            let hash = sha256_hex(&self.read(at)?);
            pictures.push(holes.about_picture(at, (number, self.source.name(number), hash)));
        }
        Ok(pictures)
    }

    /// The codes of all pictures, in the order of a token set, with the hole hidden from the encoder. Ranks share the
    /// tiles, in which a picture has the place that its number says. Collective.
    pub(super) fn codes(
        &self,
        comm: &dyn Communicator,
        tokenizer: &OpenModel,
        (places, is_hole): (&Places, Option<&[bool]>),
        watch: &Watch<'_>,
    ) -> Result<Vec<Vec<u32>>, ApplyError> {
        let mine = agree_on(comm, self.own_codes(comm, tokenizer, is_hole, watch))?;
        let all = gather(comm, &mine, places.num_codes())?;
        Ok(all.into_values().map(|codes| codes.tokens).collect())
    }

    fn own_codes(
        &self,
        comm: &dyn Communicator,
        tokenizer: &OpenModel,
        is_hole: Option<&[bool]>,
        watch: &Watch<'_>,
    ) -> Result<BTreeMap<u64, Drawn>, ApplyError> {
        let shape = self.source.shape();
        let size = tile::size(&tokenizer.signal());
        let tile_of = |number: &u64| number / size as u64;
        let mut codes = BTreeMap::new();
        let mut start = 0;
        for of_tile in self.numbers.chunk_by(|a, b| tile_of(a) == tile_of(b)) {
            let own = start..start + of_tile.len();
            start = own.end;
            if tile_of(&of_tile[0]) % comm.world_size() as u64 != comm.rank() as u64 {
                continue;
            }
            let mut bytes = vec![0; size * shape.num_bytes()];
            let slot = |number: u64| (number % size as u64) as usize;
            for (at, &number) in own.clone().zip(of_tile) {
                let mut picture = self.read(at)?;
                if let Some(is_hole) = is_hole {
                    picture = filled(&picture, is_hole, shape.channels as usize);
                }
                bytes[slot(number) * picture.len()..][..picture.len()].copy_from_slice(&picture);
            }
            let of_slots = input::codes_of(tokenizer, &bytes, of_tile[0])?;
            for (at, &number) in own.zip(of_tile) {
                let tokens = of_slots[slot(number)].clone();
                codes.insert(at as u64, Drawn { tokens, nats: 0.0 });
            }
            watch.activity.part_done();
        }
        Ok(codes)
    }
}

/// The hole of a mask, white, in a picture of the model's size, row after row.
pub(super) fn mask(path: &Path, places: &Places) -> Result<Vec<bool>, ApplyError> {
    let source = input::gray_picture(path)?;
    let shape = source.shape();
    let (height, width) = (shape.height as usize, shape.width as usize);
    if (height, width) != (places.height, places.width) {
        return Err(ApplyError::BadInput(format!(
            "--mask should be of the size of the model's pictures, {} x {} pixels (height, width), found {height} x {width}",
            places.height, places.width
        )));
    }
    let is_hole: Vec<bool> = input::read(&*source, 0)?.iter().map(|gray| *gray > 127).collect();
    if !is_hole.contains(&true) {
        let problem = "--mask has no white pixel, so nothing is to be filled: paint what is to be filled white";
        return Err(ApplyError::BadInput(problem.to_owned()));
    }
    Ok(is_hole)
}
