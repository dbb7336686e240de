//! Which split a published file belongs to.
//!
//! `data.split` says which folders, archives or arrays are which split. Where it says nothing, their
//! names do, if all of them are words for a split. Else a part of the samples is held out by a hash
//! of their names, so the same samples are held out on every machine, whatever else is added to the
//! data set. What became of what is told, in [`Division::notes`]: nothing is left out silently.

use std::collections::BTreeSet;

use crate::config::DataConfig;
use crate::config::split::{SplitConfig, entries, longest};
use crate::error::{DataError, one_line};
use crate::file;

/// The split for training.
pub(crate) const TRAIN: &str = "train";
/// The split for evaluation.
pub(crate) const TEST: &str = "test";

/// Words for a split, in lower case.
const WORDS: [(&str, Place); 11] = [
    ("train", Place::Train),
    ("training", Place::Train),
    ("trainval", Place::Train),
    ("test", Place::Test),
    ("testing", Place::Test),
    ("val", Place::Test),
    ("valid", Place::Test),
    ("validation", Place::Test),
    ("dev", Place::Test),
    ("eval", Place::Test),
    ("evaluation", Place::Test),
];

/// Most names that a note lists.
const MAX_NAMED: usize = 5;

/// Where the samples of a folder or an archive go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// To the split for training.
    Train,
    /// To the split for evaluation.
    Test,
    /// To one of the two, by the hash of each sample's own name.
    ByName,
    /// To none.
    LeftOut,
}

/// What carries the name of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// The first folder of a file's path.
    Folder,
    /// An archive, or the folder right below the data set that it is in.
    Archive,
    /// A file of samples.
    Array,
}

impl Unit {
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Folder => ("folder", "files"),
            Self::Archive => ("archive", "samples"),
            Self::Array => ("array", "files"),
        }
    }
}

/// What the paths of a data set say about its splits.
#[derive(Debug)]
pub(crate) struct Division {
    /// Of each path.
    pub(crate) places: Vec<Place>,
    /// How many bytes of each path name its split; 0 where it says none.
    pub(crate) prefixes: Vec<u32>,
    /// Whether a path is in another place than where it was when each name that began with a word
    /// was a split's.
    pub(crate) moved: bool,
    unit: Unit,
    holdout: f64,
    /// What is told before anything is counted.
    said: String,
    /// What else is told.
    notes: Vec<String>,
}

impl Division {
    /// Looks at all paths of a data set, with `/` between their parts.
    ///
    /// # Errors
    ///
    /// [`DataError::Config`] if `data.split` names what is not there, or names it for both splits.
    pub(crate) fn of(paths: &[&str], unit: Unit, data: &DataConfig) -> Result<Self, DataError> {
        let mut division = Self {
            places: vec![Place::ByName; paths.len()],
            prefixes: vec![0; paths.len()],
            moved: false,
            unit,
            holdout: data.holdout,
            said: String::new(),
            notes: Vec::new(),
        };
        match data.split.is_empty() {
            true => division.by_names(paths),
            false => division.by_config(paths, &data.split)?,
        }
        division.moved = has_moved(paths, &division.places);
        Ok(division)
    }

    fn by_names(&mut self, paths: &[&str]) {
        let (what, _) = self.unit.words();
        let first = |path: &str| -> Option<usize> {
            match (path.split_once('/'), self.unit) {
                // What lies right in the folder is in no folder that could be a split.
                (Some((".", _)), Unit::Folder) => None,
                (Some((first, _)), _) => Some(first.len()),
                (None, Unit::Folder) => None,
                (None, _) => Some(path.len()),
            }
        };
        let names: BTreeSet<&str> =
            paths.iter().filter_map(|path| Some(&path[..first(path)?])).collect();
        let is = |place| {
            let named = names.iter().copied();
            named.filter(move |name| named_place(name) == place).collect::<Vec<_>>()
        };
        let (train, test, neither) = (is(Some(Place::Train)), is(Some(Place::Test)), is(None));
        if names.is_empty() || !neither.is_empty() {
            self.said = format!("no {what} is named as a split");
            if neither.len() < names.len() {
                let note = format!(
                    "{} beside {} are no splits, since not all are named so: data.split says \
                     otherwise",
                    listed(&[train, test].concat()),
                    listed(&neither)
                );
                self.notes.push(note);
            }
            return;
        }
        self.said = match train.is_empty() && paths.iter().any(|path| first(path).is_none()) {
            true => format!("train is what lies beside the {what}s, {}", said(what, &train, &test)),
            false => said(what, &train, &test),
        };
        for (at, path) in paths.iter().enumerate() {
            let Some(length) = first(path) else {
                // Beside a folder for the test alone, the rest is for training.
                self.places[at] = if train.is_empty() { Place::Train } else { Place::LeftOut };
                continue;
            };
            self.prefixes[at] = length as u32;
            self.places[at] = match named_place(&path[..length]) {
                Some(Place::Train) if test.is_empty() => Place::ByName,
                place => place.expect("all names are words"),
            };
        }
    }

