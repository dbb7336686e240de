//! Samples as whoever judges sees them: features, class and codes, of each set in the order of its samples.

use tch::{Device, Kind, Tensor};
use tessera_comm::{Communicator, all_gather_bytes};
use tessera_data::Source;
use tessera_model::{OpenModel, raw_samples};
use tessera_nn::to_device;

use super::Judging;
use crate::agreement::agree_on;
use crate::decode::shown_of;
use crate::error::ApplyError;
use crate::input::{codes_of_values, read, values_of};
use crate::tile;
use crate::watch::Watch;

/// Codes of a sample, those of all levels one after another, and its class; -1: none.
pub(super) type Coded = (Vec<u32>, i64);

/// What was seen of a set of samples.
#[derive(Debug)]
pub(super) struct Set {
    /// Number of each in its source.
    pub(super) ids: Vec<u64>,
    /// Features, `[N, F]` float32 on the CPU.
    pub(super) vectors_nf: Tensor,
    /// The class that a sample should have; -1: none.
    pub(super) classes: Vec<i64>,
    /// The class that the classifier finds; -1: there is no classifier.
    pub(super) found: Vec<i64>,
    /// Codes, those of all levels one after another.
    pub(super) codes: Vec<Vec<u32>>,
}

impl Set {
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Codes and classes.
    pub(super) fn coded(&self) -> Vec<Coded> {
        self.codes.iter().cloned().zip(self.classes.iter().copied()).collect()
    }

    /// `num` samples evenly out of all.
    pub(super) fn every(&self, num: u64) -> Self {
        let rows: Vec<usize> = (0..num).map(|at| (at * self.len() as u64 / num) as usize).collect();
        let index = Tensor::from_slice(&rows.iter().map(|row| *row as i64).collect::<Vec<_>>());
        Self {
            ids: rows.iter().map(|&row| self.ids[row]).collect(),
            vectors_nf: self.vectors_nf.index_select(0, &index),
            classes: rows.iter().map(|&row| self.classes[row]).collect(),
            found: rows.iter().map(|&row| self.found[row]).collect(),
            codes: rows.iter().map(|&row| self.codes[row].clone()).collect(),
        }
    }
}

/// One sample: the class that it should have, the one that is found, its features and its codes.
type Seen = (i64, i64, Vec<f32>, Vec<u32>);

/// Whoever looks.
pub(super) struct Look<'a> {
    pub(super) comm: &'a dyn Communicator,
    pub(super) model: &'a OpenModel,
    pub(super) judging: &'a Judging<'a>,
    pub(super) watch: &'a Watch<'a>,
}

/// A tile of samples.
struct Tile {
    /// `[tile, C, ..]`, rounded as a sample is kept.
    values: Tensor,
    codes: Vec<Vec<u32>>,
    classes: Vec<i64>,
}

