//! What the parts of the way to a batch cost, each by itself.
//!
//!     cargo bench -p tessera-data --bench loader
//!
//! Makes, in a temporary folder, 8,192 pictures of 64 x 64 as JPEG files, as tar archives and packed
//! (plain and zstd), and reads batches of 128 with one thread and with all; and asks the orders for
//! places. The peers' figures for such files are those of `launch/bench/data.py`.

#![allow(clippy::print_stdout)] // a benchmark prints its figures

use std::fs::{self, File};
use std::hint::black_box;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use tessera_data::{
    DataConfig, DataKind, LoadOptions, Loader, OnCorrupt, Order, PackOptions, Sampler, Shuffle,
    pack, source, train_plan,
};

const SAMPLES: usize = 8192;
const ARCHIVES: usize = 8;
const SIDE: u32 = 64;
const BATCH: u64 = 128;
/// Batches of a measurement: four epochs.
const BATCHES: u64 = 4 * SAMPLES as u64 / BATCH;
const PLACES: u64 = 2_000_000;

fn main() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let root = folder.path();
    make_pictures(root);
    let files = config(DataKind::Folder, root.join("files"));
    pack_into(&files, root.join("packed"), None);
    pack_into(&files, root.join("zstd"), Some(3));
    println!("| source | 1 thread, samples/s | all threads, samples/s |\n|---|---|---|");
    for (name, data) in [
        ("packed", config(DataKind::Packed, root.join("packed"))),
        ("packed, zstd 3", config(DataKind::Packed, root.join("zstd"))),
        ("webdataset", config(DataKind::Webdataset, root.join("tar"))),
        ("folder", files),
    ] {
        println!(
            "| {name} | {:.0} | {:.0} |",
            samples_a_second(&data, 1),
            samples_a_second(&data, 0)
        );
    }
    println!("\n| order of 10^9 samples | ns a place |\n|---|---|");
    let packed = source::open(&config(DataKind::Packed, root.join("packed")), "train");
    let packed = packed.expect("it was just packed");
    let two_level = DataConfig { shuffle: Shuffle::TwoLevel, ..DataConfig::default() };
    println!("| global | {:.0} |", ns_a_place(&Sampler::new(1, 1_000_000_000)));
    println!(
        "| two-level (of {SAMPLES}) | {:.0} |",
        ns_a_place(&packed.sampler(&two_level.shuffling(), 1))
    );
}

fn config(kind: DataKind, path: PathBuf) -> DataConfig {
    DataConfig { kind, path, holdout: 0.0, ..DataConfig::default() }
}

fn samples_a_second(data: &DataConfig, threads: usize) -> f64 {
    let source = source::open(data, "train").expect("it is a data set");
    let order = Order::Shuffled(source.sampler(&data.shuffling(), 0));
    let options = LoadOptions { threads, ..LoadOptions::default() };
    let plan = train_plan(0, BATCHES, BATCH, 0, 1);
    let start = Instant::now();
    let mut loader = Loader::new(Arc::clone(&source), order, plan, options).expect("threads");
    while let Some(batch) = loader.next() {
        loader.recycle(black_box(batch.expect("a batch")));
    }
    (BATCHES * BATCH) as f64 / start.elapsed().as_secs_f64()
}

fn ns_a_place(sampler: &Sampler) -> f64 {
    let start = Instant::now();
    let sum: u64 = (0..PLACES).map(|place| sampler.sample_at(place).id).fold(0, u64::wrapping_add);
    black_box(sum);
    start.elapsed().as_nanos() as f64 / PLACES as f64
}

fn pack_into(data: &DataConfig, out: PathBuf, zstd_level: Option<i32>) {
    let (data, on_corrupt) = (data.clone(), OnCorrupt::Fail);
    let options = PackOptions { data, out, shard_samples: 1024, zstd_level, on_corrupt };
    pack(&options, &|_, _| {}).expect("it packs");
}

/// A smooth picture: JPEG makes of it what it makes of photographs.
fn picture(id: usize) -> Vec<u8> {
    let wave = |x: u32, y: u32, channel: u32| {
        let (phase, x, y) = (id as f32 * 0.37, x as f32 / 9.0, y as f32 / 13.0);
        (127.0 + 120.0 * ((x + phase).sin() * (y + channel as f32 + phase).cos())) as u8
    };
    let picture = image::RgbImage::from_fn(SIDE, SIDE, |x, y| {
        image::Rgb([wave(x, y, 0), wave(x, y, 1), wave(x, y, 2)])
    });
    let mut jpeg = mozjpeg::Compress::new(mozjpeg::ColorSpace::JCS_RGB);
    // As most programs write it: baseline, its Huffman tables those of the standard.
    jpeg.set_fastest_defaults();
    jpeg.set_quality(75.0);
    jpeg.set_size(SIDE as usize, SIDE as usize);
    let mut jpeg = jpeg.start_compress(Vec::new()).expect("memory");
    jpeg.write_scanlines(picture.as_raw()).expect("memory");
    jpeg.finish().expect("memory")
}

fn make_pictures(root: &Path) {
    let (files, archives) = (root.join("files"), root.join("tar"));
    fs::create_dir_all(&files).expect("a folder");
    fs::create_dir_all(&archives).expect("a folder");
    for archive in 0..ARCHIVES {
        let file = File::create(archives.join(format!("{archive}.tar"))).expect("a file");
        let mut builder = tar::Builder::new(BufWriter::new(file));
        for id in archive * SAMPLES / ARCHIVES..(archive + 1) * SAMPLES / ARCHIVES {
            let (name, jpeg) = (format!("{id:06}.jpg"), picture(id));
            fs::write(files.join(&name), &jpeg).expect("a file");
            let mut header = tar::Header::new_gnu();
            header.set_size(jpeg.len() as u64);
            builder.append_data(&mut header, name, jpeg.as_slice()).expect("room");
        }
        builder.into_inner().expect("room").flush().expect("room");
    }
}
