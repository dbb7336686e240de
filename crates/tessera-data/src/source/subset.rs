//! Some of another source's samples.

use std::sync::Arc;

use crate::config::DataConfig;
use crate::draw::Draw;
use crate::error::DataError;
use crate::file;
use crate::sampler::Permutation;
use crate::shape::SampleShape;
use crate::source::{Source, splits};

/// Samples of a source that belong to one split.
pub(crate) struct Subset {
    inner: Arc<dyn Source>,
    ids: Vec<u64>,
    fingerprint: String,
}

/// Key of the folds: the same for all runs, whatever their seed.
const FOLDS: u64 = u64::from_be_bytes(*b"foldfold");

impl Subset {
    /// All samples but one of `config.folds` equal parts, or for the split `test` that part alone. A
    /// permutation says which sample is in which part.
    pub(crate) fn fold(
        inner: Arc<dyn Source>,
        config: &DataConfig,
        split: &str,
    ) -> Result<Self, DataError> {
        let (num, folds, fold) = (inner.num_samples(), config.folds, config.fold);
        splits::check(split)?;
        if folds > num {
            let problem = format!("must be at most the {num} samples that there are, not {folds}");
            return Err(DataError::Config { key: "folds", problem });
        }
        let order = Permutation::new(FOLDS, 0, num);
        let part = |id| u128::from(order.of(id)) * u128::from(folds) / u128::from(num);
        let is_test = |id: &u64| part(*id) == u128::from(fold);
        let ids = (0..num).filter(|id| is_test(id) == (split == splits::TEST)).collect();
        let described = format!("{} {split} fold {fold} of {folds}", inner.fingerprint());
        Ok(Self { inner, ids, fingerprint: file::sha256_of(described.as_bytes()) })
    }

    /// The samples of `split` in a source without splits of its own, by the hash of their names; none
    /// if there are none.
    pub(crate) fn by_hash(
        inner: Arc<dyn Source>,
        split: &str,
        holdout: f64,
    ) -> Result<Option<Self>, DataError> {
        let mut ids: Vec<u64> = (0..inner.num_samples()).collect();
        splits::keep(&mut ids, split, holdout, |_| None, |&id| inner.name(id))?;
        if ids.is_empty() {
            return Ok(None);
        }
        let described = format!("{} {split} {holdout}", inner.fingerprint());
        Ok(Some(Self { inner, ids, fingerprint: file::sha256_of(described.as_bytes()) }))
    }
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

    fn name(&self, id: u64) -> String {
        self.inner.name(self.ids[id as usize])
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
    use std::collections::BTreeSet;

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