impl Look<'_> {
    /// `num` samples evenly out of a source. Collective.
    pub(super) fn real(&self, source: &dyn Source, num: u64) -> Result<Set, ApplyError> {
        let total = source.num_samples();
        let ids: Vec<u64> = (0..num)
            .map(|at| (u128::from(at) * u128::from(total) / u128::from(num)) as u64)
            .collect();
        self.all(&ids, |rows| {
            let mut bytes = Vec::new();
            for &id in rows {
                bytes.extend(read(source, id)?);
            }
            let values = values_of(self.model, &bytes);
            let codes = codes_of_values(self.model, &values, rows.len(), rows[0])?;
            let class = |&id: &u64| Ok(source.label(id)?.unwrap_or(-1));
            let classes = rows.iter().map(class).collect::<Result<_, ApplyError>>()?;
            Ok(Tile { values, codes, classes })
        })
    }

    /// What the model decodes codes to. Collective.
    pub(super) fn codes(&self, coded: &[Coded]) -> Result<Set, ApplyError> {
        let rows: Vec<u64> = (0..coded.len() as u64).collect();
        self.all(&rows, |rows| {
            let (codes, classes): (Vec<_>, Vec<_>) =
                rows.iter().map(|&row| coded[row as usize].clone()).unzip();
            let vqvae = &self.model.vqvae;
            let raw = shown_of(self.model, &codes);
            let values = vqvae.signal.from_raw(&to_device(raw, vqvae.device()), vqvae.kind());
            Ok(Tile { values, codes, classes })
        })
    }

    /// The raw sample that codes stand for.
    pub(super) fn decoded(&self, codes: &[u32]) -> Result<Tensor, ApplyError> {
        Ok(shown_of(self.model, &[codes.to_vec()]).get(0))
    }

    /// Looks at tiles of rows, of which each rank has its part.
    fn all(
        &self,
        ids: &[u64],
        look: impl Fn(&[u64]) -> Result<Tile, ApplyError>,
    ) -> Result<Set, ApplyError> {
        let _no_grad = tch::no_grad_guard();
        let (rank, world_size) = (self.comm.rank(), self.comm.world_size());
        let mut mine = Vec::new();
        let size = tile::size(&self.model.signal());
        let done = ids.chunks(size).enumerate().skip(rank).step_by(world_size).try_for_each(
            |(number, rows)| {
                self.seen(look(rows)?, number * size, &mut mine)?;
                self.watch.activity.part_done();
                Ok(())
            },
        );
        agree_on(self.comm, done)?;
        self.gather(ids, &mine)
    }

    /// Writes what is seen of a tile whose first row is this one.
    fn seen(&self, tile: Tile, first: usize, out: &mut Vec<u8>) -> Result<(), ApplyError> {
        let Tile { values, codes, classes } = tile;
        let vectors =
            self.judging.network.vector(&values).to_kind(Kind::Float).to_device(Device::Cpu);
        let found = self
            .judging
            .classifier
            .map(|classifier| (classifier.probabilities)(&values).argmax(1, false));
        for (row, (codes, class)) in codes.iter().zip(classes).enumerate() {
            let vector = Vec::<f32>::try_from(vectors.get(row as i64))?;
            let found = found.as_ref().map_or(-1, |found| found.int64_value(&[row as i64]));
            for number in [(first + row) as i64, class, found, vector.len() as i64] {
                out.extend(number.to_le_bytes());
            }
            vector.iter().for_each(|number| out.extend(number.to_le_bytes()));
            codes.iter().for_each(|code| out.extend(code.to_le_bytes()));
        }
        Ok(())
    }

    /// What all ranks have seen, in order. Collective.
    fn gather(&self, ids: &[u64], mine: &[u8]) -> Result<Set, ApplyError> {
        let num_codes = self.model.file.autoencoder().levels.iter();
        let num_codes = num_codes
            .map(|level| level.num_positions() as usize * level.num_codes.len())
            .sum::<usize>();
        let mut rows: Vec<Option<Seen>> = vec![None; ids.len()];
        for theirs in all_gather_bytes(self.comm, mine)? {
            let mut rest = theirs.as_slice();
            while !rest.is_empty() {
                let (head, tail) = rest.split_at(32);
                let head: Vec<i64> =
                    head.as_chunks::<8>().0.iter().map(|word| i64::from_le_bytes(*word)).collect();
                let (body, tail) = tail.split_at(4 * (head[3] as usize + num_codes));
                let (vector, codes) = body.as_chunks::<4>().0.split_at(head[3] as usize);
                let vector = vector.iter().map(|word| f32::from_le_bytes(*word)).collect();
                let codes = codes.iter().map(|word| u32::from_le_bytes(*word)).collect();
                rows[head[0] as usize] = Some((head[1], head[2], vector, codes));
                rest = tail;
            }
        }
        let mut set = Set {
            ids: ids.to_vec(),
            vectors_nf: Tensor::new(),
            classes: Vec::new(),
            found: Vec::new(),
            codes: Vec::new(),
        };
        let mut vectors = Vec::new();
        for row in rows {
            let (class, found, vector, codes) = row.expect("some rank has every row");
            vectors.extend(vector);
            set.classes.push(class);
            set.found.push(found);
            set.codes.push(codes);
        }
        set.vectors_nf = Tensor::from_slice(&vectors).view([ids.len() as i64, -1]);
        Ok(set)
    }
}

/// A raw sample of a source as it is kept; of sound its bytes.
pub(super) fn sample(source: &dyn Source, id: u64) -> Result<Tensor, ApplyError> {
    Ok(raw_samples(&read(source, id)?, source.shape()).get(0))
}
