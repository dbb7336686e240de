//! Several data sets as one: samples of a part are numbered behind those of the parts before it.
//!
//! In training each part comes as often as its weight says (`sampler/mixture.rs`); an evaluation
//! sees every sample of every part once.

use std::sync::Arc;

use crate::config::{DataConfig, MixturePart};
use crate::draw::Draw;
use crate::error::DataError;
use crate::file;
use crate::sampler::{Sampler, mix};
use crate::shape::SampleShape;
use crate::source::{self, Source};

/// The parts of a mixture, all of one split.
pub(crate) struct MixtureSource {
    parts: Vec<(MixturePart, Arc<dyn Source>)>,
    /// Number of the first sample of each part, and at the end the number of samples.
    starts: Vec<u64>,
}

impl MixtureSource {
    /// Opens `split` of every part.
    ///
    /// # Errors
    ///
    /// As [`source::open`]; [`DataError::Config`] if the parts have samples of several shapes.
    pub(crate) fn open(parts: &[MixturePart], split: &str) -> Result<Self, DataError> {
        let mut opened: Vec<(MixturePart, Arc<dyn Source>)> = Vec::new();
        let mut starts = vec![0];
        let mut total = 0;
        for part in parts {
            let source = source::open(&part.data, split)?;
            if let Some((_, first)) = opened.first()
                && first.shape() != source.shape()
            {
                let problem = format!(
                    "has parts with samples of other shapes, {:?} and {:?}: set data.image of each \
                     to the same size",
                    first.shape(),
                    source.shape()
                );
                return Err(DataError::Config { key: "mixture", problem });
            }
            total += source.num_samples();
            starts.push(total);
            opened.push((part.clone(), source));
        }
        Ok(Self { parts: opened, starts })
    }

    /// The part of a sample, and the sample's number in it.
    fn part(&self, id: u64) -> (&dyn Source, u64) {
        let index = self.starts.partition_point(|&start| start <= id) - 1;
        (&*self.parts[index].1, id - self.starts[index])
    }
}

impl Source for MixtureSource {
    fn num_samples(&self) -> u64 {
        self.starts[self.parts.len()]
    }

    fn shape(&self) -> SampleShape {
        self.parts[0].1.shape()
    }

    fn read(&self, id: u64, draw: Draw, out: &mut [u8]) -> Result<(), DataError> {
        let (part, id) = self.part(id);
        part.read(id, draw, out)
    }

    fn label(&self, id: u64) -> Result<Option<i64>, DataError> {
        let (part, id) = self.part(id);
        part.label(id)
    }

    fn name(&self, id: u64) -> String {
        let (part, id) = self.part(id);
        part.name(id)
    }

    fn sampler(&self, _order: &DataConfig, seed: u64) -> Sampler {
        let part = |(index, (part, source)): (usize, &(MixturePart, Arc<dyn Source>))| {
            let seed = mix(seed.wrapping_add(index as u64));
            (part.weight, source.sampler(&part.data, seed))
        };
        Sampler::mixture(seed, self.parts.iter().enumerate().map(part).collect())
    }

    fn origin(&self) -> Vec<String> {
        self.parts.iter().flat_map(|(_, source)| source.origin()).collect()
    }

    fn fingerprint(&self) -> String {
        let mut hasher = file::Hasher::default();
        for (part, source) in &self.parts {
            hasher.update(format!("{} {}\n", part.weight, source.fingerprint()).as_bytes());
        }
        hasher.finish()
    }
}