    fn by_config(&mut self, paths: &[&str], split: &SplitConfig) -> Result<(), DataError> {
        let wrong = |(key, problem)| DataError::Config { key, problem };
        let mut train = entries("split.train", &split.train).map_err(wrong)?;
        let mut test = entries("split.test", &split.test).map_err(wrong)?;
        for (at, path) in paths.iter().enumerate() {
            let (in_train, in_test) = (longest(&mut train, path), longest(&mut test, path));
            if in_train.is_some() && in_test.is_some() {
                let path = one_line(path);
                let problem = format!("names {path} for train and for test: take it from one");
                return Err(DataError::Config { key: "split", problem });
            }
            self.places[at] = match (in_train, in_test) {
                (Some(_), _) if split.test.is_empty() => Place::ByName,
                (Some(_), _) => Place::Train,
                (_, Some(_)) => Place::Test,
                _ if split.train.is_empty() => Place::Train,
                _ => Place::LeftOut,
            };
            if !split.test.is_empty() {
                self.prefixes[at] = in_train.or(in_test).unwrap_or(0) as u32;
            }
        }
        let (what, _) = self.unit.words();
        for (key, entries) in [("split.train", &train), ("split.test", &test)] {
            if let Some(unused) = entries.iter().find(|entry| !entry.used) {
                let there: BTreeSet<&str> =
                    paths.iter().map(|path| path.split('/').next().unwrap_or(path)).collect();
                let there: Vec<&str> = there.into_iter().collect();
                let problem = format!(
                    "names {:?}, which is no {what} with samples: there are {}",
                    unused.text,
                    listed(&there)
                );
                return Err(DataError::Config { key, problem });
            }
        }
        let texts =
            |texts: &[String]| texts.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        self.said = match (split.train.is_empty(), split.test.is_empty()) {
            (_, true) => format!("by data.split train is {}", texts(&split.train)),
            (true, _) => format!("by data.split test is {}", texts(&split.test)),
            _ => {
                format!(
                    "by data.split train is {}, test is {}",
                    texts(&split.train),
                    texts(&split.test)
                )
            }
        };
        Ok(())
    }

    /// The split of a sample of path `at`, by the sample's name where its path says none.
    pub(crate) fn split_of(&self, at: usize, name: &str) -> Option<&'static str> {
        match self.places[at] {
            Place::Train => Some(TRAIN),
            Place::Test => Some(TEST),
            Place::ByName if is_held_out(name, self.holdout) => Some(TEST),
            Place::ByName => Some(TRAIN),
            Place::LeftOut => None,
        }
    }

    /// What became of what, in lines for a person. `splits` are those of all samples, as
    /// [`Division::split_of`] gives them; `name` is what a sample is called.
    pub(crate) fn notes(
        &self,
        splits: &[Option<&str>],
        name: impl Fn(usize) -> String,
    ) -> Vec<String> {
        let (what, samples) = self.unit.words();
        let count = |split| splits.iter().filter(|found| **found == split).count();
        let (train, test) = (count(Some(TRAIN)), count(Some(TEST)));
        let counted = |count: usize| match count {
            1 => format!("1 {}", samples.trim_end_matches('s')),
            _ => format!("{count} {samples}"),
        };
        let how = match self.places.contains(&Place::ByName) {
            true => format!(", held out by their names (data.holdout = {})", self.holdout),
            false => String::new(),
        };
        let mut notes =
            vec![format!("{}: {} in train, {test} in test{how}", self.said, counted(train))];
        notes.extend(self.notes.iter().cloned());
        if let Some(first) = splits.iter().position(Option::is_none) {
            let (count, first) = (counted(count(None)), one_line(&name(first)));
            notes.push(format!("left out, in no {what} that is a split: {count}, such as {first}"));
        }
        notes
    }
}

