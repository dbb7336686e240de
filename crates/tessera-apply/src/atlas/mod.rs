//! What each code of a model stands for: the code decoded alone and in a mean context, real samples that take it, how often it is taken,
//! beside which others, and where in some samples. A folder that `tessera report` shows (docs/formats.md, "Atlas").
//!
//! Ranks share the samples that are counted; rank 0 draws and writes. Codes are made in the [tiles](crate::tile) of every command.

mod codes;
mod projector;
mod sheet;

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::json;
use tch::{Kind, Tensor};
use tessera_comm::{Communicator, all_gather_bytes};
use tessera_control::Phase;
use tessera_data::{DataConfig, Modality, SampleShape, Source};
use tessera_model::media::{self, ImageShape};
use tessera_model::{OpenModel, raw_samples};
use tessera_nn::spectrogram::Spectrogram;

use self::codes::{Book, Counted};
use self::sheet::{Cell, Sheet};
use crate::agreement::agree_on;
use crate::compress::{sound_samples, unwritable};
use crate::decode::npy_header;
use crate::encode::open_splits;
use crate::error::ApplyError;
use crate::input::{codes_of, read};
use crate::tile;
use crate::watch::Watch;

/// Most codes of a level that has sheets.
const MOST_DRAWN: usize = 1 << 14;
/// Parts of a second that a code is heard.
const HEARD: u32 = 5;

/// What an atlas is of, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtlasOptions {
    /// The folder that is written.
    pub out: PathBuf,
    /// The split whose samples are counted.
    pub split: String,
    /// Samples at most, the first ones.
    pub samples: u64,
    /// Real samples' parts beside each code.
    pub patches: usize,
    /// Samples whose codes are shown in their places.
    pub maps: usize,
    /// Most frequent codes whose neighbours are counted.
    pub neighbours: usize,
    /// Whether a folder that is there is replaced.
    pub force: bool,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Atlas {
    /// The folder.
    pub path: PathBuf,
    /// Samples that were counted.
    pub num_samples: u64,
    /// Of each level the number of codes, and of those that were taken.
    pub levels: Vec<(usize, usize)>,
}

/// Makes an atlas. Collective: ranks share the samples.
///
/// # Errors
///
/// [`ApplyError`]; there is no folder then that was not there before.
pub fn write_atlas(
    comm: &dyn Communicator,
    model: &OpenModel,
    data: &DataConfig,
    options: &AtlasOptions,
    watch: &Watch<'_>,
) -> Result<Atlas, ApplyError> {
    let opened = checked(model, data, options);
    let source = agree_on(comm, opened)?;
    watch.activity.enter(Phase::Evaluate);
    let num = source.num_samples().min(options.samples);
    let counted = count(comm, model, &*source, num, watch)?;
    let written = match comm.rank() {
        0 => Work { model, options, source: &*source, counted: &counted, watch }.write(),
        _ => Ok(()),
    };
    agree_on(comm, written)?;
    let levels = counted.levels.iter();
    let levels = levels
        .map(|level| (level.counts.len(), level.counts.iter().filter(|num| **num > 0).count()));
    Ok(Atlas { path: options.out.clone(), num_samples: num, levels: levels.collect() })
}

fn checked(
    model: &OpenModel,
    data: &DataConfig,
    options: &AtlasOptions,
) -> Result<std::sync::Arc<dyn Source>, ApplyError> {
    if options.out.exists() && !options.force {
        return Err(ApplyError::BadInput(format!(
            "{} is there already: name another folder, or give --force to replace it",
            options.out.display()
        )));
    }
    let splits = [options.split.clone()];
    let (_, source) = open_splits(model, data, &splits)?.remove(0);
    Ok(source)
}

