//! Tables of a model's codes, counted on data like those that will be compressed.

use std::path::PathBuf;

use serde::Serialize;
use tessera_checkpoint::Storage;
use tessera_codec::table::PositionCounts;
use tessera_codec::{LevelShape, LevelTable, Tables};
use tessera_comm::{Communicator, all_gather_bytes};
use tessera_control::Phase;
use tessera_data::DataConfig;
use tessera_model::{OpenModel, TABLES_FILE, read_file, write_tables};

use crate::agreement::agree_on;
use crate::decode::TokenFile;
use crate::encode::check_data;
use crate::error::ApplyError;
use crate::input::{codes_of, read};
use crate::tile;
use crate::watch::Watch;

/// Most counts of a level's positions in a half, 16 MiB of them: tables have as many numbers.
const MOST_COUNTS: usize = 1 << 21;

/// What is counted, and where tables go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablesOptions {
    /// The model folder that gets them.
    pub folder: PathBuf,
    /// Codes that were made before, instead of data: a token set (its split `train`), or a safetensors file of codes.
    pub tokens: Option<PathBuf>,
    /// Samples at most, spread evenly over the data.
    pub samples: u64,
}

/// What was counted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Counted {
    /// The file that was written.
    pub path: PathBuf,
    /// SHA-256 of the tables, which compressed files name.
    pub id: String,
    /// Samples whose codes were counted.
    pub num_samples: u64,
    /// Each level of codes.
    pub levels: Vec<CountedLevel>,
}

/// The table of a level of codes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CountedLevel {
    /// Number of codes, K.
    pub num_codes: u32,
    /// Positions that have a table of their own; 1: one table is for all.
    pub num_tables: usize,
    /// Bits that a code took where all were equally likely, log2 K.
    pub uniform_bits: f64,
    /// Bits that the codes that were counted take by the table, on average.
    pub bits: f64,
}

/// Counts codes of the split `train` of `data`, and writes the tables. Collective.
///
/// # Errors
///
/// [`ApplyError`].
pub fn count_tables(
    comm: &dyn Communicator,
    model: &OpenModel,
    data: &DataConfig,
    options: &TablesOptions,
    watch: &Watch<'_>,
) -> Result<Counted, ApplyError> {
    agree_on(comm, check_folder(model, options))?;
    watch.activity.enter(Phase::Evaluate);
    let levels = model.file.autoencoder().code_levels();
    let counted = match &options.tokens {
        Some(path) if comm.rank() == 0 => of_tokens(model, path, options.samples, &levels),
        Some(_) => Ok(Counts::new(&levels)),
        None => of_data(comm, model, data, options.samples, &levels, watch),
    };
    let counts = agree_on(comm, counted)?.summed(comm)?;
    let tables = agree_on(comm, counts.tables())?;
    let written = match comm.rank() {
        0 => write_tables(&Storage::new(), &options.folder, &model.file, &tables),
        _ => Ok(()),
    };
    agree_on(comm, written.map_err(ApplyError::from))?;
    Ok(Counted {
        path: options.folder.join(TABLES_FILE),
        id: tables.id().to_owned(),
        num_samples: counts.num_samples,
        levels: counts
            .levels
            .iter()
            .zip(tables.levels())
            .map(|(level, table)| level.told(table))
            .collect(),
    })
}

/// Refuses a folder of another model before hours are spent.
fn check_folder(model: &OpenModel, options: &TablesOptions) -> Result<(), ApplyError> {
    let folder = &options.folder;
    if read_file(folder)?.hash == model.file.hash {
        return Ok(());
    }
    Err(ApplyError::BadInput(format!(
        "the model in {} is not the one that is named: write that with `tessera export`, and name its folder with --model",
        folder.display()
    )))
}

fn of_tokens(
    model: &OpenModel,
    path: &std::path::Path,
    most: u64,
    levels: &[LevelShape],
) -> Result<Counts, ApplyError> {
    let tokens = TokenFile::of_model(path, "train", model)?;
    let mut counts = Counts::new(levels);
    let rows: Vec<u64> = spread(tokens.num_samples(), most).collect();
    for (at, &row) in rows.iter().enumerate() {
        counts.add(&tokens.codes(row)?, 2 * at < rows.len());
    }
    Ok(counts)
}