/// Refuses a split that there is not.
pub(crate) fn check(split: &str) -> Result<(), DataError> {
    if [TRAIN, TEST].contains(&split) {
        return Ok(());
    }
    let problem = format!("has splits train and test, not {split:?}");
    Err(DataError::Config { key: "kind", problem })
}

/// Whether a sample of this name is in the held-out part of `share`.
pub(crate) fn is_held_out(name: &str, share: f64) -> bool {
    (hash_of(name) as f64) < share * 2f64.powi(64)
}

/// Where a file of this name stands when a part of the data is drawn. Whether it is held out says
/// nothing about that.
pub(crate) fn place_in_fraction(name: &str) -> u64 {
    hash_of(&format!("data.fraction {name}"))
}

fn hash_of(text: &str) -> u64 {
    let digest = file::digest_of(text.as_bytes());
    let (head, _) = digest.split_first_chunk().expect("a digest has 32 bytes");
    u64::from_be_bytes(*head)
}

/// The split that the name of a folder or an archive says: it is a word, or begins with one that
/// ends before a `-`, a `_`, a dot or a digit.
fn named_place(name: &str) -> Option<Place> {
    let name = name.to_ascii_lowercase();
    let is = |word: &str| {
        let rest = name.strip_prefix(word)?.chars().next();
        rest.is_none_or(|next| "-_.".contains(next) || next.is_ascii_digit()).then_some(())
    };
    WORDS.iter().find(|(word, _)| is(word).is_some()).map(|&(_, place)| place)
}

