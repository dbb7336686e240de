//! What the splits of a source tell of themselves, for the manifest of what is made of them.

use std::sync::Arc;

use crate::error::DataError;
use crate::manifest::Grouping;
use crate::samples::{Groups, Source};

/// A split by its name.
pub(crate) type Split<'a> = (&'a str, Arc<dyn Source>);

/// Which samples of the splits are of one file: what the manifest says, and numbers where shards say
/// them.
pub(crate) type GroupsOfSplits = (Option<Grouping>, Vec<Option<Vec<u64>>>);

/// Which samples of the splits are of one file.
///
/// # Errors
///
/// As [`Source::groups`].
pub(crate) fn groups_of(splits: &[Split<'_>]) -> Result<GroupsOfSplits, DataError> {
    let groups: Vec<Groups> =
        splits.iter().map(|(_, source)| source.groups()).collect::<Result<_, _>>()?;
    let none = vec![None; splits.len()];
    if groups.contains(&Groups::Unknown) {
        return Ok((None, none));
    }
    if groups.iter().all(|groups| *groups == Groups::Single) {
        return Ok((Some(Grouping::Single), none));
    }
    let numbers = |(groups, (_, source)): (Groups, &Split<'_>)| match groups {
        Groups::Of(groups) => Some(groups),
        Groups::Single | Groups::Unknown => Some((0..source.num_samples()).collect()),
    };
    Ok((Some(Grouping::Recorded), groups.into_iter().zip(splits).map(numbers).collect()))
}

/// What the splits tell of themselves, each line once.
pub(crate) fn notes_of(splits: &[Split<'_>]) -> Vec<String> {
    once(splits.iter().flat_map(|(_, source)| source.notes()))
}

/// Names of what was published, each once.
pub(crate) fn origin_of(splits: &[Split<'_>]) -> Vec<String> {
    once(splits.iter().flat_map(|(_, source)| source.origin()))
}

fn once(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut known: Vec<String> = Vec::new();
    for line in lines {
        if !known.contains(&line) {
            known.push(line);
        }
    }
    known
}

/// Refuses splits whose samples have other shapes than those of the first; the error completes a
/// sentence about the data.
pub(crate) fn check_shapes(splits: &[Split<'_>]) -> Result<(), String> {
    let (first, source) = &splits[0];
    let shape = source.shape();
    match splits.iter().find(|(_, source)| source.shape() != shape) {
        None => Ok(()),
        Some((name, other)) => Err(format!(
            "has samples of another shape in split {name} than in {first}, {} and {shape}: set the \
             size of samples (image.height and image.width, or audio.sample_rate)",
            other.shape()
        )),
    }
}
