//! Some of another source's samples.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::config::DataConfig;
use crate::draw::Draw;
use crate::error::DataError;
use crate::file;
use crate::sampler::Permutation;
use crate::shape::SampleShape;
use crate::source::{Groups, Source, splits};

/// Samples of a source that belong to one split.
pub(crate) struct Subset {
    inner: Arc<dyn Source>,
    /// Ascending.
    ids: Vec<u64>,
    notes: Vec<String>,
    fingerprint: String,
}

/// Key of the folds: the same for all runs, whatever their seed.
const FOLDS: u64 = u64::from_be_bytes(*b"foldfold");

impl Subset {
    /// All samples but one of `config.folds` parts, or for the split `test` that part alone. A
    /// permutation says which sample is in which part; samples of one file are in one part.
    pub(crate) fn fold(
        inner: Arc<dyn Source>,
        config: &DataConfig,
        split: &str,
    ) -> Result<Self, DataError> {
        let (num, folds, fold) = (inner.num_samples(), config.folds, config.fold);
        splits::check(split)?;
        let groups = inner.groups()?;
        let mut notes = Vec::new();
        let (parts, what) = match &groups {
            Groups::Of(groups) => parts_of_groups(groups, folds),
            Groups::Single | Groups::Unknown => (parts_of_samples(num, folds), ("samples", num)),
        };
        if groups == Groups::Unknown {
            let note = "an older version packed this data set and did not note which samples are of \
                        one file: tiles, windows and clips of a file may be in several folds; pack \
                        it again";
            notes.push(note.to_owned());
        }
        if folds > what.1 {
            let (what, there) = what;
            let problem = format!("must be at most the {there} {what} that there are, not {folds}");
            return Err(DataError::Config { key: "folds", problem });
        }
        let is_test = |id: &u64| parts[*id as usize] == fold;
        let ids = (0..num).filter(|id| is_test(id) == (split == splits::TEST)).collect();
        let mut described = format!("{} {split} fold {fold} of {folds}", inner.fingerprint());
        if let Groups::Of(_) = groups {
            described.push_str(" by file");
        }
        Ok(Self { inner, ids, notes, fingerprint: file::sha256_of(described.as_bytes()) })
    }

    /// The samples of `split` in a source without splits of its own, by the hash of their names; none
    /// if there are none.
    pub(crate) fn by_hash(
        inner: Arc<dyn Source>,
        split: &str,
        holdout: f64,
    ) -> Result<Option<Self>, DataError> {
        splits::check(split)?;
        let is_test = |id: &u64| splits::is_held_out(&inner.name(*id), holdout);
        let all = 0..inner.num_samples();
        let ids: Vec<u64> = all.filter(|id| is_test(id) == (split == splits::TEST)).collect();
        if ids.is_empty() {
            return Ok(None);
        }
        let here = ids.len() as u64;
        let there = inner.num_samples() - here;
        let (train, test) = if split == splits::TEST { (there, here) } else { (here, there) };
        let notes = vec![format!(
            "one array: {train} samples in train, {test} in test, held out by their numbers \
             (data.holdout = {holdout})"
        )];
        let described = format!("{} {split} {holdout}", inner.fingerprint());
        Ok(Some(Self { inner, ids, notes, fingerprint: file::sha256_of(described.as_bytes()) }))
    }
}

/// The part of each sample, where each is a file of its own.
fn parts_of_samples(num: u64, folds: u64) -> Vec<u64> {
    let order = Permutation::new(FOLDS, 0, num);
    let part = |id| u128::from(order.of(id)) * u128::from(folds) / u128::from(num);
    (0..num).map(|id| part(id) as u64).collect()
}