/// Some names, and how many more there are.
pub(crate) fn listed(names: &[&str]) -> String {
    let named: Vec<String> = names.iter().take(MAX_NAMED).map(|name| one_line(name)).collect();
    match names.len().saturating_sub(MAX_NAMED) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

fn said(what: &str, train: &[&str], test: &[&str]) -> String {
    let one = |split: &str, names: &[&str]| match names {
        [] => None,
        [name] => Some(format!("{split} is {what} {}", one_line(name))),
        names => Some(format!("{split} is {what}s {}", listed(names))),
    };
    let said: Vec<String> = [one(TRAIN, train), one(TEST, test)].into_iter().flatten().collect();
    said.join(", ")
}

/// Whether a path is elsewhere than where names that merely begin with a word put it.
fn has_moved(paths: &[&str], places: &[Place]) -> bool {
    let before = |path: &str| {
        let begins = |words: &[&str]| {
            words.iter().any(|word| {
                path.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
            })
        };
        match () {
            () if begins(&["train"]) => Some(Place::Train),
            () if begins(&["test", "val", "eval"]) => Some(Place::Test),
            () => None,
        }
    };
    let has = |place| paths.iter().any(|path| before(path) == Some(place));
    let (has_train, has_test) = (has(Place::Train), has(Place::Test));
    paths.iter().zip(places).any(|(path, &place)| {
        place
            != match before(path) {
                Some(Place::Test) => Place::Test,
                _ if has_test => Place::Train,
                None if has_train => Place::LeftOut,
                _ => Place::ByName,
            }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(holdout: f64, train: &[&str], test: &[&str]) -> DataConfig {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let split = SplitConfig { train: owned(train), test: owned(test) };
        DataConfig { holdout, split, ..DataConfig::default() }
    }

    /// The paths in each split, and what is said.
    fn told(paths: &[&str], data: &DataConfig) -> (Vec<String>, Vec<String>, String) {
        let division = Division::of(paths, Unit::Folder, data).unwrap();
        let splits: Vec<_> =
            paths.iter().enumerate().map(|(at, path)| division.split_of(at, path)).collect();
        let kept = |split| {
            let of = paths.iter().zip(&splits).filter(|(_, found)| **found == Some(split));
            of.map(|(path, _)| (*path).to_owned()).collect()
        };
        let notes = division.notes(&splits, |at| paths[at].to_owned());
        (kept(TRAIN), kept(TEST), notes.join("\n"))
    }

    #[test]
    fn a_name_is_a_splits_if_it_is_the_word_with_something_set_off() {
        for name in ["train", "Training", "train-clean-100", "train2017", "trainval", "TRAIN.1"] {
            assert_eq!(named_place(name), Some(Place::Train), "{name}");
        }
        for name in ["test", "testing", "val", "valid_0", "validation", "eval", "dev-clean"] {
            assert_eq!(named_place(name), Some(Place::Test), "{name}");
        }
        for name in ["valley", "trainer", "tests", "values", "retrain", "evaluations", ""] {
            assert_eq!(named_place(name), None, "{name}");
        }
    }

    #[test]
    fn folders_are_splits_if_all_of_them_are_named_so() {
        let paths = ["0.png", "test/b", "train/a", "val/c/d"];
        let (train, test, notes) = told(&paths, &data(0.5, &[], &[]));
        assert_eq!(
            (train, test),
            (vec!["train/a".into()], vec!["test/b".into(), "val/c/d".into()])
        );
        assert_eq!(
            notes,
            "train is folder train, test is folders test, val: 1 file in train, 2 in test\n\
             left out, in no folder that is a split: 1 file, such as 0.png"
        );
        // One that is none: all are classes, and that is told.
        let paths = ["bridge/a", "train_interior/b", "valley/c"];
        let (train, test, notes) = told(&paths, &data(0.0, &[], &[]));
        assert_eq!((train.len(), test.len()), (3, 0));
        assert!(notes.contains("train_interior beside bridge, valley are no splits"), "{notes}");
        // Beside a folder for the test the rest is for training.
        let (train, test, notes) = told(&["0.png", "test/1.png"], &data(0.5, &[], &[]));
        assert_eq!((train, test), (vec!["0.png".into()], vec!["test/1.png".into()]));
        assert!(notes.starts_with("train is what lies beside the folders, test is folder test: "));
        // Only one for training: a part of it is held out.
        let paths: Vec<String> = (0..64).map(|id| format!("train/{id}")).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        let (train, test, notes) = told(&paths, &data(0.5, &[], &[]));
        // Five standard deviations of a binomial of 64 and 1/2 are 20.
        assert!(train.len() + test.len() == 64 && (12..=52).contains(&test.len()));
        assert!(
            notes.starts_with("train is folder train: ")
                && notes.contains("held out by their names")
        );
    }

    #[test]
    fn the_configuration_says_which_folders_are_which_split() {
        let paths = ["a/x/1", "b/y/2", "c/y/3"];
        let kept = |train: &[&str], test: &[&str]| {
            let (train, test, notes) = told(&paths, &data(0.0, train, test));
            (train.join(" "), test.join(" "), notes)
        };
        assert_eq!(kept(&[], &["b/"]).0, "a/x/1 c/y/3");
        assert_eq!(kept(&["*/x"], &["*/y"]).1, "b/y/2 c/y/3");
        assert_eq!(kept(&["*"], &[]).0, "a/x/1 b/y/2 c/y/3");
        let (train, test, notes) = kept(&["a"], &["b"]);
        assert_eq!((train.as_str(), test.as_str()), ("a/x/1", "b/y/2"));
        assert!(notes.contains("left out") && notes.contains("such as c/y/3"), "{notes}");
        for (train, test, words) in [
            (&["a", "d"][..], &[][..], "split.train names \"d\", which is no folder with samples"),
            (&["*"], &["b"], "split names b/y/2 for train and for test"),
            (&["/a"], &[], "split.train holds \"/a\": give paths below data.path"),
        ] {
            let error = Division::of(&paths, Unit::Folder, &data(0.0, train, test)).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
    }

    /// What an older program put elsewhere has another identity.
    #[test]
    fn it_is_known_whether_names_that_merely_begin_like_a_split_matter() {
        let moved = |paths: &[&str]| {
            Division::of(paths, Unit::Archive, &data(0.1, &[], &[])).unwrap().moved
        };
        assert!(!moved(&["set-0.tar", "set-1.tar"]));
        assert!(!moved(&["train-0.tar", "train-1.tar"]));
        assert!(!moved(&["train-0.tar", "val-0.tar"]));
        assert!(moved(&["train-0.tar", "valley.tar"]));
        assert!(moved(&["train-0.tar", "other.tar"]));
        assert!(moved(&["train-0.tar", "dev-0.tar"]));
    }

    #[test]
    fn without_such_names_each_sample_is_in_one_part_for_good() {
        let names: Vec<String> = (0..1000).map(|id| format!("{id}.jpg")).collect();
        let held = |names: &[String], share| -> Vec<String> {
            names.iter().filter(|name| is_held_out(name, share)).cloned().collect()
        };
        let test = held(&names, 0.1);
        // Five standard deviations of a binomial of 1000 and 1/10 are 47.
        assert!((53..147).contains(&test.len()), "{}", test.len());
        let half = held(&names[..500], 0.1);
        assert_eq!(half, test[..half.len()]);
        assert!(held(&names, 0.0).is_empty());
    }
}
