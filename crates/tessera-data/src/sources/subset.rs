//! Some of another source's samples.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use crate::config::DataConfig;
use crate::draw::Draw;
use crate::error::DataError;
use crate::file;
use crate::sampler::Permutation;
use crate::samples::{Groups, Source};
use crate::shape::SampleShape;
use crate::sources::splits;
use crate::tokens::manifest::TokenInfo;

/// Samples of a source that belong to one split.
pub(crate) struct Subset {
    inner: Arc<dyn Source>,
    /// Ascending.
    ids: Vec<u64>,
    notes: Vec<String>,
    fingerprint: String,
}

/// Begins a note about sets of older programs.
const NOT_NOTED: &str = "an older version packed this data set and did not note which samples are of \
                         one file: tiles, windows and clips of a file";

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
            notes.push(format!("{NOT_NOTED} may be in several folds; pack it again"));
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

    /// The part of a split that is used: files in the order of the hashes of their names, up to the
    /// share; samples, where it is not known which are of one file.
    pub(crate) fn fraction(inner: Arc<dyn Source>, fraction: f64) -> Result<Self, DataError> {
        let (groups, num) = (inner.groups()?, inner.num_samples());
        let (files, what) = match &groups {
            Groups::Of(groups) => (files_of(groups), ", files as a whole"),
            Groups::Single | Groups::Unknown => {
                ((0..num as usize).map(|at| at..at + 1).collect(), "")
            }
        };
        let place = |file: &Range<usize>| splits::place_in_fraction(&inner.name(file.start as u64));
        let mut files: Vec<_> = files.into_iter().map(|file| (place(&file), file)).collect();
        files.sort_unstable_by_key(|(place, file)| (*place, file.start));
        let (mut ids, share) = (Vec::new(), fraction * num as f64);
        for (_, file) in files {
            // A file is in if its middle is.
            if ids.len() as f64 + file.len() as f64 / 2.0 > share {
                break;
            }
            ids.extend(file.map(|id| id as u64));
        }
        ids.sort_unstable();
        if ids.is_empty() {
            let problem =
                format!("of {fraction} leaves none of {num} samples of the split train: raise it");
            return Err(DataError::Config { key: "fraction", problem });
        }
        let here = ids.len();
        let mut notes = vec![format!(
            "{here} of {num} samples of train are used{what} (data.fraction = {fraction})"
        )];
        if groups == Groups::Unknown {
            notes.push(format!("{NOT_NOTED} are used in part; pack it again"));
        }
        let described = format!("{} fraction {fraction}", inner.fingerprint());
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

/// The samples of each file, which follow each other.
fn files_of(groups: &[u64]) -> Vec<Range<usize>> {
    let mut files: Vec<Range<usize>> = Vec::new();
    for (at, group) in groups.iter().enumerate() {
        match files.last_mut() {
            Some(file) if groups[file.start] == *group => file.end = at + 1,
            _ => files.push(at..at + 1),
        }
    }
    files
}

/// The part of each sample, by the number of its file, and how many files there are. Files are taken
/// in the order of a permutation, each to the part that is the smallest by then.
fn parts_of_groups(groups: &[u64], folds: u64) -> (Vec<u64>, (&'static str, u64)) {
    let files = files_of(groups);
    let num = files.len() as u64;
    let order = Permutation::new(FOLDS, 0, num);
    let mut ordered: Vec<(u64, Range<usize>)> =
        (0..num).map(|at| (order.of(at), files[at as usize].clone())).collect();
    ordered.sort_unstable_by_key(|(place, _)| *place);
    let mut sizes: BTreeSet<(usize, u64)> = (0..folds.min(num)).map(|part| (0, part)).collect();
    let mut parts = vec![0; groups.len()];
    for (_, file) in ordered {
        let (size, part) = sizes.pop_first().expect("there is a part");
        sizes.insert((size + file.len(), part));
        parts[file].fill(part);
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

    fn tokens(&self) -> Option<&TokenInfo> {
        self.inner.tokens()
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
    use crate::open::open;
    use crate::sources::synthetic::SyntheticSource;

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
        // Of a part of the data the folds are parts of those of the whole, and each test stays.
        for fold in 0..5 {
            let part = DataConfig { fold, fraction: 0.5, ..config.clone() };
            let whole = DataConfig { fold, ..config.clone() };
            let [used, all] = [&part, &whole].map(|data| contents(&*open(data, "train").unwrap()));
            assert!(used.is_subset(&all) && used.len() < all.len());
            let [test, whole] = [&part, &whole].map(|data| open(data, "test").unwrap());
            assert_eq!(test.fingerprint(), whole.fingerprint());
        }
        for (folds, fold, words) in
            [(1, 0, "2 or more"), (5, 5, "below folds"), (104, 0, "at most the 103 samples")]
        {
            let config = DataConfig { folds, fold, ..config.clone() };
            let error = open(&config, "train").err().unwrap().to_string();
            assert!(error.contains(words), "{error}");
        }
    }

    /// Samples of files of three, by the hash of the names of the files.
    struct Tiles;

    impl Source for Tiles {
        fn num_samples(&self) -> u64 {
            30_000
        }
        fn shape(&self) -> SampleShape {
            SampleShape::image(1, 1, 1)
        }
        fn read(&self, _id: u64, _draw: Draw, _out: &mut [u8]) -> Result<(), DataError> {
            Ok(())
        }
        fn name(&self, id: u64) -> String {
            format!("{}.png#{}", id / 3, id % 3)
        }
        fn groups(&self) -> Result<Groups, DataError> {
            Ok(Groups::Of((0..30_000).map(|id| id / 3 * 3).collect()))
        }
        fn fingerprint(&self) -> String {
            "tiles".to_owned()
        }
    }

    #[test]
    fn a_smaller_fraction_is_inside_of_a_larger_one_and_has_its_share_of_whole_files() {
        let mut larger: Option<BTreeSet<u64>> = None;
        let mut names = BTreeSet::new();
        for fraction in [0.9, 0.5, 0.1, 0.05, 0.01, 0.000_1] {
            let part = Subset::fraction(Arc::new(Tiles), fraction).unwrap();
            let files: BTreeSet<u64> = part.ids.iter().map(|id| id / 3).collect();
            assert_eq!(part.ids.len(), 3 * files.len(), "files are whole");
            assert!((files.len() as f64 - 10_000.0 * fraction).abs() <= 0.5, "{fraction}");
            assert!(larger.is_none_or(|larger| files.is_subset(&larger)), "{fraction}");
            assert_eq!(part.ids, Subset::fraction(Arc::new(Tiles), fraction).unwrap().ids);
            names.insert(part.fingerprint());
            let Groups::Of(firsts) = part.groups().unwrap() else { panic!("groups stay") };
            assert!(firsts.iter().zip(0..).all(|(first, id)| *first == id / 3 * 3));
            larger = Some(files);
        }
        assert_eq!(names.len(), 6);
        let error = Subset::fraction(Arc::new(Tiles), 1e-9).err().unwrap();
        let expected = "data.fraction of 0.000000001 leaves none of 30000 samples";
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}