/// The codes of the first `num` samples, on every rank.
fn count(
    comm: &dyn Communicator,
    model: &OpenModel,
    source: &dyn Source,
    num: u64,
    watch: &Watch<'_>,
) -> Result<Counted, ApplyError> {
    let (rank, world_size) = (comm.rank() as u64, comm.world_size() as u64);
    let size = tile::size(&model.signal()) as u64;
    let mut all = Vec::new();
    for round in 0..num.div_ceil(size).div_ceil(world_size) {
        let first = (round * world_size + rank) * size;
        let of_tile = || {
            watch.check()?;
            let ids = first..num.min(first + size);
            let mut bytes = Vec::new();
            for id in ids.clone() {
                bytes.extend(read(source, id)?);
            }
            if bytes.is_empty() { Ok(Vec::new()) } else { codes_of(model, &bytes, first) }
        };
        let mine = agree_on(comm, of_tile())?;
        let mine: Vec<u8> = mine.iter().flatten().flat_map(|code| code.to_le_bytes()).collect();
        for bytes in all_gather_bytes(comm, &mine)? {
            all.extend(bytes.as_chunks().0.iter().map(|quad| u32::from_le_bytes(*quad)));
        }
        watch.activity.part_done();
    }
    Ok(Counted::of(model, num, all))
}

/// Rank 0's work.
struct Work<'a> {
    model: &'a OpenModel,
    options: &'a AtlasOptions,
    source: &'a dyn Source,
    counted: &'a Counted,
    watch: &'a Watch<'a>,
}

