//! Several data sets as one: samples of a part are numbered behind those of the parts before it.
//!
//! In training each part comes as often as its weight says (`sampler/mixture.rs`); an evaluation
//! sees every sample of every part once. Classes that have names are numbered by the names of all
//! parts together.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::{DataConfig, MixturePart, Shuffling};
use crate::draw::Draw;
use crate::error::DataError;
use crate::file;
use crate::sampler::{Sampler, mix};
use crate::samples::{Groups, Source};
use crate::shape::SampleShape;
use crate::sources::splits::{TEST, TRAIN};
use crate::tokens::manifest::TokenInfo;

/// Opens a split of a data set.
type Open = dyn Fn(&DataConfig, &str) -> Result<Arc<dyn Source>, DataError>;

/// The parts of a mixture, all of one split.
pub(crate) struct MixtureSource {
    parts: Vec<(MixturePart, Arc<dyn Source>)>,
    /// Number of the first sample of each part, and at the end the number of samples.
    starts: Vec<u64>,
    /// Names of the classes of all parts, sorted; empty if a part has none.
    classes: Vec<String>,
    /// For each part the numbers of its classes in that list.
    numbers: Vec<Vec<i64>>,
    notes: Vec<String>,
}

impl MixtureSource {
    /// Opens `split` of every part, each by `open`. For an evaluation it is enough that some parts have it, if the
    /// others hold nothing out.
    ///
    /// # Errors
    ///
    /// As [`crate::source::open`]; [`DataError::Config`] if the parts have samples of several shapes, or
    /// some have a split `test` that others should have.
    pub(crate) fn open(parts: &[MixturePart], split: &str, open: &Open) -> Result<Self, DataError> {
        let mut opened: Vec<(MixturePart, Arc<dyn Source>)> = Vec::new();
        let (mut starts, mut notes, mut classes) = (vec![0], Vec::new(), Vec::new());
        let (mut total, mut missing) = (0, Vec::new());
        for (number, part) in (1..).zip(parts) {
            let note = |words: &str| format!("part {number} of the mixture: {words}");
            let source = match open(&part.data, split) {
                Err(error @ DataError::NoSplit { .. }) if split == TEST => {
                    notes.push(note(&format!("not in the split test, since {error}")));
                    // What it is trained on counts for the numbers of classes.
                    classes.push(open(&part.data, TRAIN)?.classes());
                    missing.push((number, part.data.holdout, error));
                    continue;
                }
                source => source?,
            };
            if let Some((_, first)) = opened.first() {
                check_tokens(first.tokens(), source.tokens(), number)?;
            }
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
            notes.extend(source.notes().iter().map(|words| note(words)));
            classes.push(source.classes());
            total += source.num_samples();
            starts.push(total);
            opened.push((part.clone(), source));
        }
        // Of those that should have one, the first is told.
        missing.sort_by_key(|(number, holdout, _)| (*holdout == 0.0, *number));
        match missing.into_iter().next() {
            Some((_, _, error)) if opened.is_empty() => return Err(error),
            Some((number, holdout, error)) if holdout > 0.0 => {
                let problem = format!(
                    "has parts with and without a split test, and part {number} should have one \
                     ({error}): set holdout of that part to 0 to go without"
                );
                return Err(DataError::Config { key: "mixture", problem });
            }
            _ => {}
        }
        let named = classes.iter().filter(|names| !names.is_empty()).count();
        if 0 < named && named < classes.len() {
            let words = "labels of the mixture are the numbers of each part, since the classes of \
                         some parts have no names";
            notes.push(words.to_owned());
            classes.clear();
        }
        let all: BTreeSet<String> = classes.into_iter().flatten().collect();
        let classes: Vec<String> = all.into_iter().collect();
        let number = |name: &String| classes.binary_search(name).expect("it is of a part") as i64;
        let numbers = match classes.is_empty() {
            true => Vec::new(),
            false => opened
                .iter()
                .map(|(_, source)| source.classes().iter().map(number).collect())
                .collect(),
        };
        Ok(Self { parts: opened, starts, classes, numbers, notes })
    }

    /// The number of a sample's part.
    fn index(&self, id: u64) -> usize {
        self.starts.partition_point(|&start| start <= id) - 1
    }

