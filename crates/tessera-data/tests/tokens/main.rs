//! Token sets: written on any number of ranks, read as any other data set, and every way in which they
//! can break.

#![allow(clippy::unwrap_used)] // the lint knows `#[test]` functions, not their helpers

mod damage;
mod judging;
mod reading;
mod writing;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tessera_data::tokens::{
    PlannedShard, TokenLevel, TokenManifest, TokenPlan, TokenSetWriter, TokenShard, Tokenizer,
};
use tessera_data::{
    DataConfig, DataError, DataErrorKind, DataKind, Draw, Groups, SampleShape, Source, source,
};

/// Samples that are encoded: of the classes 0 to 2, three of a file, sample 4 without a label.
struct Encoded {
    num_samples: u64,
}

impl Source for Encoded {
    fn num_samples(&self) -> u64 {
        self.num_samples
    }
    fn shape(&self) -> SampleShape {
        SampleShape::image(3, 8, 12)
    }
    fn read(&self, _id: u64, _draw: Draw, _out: &mut [u8]) -> Result<(), DataError> {
        Ok(())
    }
    fn label(&self, id: u64) -> Result<Option<i64>, DataError> {
        Ok((id != 4).then_some(id as i64 % 3))
    }
    fn has_labels(&self) -> bool {
        true
    }
    fn num_classes(&self) -> Result<Option<u64>, DataError> {
        Ok(Some(3))
    }
    fn classes(&self) -> Vec<String> {
        ["ant", "bee", "cow"].map(str::to_owned).to_vec()
    }
    fn groups(&self) -> Result<Groups, DataError> {
        Ok(Groups::Of((0..self.num_samples).map(|id| id / 3 * 3).collect()))
    }
    fn origin(&self) -> Vec<String> {
        vec!["animals".to_owned()]
    }
    fn fingerprint(&self) -> String {
        format!("{:064}", self.num_samples)
    }
}

const NUM_TRAIN: u64 = 11;
const NUM_TEST: u64 = 5;

/// A level of each width, on two grids.
fn levels() -> Vec<TokenLevel> {
    vec![
        TokenLevel { num_codes: 256, axes: vec![2, 3] },
        TokenLevel { num_codes: 257, axes: vec![2, 3] },
        TokenLevel { num_codes: 70_000, axes: vec![1, 2] },
    ]
}

fn words(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

/// Splits of 11 and 5 samples, in shards of at most `shard_samples`.
fn plan_of(levels: Vec<TokenLevel>, variants: &[&str], shard_samples: u64) -> TokenPlan {
    let tokenizer = Tokenizer { hash: "0123abcd".to_owned(), levels };
    let splits: [(&str, Arc<dyn Source>); 2] = [
        ("train", Arc::new(Encoded { num_samples: NUM_TRAIN })),
        ("test", Arc::new(Encoded { num_samples: NUM_TEST })),
    ];
    let data = DataConfig { kind: DataKind::Folder, path: "in".into(), ..DataConfig::default() };
    TokenPlan::new(&tokenizer, &words(variants), &data, &splits, shard_samples).unwrap()
}

fn plan() -> TokenPlan {
    plan_of(levels(), &["plain", "flip"], 4)
}

/// The code at a place: any number that differs from place to place, up to the largest.
fn code(level: usize, num_codes: u32, id: u64, variant: usize, position: usize) -> u32 {
    let place =
        (id * 31 + variant as u64 * 17 + position as u64 * 7 + level as u64) * 2_654_435_761;
    match (id, variant, position) {
        (0, 0, 0) => num_codes - 1,
        _ => (place % u64::from(num_codes)) as u32,
    }
}

/// The codes of a variant of a sample, of all levels.
fn codes(levels: &[TokenLevel], id: u64, variant: usize) -> Vec<u32> {
    let of_level = |(number, level): (usize, &TokenLevel)| -> Vec<u32> {
        let place = |position| code(number, level.num_codes, id, variant, position);
        (0..level.num_positions()).map(place).collect()
    };
    levels.iter().enumerate().flat_map(of_level).collect()
}

/// What a tokeniser would make of a shard.
fn content(plan: &TokenPlan, shard: &PlannedShard) -> TokenShard {
    let head = plan.head();
    let mut content =
        TokenShard { codes: vec![Vec::new(); head.levels.len()], ..Default::default() };
    for id in shard.samples.clone() {
        for (number, level) in head.levels.iter().enumerate() {
            for variant in 0..head.variants.len() {
                let place = |position| code(number, level.num_codes, id, variant, position);
                content.codes[number].extend((0..level.num_positions()).map(place));
            }
        }
        content.labels.push((id != 4).then_some(id as i64 % 3));
        content.ids.push(id);
    }
    content
}

/// Writes the whole set in one go.
fn write(target: &Path, plan: &TokenPlan) -> TokenManifest {
    let writer = TokenSetWriter::begin(target, plan).unwrap();
    for shard in plan.shards() {
        writer.write(&shard, &content(plan, &shard)).unwrap();
    }
    writer.finish().unwrap()
}

/// The plan of above, written.
fn written() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("set");
    write(&target, &plan());
    (folder, target)
}

fn config(path: &Path) -> DataConfig {
    DataConfig { kind: DataKind::Tokens, path: path.to_owned(), ..DataConfig::default() }
}

fn open(path: &Path, split: &str) -> Arc<dyn Source> {
    source::open(&config(path), split).unwrap()
}

/// The codes of a sample as they come from a source.
fn read(source: &dyn Source, id: u64, draw: Draw) -> Result<Vec<u32>, DataError> {
    let mut sample = vec![0xff; source.shape().num_bytes()];
    source.read(id, draw, &mut sample)?;
    Ok(sample.as_chunks().0.iter().map(|quad| u32::from_le_bytes(*quad)).collect())
}

/// The one line of an error, after a check of its kind.
fn told(error: &DataError, kind: DataErrorKind) -> String {
    let message = error.to_string();
    assert_eq!(error.kind(), kind, "{message}");
    assert!(!message.contains('\n'), "{message}");
    message
}

/// All files of a folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

/// Changes the bytes of one file.
fn edit(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}