/// The part of each sample, by the number of its file, and how many files there are. Files are taken
/// in the order of a permutation, each to the part that is the smallest by then.
fn parts_of_groups(groups: &[u64], folds: u64) -> (Vec<u64>, (&'static str, u64)) {
    let mut files: Vec<(usize, usize)> = Vec::new();
    for (at, group) in groups.iter().enumerate() {
        match files.last_mut() {
            Some((start, end)) if groups[*start] == *group => *end = at + 1,
            _ => files.push((at, at + 1)),
        }
    }
    let num = files.len() as u64;
    let order = Permutation::new(FOLDS, 0, num);
    let mut ordered: Vec<(u64, (usize, usize))> =
        (0..num).map(|at| (order.of(at), files[at as usize])).collect();
    ordered.sort_unstable();
    let mut sizes: BTreeSet<(usize, u64)> = (0..folds.min(num)).map(|part| (0, part)).collect();
    let mut parts = vec![0; groups.len()];
    for (_, (start, end)) in ordered {
        let (size, part) = sizes.pop_first().expect("there is a part");
        parts[start..end].fill(part);
        sizes.insert((size + end - start, part));
    }
    (parts, ("files", num))
}

impl Source for Subset {
    fn num_samples(&self) -> u64 {
        self.ids.len() as u64
    }

    fn shape(&self) -> SampleShape {
        self.inner.shape()
    }

    fn read(&self, id: u64, draw: Draw, out: &mut [u8]) -> Result<(), DataError> {
        self.inner.read(self.ids[id as usize], draw, out)
    }

    fn label(&self, id: u64) -> Result<Option<i64>, DataError> {
        self.inner.label(self.ids[id as usize])
    }

    fn has_labels(&self) -> bool {
        self.inner.has_labels()
    }

    fn num_classes(&self) -> Result<Option<u64>, DataError> {
        self.inner.num_classes()
    }

    fn groups(&self) -> Result<Groups, DataError> {
        let groups = match self.inner.groups()? {
            Groups::Of(groups) => groups,
            other => return Ok(other),
        };
        // Samples of a file follow each other, here as there.
        let mut firsts: Vec<u64> = (0..self.num_samples()).collect();
        for at in 1..self.ids.len() {
            if groups[self.ids[at] as usize] == groups[self.ids[at - 1] as usize] {
                firsts[at] = firsts[at - 1];
            }
        }
        Ok(Groups::Of(firsts))
    }

    fn classes(&self) -> Vec<String> {
        self.inner.classes()
    }

    fn notes(&self) -> Vec<String> {
        self.inner.notes().into_iter().chain(self.notes.iter().cloned()).collect()
    }

    fn name(&self, id: u64) -> String {
        self.inner.name(self.ids[id as usize])
    }

    fn skipped(&self) -> Vec<String> {
        self.inner.skipped()
    }

    fn origin(&self) -> Vec<String> {
        self.inner.origin()
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{SyntheticSource, open};

    #[test]
    fn each_sample_is_tested_in_one_fold_and_trained_on_in_all_others() {
        let mut config =
            DataConfig { kind: crate::config::DataKind::Synthetic, ..Default::default() };
        config.synthetic.num_train = 103;
        config.folds = 5;
        let whole = SyntheticSource::new(&config.synthetic, "train").unwrap();
        let mut bytes = vec![0; whole.shape().num_bytes()];
        let mut contents = |source: &dyn Source| -> BTreeSet<Vec<u8>> {
            let ids = 0..source.num_samples();
            ids.map(|id| {
                source.read(id, Draw::NONE, &mut bytes).unwrap();
                bytes.clone()
            })
            .collect()
        };
        let all = contents(&whole);
        assert_eq!(all.len(), 103);
        let (mut tested, mut names) = (BTreeSet::new(), BTreeSet::new());
        for fold in 0..5 {
            let config = DataConfig { fold, ..config.clone() };
            let (train, test) = (open(&config, "train").unwrap(), open(&config, "test").unwrap());
            assert!((20..=21).contains(&test.num_samples()), "parts are equal");
            let (train_set, test_set) = (contents(&*train), contents(&*test));
            assert!(train_set.is_disjoint(&test_set));
            assert_eq!(train_set.len() + test_set.len(), 103);
            tested.extend(test_set);
            names.extend([train.fingerprint(), test.fingerprint()]);
        }
        assert_eq!(tested, all);
        assert_eq!(names.len(), 10, "data sets that differ have other fingerprints");
        for (folds, fold, words) in
            [(1, 0, "2 or more"), (5, 5, "below folds"), (104, 0, "at most the 103 samples")]
        {
            let config = DataConfig { folds, fold, ..config.clone() };
            let error = open(&config, "train").err().unwrap().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