    /// The part of a sample, and the sample's number in it.
    fn part(&self, id: u64) -> (&dyn Source, u64) {
        let index = self.index(id);
        (&*self.parts[index].1, id - self.starts[index])
    }
}

/// Refuses parts whose codes mean different things.
fn check_tokens(
    first: Option<&TokenInfo>,
    other: Option<&TokenInfo>,
    number: u64,
) -> Result<(), DataError> {
    let problem = match (first, other) {
        (Some(first), Some(other)) if first.tokenizer != other.tokenizer => format!(
            "has token sets of two tokenisers, {} in part 1 and {} in part {number}: encode all \
             parts by one",
            first.tokenizer, other.tokenizer
        ),
        (Some(first), Some(other)) if first.levels != other.levels => format!(
            "has token sets of several grids or numbers of codes, in part 1 and part {number}: \
             encode samples of one size"
        ),
        (Some(_), None) | (None, Some(_)) => format!(
            "has token sets and other data, in part 1 and part {number}: encode all parts by one \
             tokeniser"
        ),
        _ => return Ok(()),
    };
    Err(DataError::Config { key: "mixture", problem })
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
        let (part, id_there) = self.part(id);
        let label = part.label(id_there)?;
        let numbers = self.numbers.get(self.index(id));
        Ok(label.map(|label| {
            let known = numbers.and_then(|numbers| numbers.get(usize::try_from(label).ok()?));
            known.copied().unwrap_or(label)
        }))
    }

    fn has_labels(&self) -> bool {
        self.parts.iter().any(|(_, part)| part.has_labels())
    }

    fn num_classes(&self) -> Result<Option<u64>, DataError> {
        let refused = |problem| Err(DataError::Config { key: "mixture", problem });
        let without = self.parts.iter().position(|(_, part)| !part.has_labels());
        match without {
            Some(_) if !self.has_labels() => return Ok(None),
            Some(part) => {
                let problem =
                    format!("has parts with and without labels: part {} has none", part + 1);
                return refused(problem);
            }
            None if !self.classes.is_empty() => return Ok(Some(self.classes.len() as u64)),
            None => {}
        }
        let mut num_classes = None;
        for (number, (_, part)) in (1..).zip(&self.parts) {
            let there = part.num_classes()?;
            if let Some(known) = num_classes
                && there != Some(known)
            {
                let problem = format!(
                    "has parts with other numbers of classes, part 1 has {known} and part {number} \
                     has {}: take parts of the same classes, or give the classes of all parts names",
                    there.unwrap_or(0)
                );
                return refused(problem);
            }
            num_classes = num_classes.or(there);
        }
        Ok(num_classes)
    }

    fn groups(&self) -> Result<Groups, DataError> {
        let (mut all, mut is_single) = (Vec::new(), true);
        for ((_, part), &start) in self.parts.iter().zip(&self.starts) {
            match part.groups()? {
                Groups::Single => all.extend(start..start + part.num_samples()),
                Groups::Of(groups) => {
                    is_single = false;
                    all.extend(groups.into_iter().map(|group| start + group));
                }
                Groups::Unknown => return Ok(Groups::Unknown),
            }
        }
        Ok(if is_single { Groups::Single } else { Groups::Of(all) })
    }

    fn classes(&self) -> Vec<String> {
        self.classes.clone()
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn name(&self, id: u64) -> String {
        let (part, id) = self.part(id);
        part.name(id)
    }

    fn sampler(&self, _order: &Shuffling, seed: u64) -> Sampler {
        let part = |(index, (part, source)): (usize, &(MixturePart, Arc<dyn Source>))| {
            let seed = mix(seed.wrapping_add(index as u64));
            (part.weight, source.sampler(&part.data.shuffling(), seed))
        };
        Sampler::mixture(seed, self.parts.iter().enumerate().map(part).collect())
    }

    /// Those of the first part; the others have the same tokeniser and levels.
    fn tokens(&self) -> Option<&TokenInfo> {
        self.parts[0].1.tokens()
    }

    fn skipped(&self) -> Vec<String> {
        self.parts.iter().flat_map(|(_, part)| part.skipped()).collect()
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