impl Work<'_> {
    fn write(&self) -> Result<(), ApplyError> {
        let out = &self.options.out;
        let partial = crate::compress::partial_of(out);
        let written = fs::create_dir_all(partial.join("index_maps"))
            .map_err(|error| unwritable(out, &error))
            .and_then(|()| self.write_into(&partial));
        let named = written.and_then(|levels| {
            projector::write_beside_events(&partial, out, &levels)?;
            if out.exists() {
                fs::remove_dir_all(out).map_err(ApplyError::file("replace", out))?;
            }
            fs::rename(&partial, out).map_err(ApplyError::file("rename", &partial))
        });
        if named.is_err() {
            // The error that led here is the one to report.
            let _ = fs::remove_dir_all(&partial);
        }
        named
    }

    /// Writes all files; what `atlas.json` says of levels.
    fn write_into(&self, folder: &Path) -> Result<Vec<serde_json::Value>, ApplyError> {
        let book = Book::new(self.model, self.counted);
        let mut levels = Vec::new();
        for number in 0..self.counted.levels.len() {
            self.watch.check()?;
            levels.push(self.level(folder, &book, number)?);
            self.watch.activity.part_done();
        }
        projector::write(folder, &levels)?;
        let maps = (self.options.maps as u64).min(self.counted.num_samples);
        for id in 0..maps {
            self.map(folder, id)?;
        }
        let shape = self.shape();
        let about = json!({
            "format": "tessera-atlas",
            "version": 1,
            "tessera": env!("CARGO_PKG_VERSION"),
            "model": self.model.file.hash,
            "modality": match shape.modality {
                Modality::Audio => "audio",
                Modality::Video => "video",
                _ => "image",
            },
            "sample_rate": shape.sample_rate,
            "split": self.options.split,
            "num_samples": self.counted.num_samples,
            "levels": levels,
            "num_index_maps": maps,
        });
        put(
            &folder.join("atlas.json"),
            &serde_json::to_vec_pretty(&about).expect("it is plain data"),
        )?;
        Ok(levels)
    }

    fn shape(&self) -> SampleShape {
        self.model.file.autoencoder().shape
    }

    /// The files of a level, and what `atlas.json` says of it.
    fn level(
        &self,
        folder: &Path,
        book: &Book<'_>,
        number: usize,
    ) -> Result<serde_json::Value, ApplyError> {
        let level = &self.counted.levels[number];
        let vectors_kd = book.vectors(number);
        let (num_codes, dim) = (vectors_kd.size()[0], vectors_kd.size()[1]);
        let array = |name: &str, kind: &str, shape: &[i64], data: &[u8]| {
            let path = folder.join(format!("{name}-{number}.npy"));
            put(&path, &[npy_header(kind, shape), data.to_vec()].concat())
        };
        array("codebook", "<f4", &[num_codes, dim], &bytes_of(&vectors_kd.to_kind(Kind::Float))?)?;
        let (taken, pairs) = level.neighbours(self.options.neighbours);
        let side = taken.len() as i64;
        let pairs: Vec<u8> = pairs.iter().flat_map(|num| num.to_le_bytes()).collect();
        array("neighbours", "<u4", &[side, side], &pairs)?;
        let mut about = json!({
            "num_codes": num_codes,
            "dim": dim,
            "axes": level.axes,
            "counts": level.counts,
            "alone": null,
            "context": null,
            "patches": null,
            "neighbours": taken,
        });
        if num_codes as usize > MOST_DRAWN {
            return Ok(about);
        }
        projector::tables(folder, number, &vectors_kd, &level.counts)?;
        for (name, in_context) in [("alone", false), ("context", true)] {
            let decoded = book.decoded(number, in_context);
            about[name] = self.decoded(folder, &format!("{name}-{number}"), number, decoded)?;
        }
        if self.shape().modality != Modality::Audio {
            about["patches"] = self.patches(folder, number)?;
        }
        Ok(about)
    }

    /// A sheet of decoded samples, `[tile, ..]` raw at a time, of each the middle; of sound also all of them one after another.
    fn decoded(
        &self,
        folder: &Path,
        name: &str,
        number: usize,
        decoded: impl Iterator<Item = Tensor>,
    ) -> Result<serde_json::Value, ApplyError> {
        let shape = self.shape();
        let level = &self.counted.levels[number];
        if shape.modality == Modality::Audio {
            return self.heard(folder, name, level.counts.len(), decoded);
        }
        let cell = Cell::of(shape, &level.axes);
        let middle: Vec<usize> = level.axes.iter().map(|size| size / 2).collect();
        let mut sheet = Sheet::new(cell, shape, level.counts.len());
        let is_film = shape.modality == Modality::Video;
        let moments = if is_film { cell.moments(&middle) } else { Vec::new() };
        let moving = moments.iter().map(|_| Sheet::new(cell, shape, level.counts.len()));
        let mut moving: Vec<Sheet> = moving.collect();
        for raw in decoded {
            self.watch.check()?;
            let bytes = bytes_of(&raw)?;
            for sample in bytes.chunks_exact(shape.num_bytes()) {
                sheet.add(&cell.cut(sample, &middle));
                for (moment, sheet) in moments.iter().zip(&mut moving) {
                    sheet.add(&cell.cut_frame(sample, &middle, *moment));
                }
            }
        }
        put(&folder.join(format!("{name}.png")), &sheet.png()?)?;
        if !moving.is_empty() {
            put(&folder.join(format!("{name}.apng")), &Sheet::animated(&moving)?)?;
        }
        Ok(sheet.about())
    }

    /// Sounds of codes: their spectrograms as a sheet, and the beginnings of all of them as one WAV file.
    fn heard(
        &self,
        folder: &Path,
        name: &str,
        num: usize,
        decoded: impl Iterator<Item = Tensor>,
    ) -> Result<serde_json::Value, ApplyError> {
        let shape = self.shape();
        let frames = shape.frames.min(shape.sample_rate.div_ceil(HEARD)) as usize;
        let channels = shape.channels as usize;
        let mut sounds = Vec::new();
        let mut sheet = None;
        for raw in decoded {
            self.watch.check()?;
            let bytes = bytes_of(&raw)?;
            for sample in bytes.chunks_exact(shape.num_bytes()) {
                let part = &sample[..frames * channels * 2];
                let (picture, size) =
                    spectrogram(part, SampleShape { frames: frames as u32, ..shape })?;
                let sheet = sheet.get_or_insert_with(|| Sheet::of_gray(size, num));
                sheet.add(&picture);
                sounds.extend(sound_samples(part));
            }
        }
        let wav = media::wav(&sounds, shape.channels as u16, shape.sample_rate);
        let path = folder.join(format!("{name}.wav"));
        put(&path, &wav.map_err(ApplyError::file("write", &path))?)?;
        let Some(sheet) = sheet else { return Ok(serde_json::Value::Null) };
        put(&folder.join(format!("{name}.png")), &sheet.png()?)?;
        Ok(sheet.about())
    }

    /// A row for each code, of parts of real samples that it stands for: the first ones, at most one of a sample.
    fn patches(&self, folder: &Path, number: usize) -> Result<serde_json::Value, ApplyError> {
        let (shape, level) = (self.shape(), &self.counted.levels[number]);
        let (cell, columns) = (Cell::of(shape, &level.axes), self.options.patches);
        let mut sheet = Sheet::with_columns(cell, shape, level.counts.len(), columns);
        let mut full = vec![0usize; level.counts.len()];
        let mut missing = level.counts.iter().filter(|num| **num > 0).count();
        for id in 0..self.counted.num_samples {
            if missing == 0 {
                break;
            }
            let (mut sample, mut seen) = (None, std::collections::BTreeSet::new());
            for (place, &code) in level.of_sample(id).iter().enumerate() {
                let code = code as usize;
                if full[code] == columns || !seen.insert(code) {
                    continue;
                }
                if sample.is_none() {
                    self.watch.check()?;
                    sample = Some(read(self.source, id)?);
                }
                let sample = sample.as_ref().expect("it was read");
                sheet.put(code * columns + full[code], &cell.cut(sample, &level.place(place)));
                full[code] += 1;
                missing -= usize::from(full[code] == columns);
            }
        }
        put(&folder.join(format!("patches-{number}.png")), &sheet.png()?)?;
        Ok(sheet.about())
    }

    /// A sample, and its codes.
    fn map(&self, folder: &Path, id: u64) -> Result<(), ApplyError> {
        let (shape, sample) = (self.shape(), read(self.source, id)?);
        let path = |end: &str| folder.join("index_maps").join(format!("{id:03}.{end}"));
        let side = |size: u32| size as usize;
        let picture = match shape.modality {
            Modality::Audio => {
                let (picture, (height, width)) = spectrogram(&sample, shape)?;
                media::png(&picture, ImageShape { height, width, channels: 1 })
            }
            _ => {
                let (height, width) = (side(shape.height), side(shape.width));
                let size = ImageShape { height, width, channels: side(shape.channels) };
                let middle = side(shape.frames) / 2 * size.num_bytes();
                media::png(&sample[middle..middle + size.num_bytes()], size)
            }
        };
        put(&path("png"), &picture.map_err(ApplyError::file("write", &path("png")))?)?;
        let codes: Vec<&[u32]> =
            self.counted.levels.iter().map(|level| level.of_sample(id)).collect();
        let text = json!({ "id": id, "codes": codes });
        put(&path("json"), &serde_json::to_vec(&text).expect("it is plain data"))
    }
}

/// A sound's spectrogram in gray, low sounds below; its height and width.
fn spectrogram(sample: &[u8], shape: SampleShape) -> Result<(Vec<u8>, (usize, usize)), ApplyError> {
    let signal = tessera_model::signal_of(shape);
    let waves_nct = signal.from_raw(&raw_samples(sample, shape), Kind::Float);
    let levels = Spectrogram::of_length(i64::from(shape.frames)).levels(&waves_nct);
    let gray = (levels.select(0, 0).select(0, 0).flip([0]) * 255.0).round().to_kind(Kind::Uint8);
    let size = (gray.size()[0] as usize, gray.size()[1] as usize);
    Ok((bytes_of(&gray)?, size))
}

fn bytes_of(tensor: &Tensor) -> Result<Vec<u8>, ApplyError> {
    crate::compress::bytes_of(tensor)
}

fn put(path: &Path, bytes: &[u8]) -> Result<(), ApplyError> {
    fs::write(path, bytes).map_err(ApplyError::file("write", path))
}
