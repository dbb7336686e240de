//! The atlas of a codebook: a folder that `tessera atlas` makes with a model, and that a report reads.
//!
//! `docs/formats.md` ("Atlas") says what each file holds. All of it is checked when it is read; only pictures and sounds are
//! opened later, where they are shown.

mod npy;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::ReportError;
use crate::read::json;

/// What the format is called, and its version.
const FORMAT: &str = "tessera-atlas";
const VERSION: u64 = 1;

/// What the samples are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Modality {
    Image,
    Audio,
    Video,
}

/// `atlas.json`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct About {
    format: String,
    version: u64,
    /// Version of the program that made it.
    pub(crate) tessera: String,
    /// Hash of the model.
    pub(crate) model: String,
    pub(crate) modality: Modality,
    /// Instants a second of sound; 0 of others.
    #[serde(default)]
    pub(crate) sample_rate: u32,
    /// The split that was counted.
    pub(crate) split: String,
    /// Samples that were counted.
    pub(crate) num_samples: u64,
    pub(crate) levels: Vec<AboutLevel>,
    /// Inputs with their codes, in `index_maps/`.
    #[serde(default)]
    pub(crate) num_index_maps: usize,
}

/// A level of `atlas.json`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AboutLevel {
    pub(crate) num_codes: usize,
    pub(crate) dim: usize,
    /// Axes of a sample's codes.
    pub(crate) axes: Vec<usize>,
    /// How often each code was taken.
    pub(crate) counts: Vec<u64>,
    /// `alone-L.png`: each code decoded alone.
    pub(crate) alone: Option<Cells>,
    /// `context-L.png`: each code in a mean context.
    pub(crate) context: Option<Cells>,
    /// `patches-L.png`: a row a code, of real patches that take it.
    pub(crate) patches: Option<Cells>,
    /// `neighbours-L.npy`: the codes that its rows and columns are of.
    pub(crate) neighbours: Option<Vec<usize>>,
}

/// The cells of a sheet, without anything between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cells {
    pub(crate) columns: usize,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

/// `index_maps/NNN.json`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct IndexMap {
    /// Number of the sample in its split.
    pub(crate) id: u64,
    /// The codes of each level, row by row.
    pub(crate) codes: Vec<Vec<usize>>,
}

/// An atlas.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Atlas {
    pub(crate) folder: PathBuf,
    pub(crate) about: About,
    /// The codes `[K, D]` of each level.
    pub(crate) codes_kd: Vec<Vec<f32>>,
    /// Of each level, how often a code (row) is left of or above another (column).
    pub(crate) neighbours: Vec<Option<Vec<u32>>>,
    pub(crate) maps: Vec<IndexMap>,
}

impl Atlas {
    /// Reads the atlas at `folder`; none where there is none.
    pub(crate) fn read(folder: &Path) -> Result<Option<Self>, ReportError> {
        let path = folder.join("atlas.json");
        let Some(about) = json::<About>(&path)? else { return Ok(None) };
        let wrong = |problem: String| ReportError::content(&path, problem);
        if about.format != FORMAT || about.version != VERSION {
            return Err(wrong(format!(
                "expected {FORMAT} of version {VERSION}, found {} of version {}: make it anew with tessera atlas",
                about.format, about.version
            )));
        }
        if about.levels.is_empty() {
            return Err(wrong("levels is empty: an atlas has at least one".to_owned()));
        }
        let (mut codes_kd, mut neighbours) = (Vec::new(), Vec::new());
        for (number, level) in about.levels.iter().enumerate() {
            check(level).map_err(|problem| wrong(format!("levels[{number}]: {problem}")))?;
            let file = folder.join(format!("codebook-{number}.npy"));
            codes_kd.push(npy::read(
                &file,
                "<f4",
                &[level.num_codes, level.dim],
                f32::from_le_bytes,
            )?);
            neighbours.push(match &level.neighbours {
                Some(codes) => {
                    let file = folder.join(format!("neighbours-{number}.npy"));
                    Some(npy::read(&file, "<u4", &[codes.len(); 2], u32::from_le_bytes)?)
                }
                None => None,
            });
        }
        let mut atlas =
            Self { folder: folder.to_owned(), codes_kd, neighbours, maps: Vec::new(), about };
        for number in 0..atlas.about.num_index_maps {
            let map = atlas.read_map(number)?;
            atlas.maps.push(map);
        }
        Ok(Some(atlas))
    }

    fn read_map(&self, number: usize) -> Result<IndexMap, ReportError> {
        let path = self.folder.join(format!("index_maps/{number:03}.json"));
        let missing =
            || ReportError::content(&path, "atlas.json says that it is there, and it is not");
        let map: IndexMap = json(&path)?.ok_or_else(missing)?;
        let levels = &self.about.levels;
        if map.codes.len() != levels.len() {
            let problem =
                format!("expected codes of {} levels, found {}", levels.len(), map.codes.len());
            return Err(ReportError::content(&path, problem));
        }
        for (at, (codes, level)) in map.codes.iter().zip(levels).enumerate() {
            let positions: usize = level.axes.iter().product();
            if codes.len() != positions {
                let problem =
                    format!("codes[{at}]: expected {positions} codes, found {}", codes.len());
                return Err(ReportError::content(&path, problem));
            }
            if let Some(code) = codes.iter().find(|code| **code >= level.num_codes) {
                let problem = format!("codes[{at}]: code {code} is not below {}", level.num_codes);
                return Err(ReportError::content(&path, problem));
            }
        }
        Ok(map)
    }

    /// The picture of an input.
    pub(crate) fn input(&self, number: usize) -> PathBuf {
        self.folder.join(format!("index_maps/{number:03}.png"))
    }

    /// A sheet of a level: `name` is `alone`, `context` or `patches`.
    pub(crate) fn sheet(&self, name: &str, level: usize, extension: &str) -> PathBuf {
        self.folder.join(format!("{name}-{level}.{extension}"))
    }
}

fn check(level: &AboutLevel) -> Result<(), String> {
    let AboutLevel { num_codes, counts, .. } = level;
    if *num_codes == 0 || level.dim == 0 || level.axes.is_empty() {
        return Err("num_codes, dim and the number of axes have to be at least 1".to_owned());
    }
    if counts.len() != *num_codes {
        return Err(format!("expected {num_codes} counts, one a code, found {}", counts.len()));
    }
    for cells in [level.alone, level.context, level.patches].into_iter().flatten() {
        if cells.columns == 0 || cells.width == 0 || cells.height == 0 {
            return Err("columns, width and height of cells have to be at least 1".to_owned());
        }
    }
    let neighbours = level.neighbours.iter().flatten();
    if let Some(code) = neighbours.clone().find(|code| **code >= *num_codes) {
        return Err(format!("neighbours: code {code} is not below {num_codes}"));
    }
    let distinct: BTreeSet<usize> = neighbours.copied().collect();
    if distinct.len() != level.neighbours.as_ref().map_or(0, Vec::len) {
        return Err("neighbours: a code is there twice".to_owned());
    }
    Ok(())
}
