//! Which split a published file belongs to.
//!
//! Folders or archives whose names begin with `train`, `test`, `val` or `eval` say so themselves.
//! Where none does, a part of the samples is held out by a hash of their names, so the same
//! samples are held out on every machine, whatever else is added to the data set.

use crate::error::DataError;
use crate::file;

/// The split for training.
pub(crate) const TRAIN: &str = "train";
/// The split for evaluation.
pub(crate) const TEST: &str = "test";

/// Refuses a split that there is not.
pub(crate) fn check(split: &str) -> Result<(), DataError> {
    if [TRAIN, TEST].contains(&split) {
        return Ok(());
    }
    let problem = format!("has splits train and test, not {split:?}");
    Err(DataError::Config { key: "kind", problem })
}

/// The split that the name of a folder or an archive says.
fn named(component: &str) -> Option<&'static str> {
    let name = component.to_ascii_lowercase();
    match name {
        name if name.starts_with("train") => Some(TRAIN),
        name if ["test", "val", "eval"].iter().any(|start| name.starts_with(start)) => Some(TEST),
        _ => None,
    }
}

/// Whether a sample of this name is in the held-out part of `share`.
pub(crate) fn is_held_out(name: &str, share: f64) -> bool {
    let digest = file::digest_of(name.as_bytes());
    let (head, _) = digest.split_first_chunk().expect("a digest has 32 bytes");
    (u64::from_be_bytes(*head) as f64) < share * 2f64.powi(64)
}

/// Keeps what belongs to `split`: by the first component of the names that `component` gives, or
/// by the hash of each item's name where no component says anything about the split.
pub(crate) fn keep<T>(
    items: &mut Vec<T>,
    split: &str,
    holdout: f64,
    component: impl Fn(&T) -> Option<String>,
    name: impl Fn(&T) -> String,
) -> Result<(), DataError> {
    check(split)?;
    let says = |item: &T| component(item).and_then(|component| named(&component));
    let has = |split| items.iter().any(|item| says(item) == Some(split));
    if has(TEST) {
        // With a test split by name, everything else is for training.
        items.retain(|item| (says(item) == Some(TEST)) == (split == TEST));
        return Ok(());
    }
    if has(TRAIN) {
        items.retain(|item| says(item) == Some(TRAIN));
    }
    items.retain(|item| is_held_out(&name(item), holdout) == (split == TEST));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(names: &[&'static str], split: &str, holdout: f64) -> Vec<&'static str> {
        let mut items = names.to_vec();
        let component =
            |name: &&'static str| name.split_once('/').map(|(first, _)| first.to_owned());
        keep(&mut items, split, holdout, component, |name| (*name).to_owned()).unwrap();
        items
    }

    #[test]
    fn names_of_folders_say_the_split() {
        let names = ["train/a", "Training/b", "val/c", "validation/d", "else/e"];
        assert_eq!(kept(&names, "train", 0.5), ["train/a", "Training/b", "else/e"]);
        assert_eq!(kept(&names, "test", 0.5), ["val/c", "validation/d"]);
    }

    #[test]
    fn without_such_names_each_sample_is_in_one_part_for_good() {
        let names: Vec<&'static str> =
            (0..1000).map(|id| &*Box::leak(format!("{id}.jpg").into_boxed_str())).collect();
        let (train, test) = (kept(&names, "train", 0.1), kept(&names, "test", 0.1));
        assert_eq!(train.len() + test.len(), 1000);
        // Five standard deviations of a binomial of 1000 and 1/10 are 47.
        assert!((53..147).contains(&test.len()), "{}", test.len());
        assert_eq!(
            kept(&names[..500], "test", 0.1),
            test[..kept(&names[..500], "test", 0.1).len()]
        );
        assert!(kept(&names, "test", 0.0).is_empty());
    }
}