/// A rank's part: every so many'th tile.
fn of_data(
    comm: &dyn Communicator,
    model: &OpenModel,
    data: &DataConfig,
    most: u64,
    levels: &[LevelShape],
    watch: &Watch<'_>,
) -> Result<Counts, ApplyError> {
    let source = tessera_data::source::open(data, "train")?;
    check_data(&model.file, source.shape())?;
    let mut counts = Counts::new(levels);
    let ids: Vec<u64> = spread(source.num_samples(), most).collect();
    let size = tile::size(&model.signal());
    let tiles = ids.chunks(size).enumerate();
    for (tile, of_tile) in tiles.skip(comm.rank()).step_by(comm.world_size()) {
        watch.check()?;
        let mut bytes = Vec::new();
        for &id in of_tile {
            bytes.extend(read(&*source, id)?);
        }
        for (at, codes) in codes_of(model, &bytes, of_tile[0])?.iter().enumerate() {
            counts.add(codes, 2 * (tile * size + at) < ids.len());
        }
        watch.activity.part_done();
    }
    Ok(counts)
}

/// At most `most` of so many numbers, evenly.
fn spread(num: u64, most: u64) -> impl Iterator<Item = u64> {
    let taken = num.min(most);
    (0..taken).map(move |at| (u128::from(at) * u128::from(num) / u128::from(taken)) as u64)
}

/// How often codes came.
struct Counts {
    num_samples: u64,
    levels: Vec<LevelCounts>,
}

struct LevelCounts {
    shape: LevelShape,
    /// Of the first half of the samples, and of the second.
    halves: [PositionCounts; 2],
}

impl Counts {
    fn new(levels: &[LevelShape]) -> Self {
        let level = |&shape: &LevelShape| {
            let [positions, num_codes] =
                [shape.positions, shape.num_codes].map(|size| size as usize);
            let rows = if positions * num_codes > MOST_COUNTS { 1 } else { positions };
            LevelCounts { shape, halves: [0, 1].map(|_| vec![vec![0; num_codes]; rows]) }
        };
        Self { num_samples: 0, levels: levels.iter().map(level).collect() }
    }

    /// Counts the codes of a sample, level after level, which is in the first half of all, or in the second.
    fn add(&mut self, codes: &[u32], is_first: bool) {
        let mut codes = codes.iter();
        for level in &mut self.levels {
            let counts = &mut level.halves[usize::from(!is_first)];
            let rows = counts.len();
            for (position, &code) in (0..).zip(codes.by_ref().take(level.shape.positions as usize))
            {
                counts[position % rows][code as usize] += 1;
            }
        }
        self.num_samples += 1;
    }

    /// Those of all ranks. Collective.
    fn summed(mut self, comm: &dyn Communicator) -> Result<Self, ApplyError> {
        let mut numbers = vec![&mut self.num_samples];
        numbers.extend(
            self.levels.iter_mut().flat_map(|level| level.halves.iter_mut().flatten().flatten()),
        );
        let mine: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        numbers.iter_mut().for_each(|number| **number = 0);
        for theirs in all_gather_bytes(comm, &mine)? {
            let (eights, _) = theirs.as_chunks::<8>();
            for (number, eight) in numbers.iter_mut().zip(eights) {
                **number += u64::from_le_bytes(*eight);
            }
        }
        drop(numbers);
        Ok(self)
    }

    fn tables(&self) -> Result<Tables, ApplyError> {
        let levels: Result<Vec<LevelTable>, _> =
            self.levels.iter().map(|level| LevelTable::counted(level.halves.each_ref())).collect();
        Ok(Tables::new(levels?)?)
    }
}

impl LevelCounts {
    fn told(&self, table: &LevelTable) -> CountedLevel {
        let (mut bits, mut num) = (0.0, 0u64);
        let rows = self.halves.iter().flat_map(|half| half.iter().enumerate());
        for (row, counts) in rows {
            for (&count, &part) in counts.iter().zip(table.probabilities(row)) {
                let probability = f64::from(part) / f64::from(tessera_codec::table::WHOLE);
                bits -= count as f64 * probability.log2();
                num += count;
            }
        }
        CountedLevel {
            num_codes: self.shape.num_codes,
            num_tables: table.num_positions(),
            uniform_bits: f64::from(self.shape.num_codes).log2(),
            bits: bits / num as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_spread_over_all() {
        assert_eq!(spread(10, 4).collect::<Vec<_>>(), [0, 2, 5, 7]);
        assert_eq!(spread(3, 4).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(spread(0, 4).count(), 0);
    }

    /// Two levels of two and of one position.
    #[test]
    fn codes_are_counted_by_level_and_position() {
        let level = |positions| LevelShape { num_codes: 3, positions };
        let mut counts = Counts::new(&[level(2), level(1)]);
        counts.add(&[0, 2, 1], true);
        counts.add(&[0, 1, 1], false);
        assert_eq!(counts.levels[0].halves[0], [vec![1, 0, 0], vec![0, 0, 1]]);
        assert_eq!(counts.levels[0].halves[1], [vec![1, 0, 0], vec![0, 1, 0]]);
        assert_eq!((&counts.levels[1].halves[1], counts.num_samples), (&vec![vec![0, 1, 0]], 2));
    }
}
