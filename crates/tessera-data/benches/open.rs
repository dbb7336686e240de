//! How long it takes, and how much memory, to open data sets of many files or many bytes.
//!
//!     cargo bench -p tessera-data --bench open
//!
//! Makes, in a temporary folder: 100,000 small pictures in a folder, the same in ten tar archives,
//! and a packed data set of 10 GB (sparse: its samples are zeros that take no room). Each is opened
//! once to index it, then again by a process of its own, whose time and peak memory are printed.

#![allow(clippy::print_stdout)] // a benchmark prints its figures

use std::fs::{self, File};
use std::io::{Cursor, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use tessera_data::{DataConfig, DataKind, Draw, source};

const FILES: usize = 100_000;
const ARCHIVES: usize = 10;
/// 40 shards of 256 MiB are 10.7 GB.
const SHARDS: usize = 40;
const SHARD_SAMPLES: usize = 21_845;
const SIDE: usize = 64;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "--open") {
        return open(&arguments[at + 1], Path::new(&arguments[at + 2]));
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (pictures, archives, shards) = (
        folder.path().join("folder"),
        folder.path().join("webdataset"),
        folder.path().join("packed"),
    );
    make_pictures(&pictures);
    make_archives(&archives);
    make_shards(&shards);
    println!("| data set | samples | first open | open | peak memory |");
    println!("|---|---|---|---|---|");
    for (kind, path) in [("folder", pictures), ("webdataset", archives), ("packed", shards)] {
        let first = child(kind, &path);
        let again = child(kind, &path);
        let (samples, seconds, mib) = (&again[0], &again[1], &again[2]);
        println!("| {kind} | {samples} | {} s | {seconds} s | {mib} MiB |", first[1]);
    }
}

/// Opens a data set in a process of its own.
fn child(kind: &str, path: &Path) -> Vec<String> {
    let this = std::env::current_exe().expect("this program");
    let output = Command::new(this).arg("--open").arg(kind).arg(path).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("it prints text");
    text.split_whitespace().map(str::to_owned).collect()
}

fn open(kind: &str, path: &Path) {
    let kind = match kind {
        "folder" => DataKind::Folder,
        "webdataset" => DataKind::Webdataset,
        _ => DataKind::Packed,
    };
    let config = DataConfig { kind, path: path.to_owned(), ..DataConfig::default() };
    let start = Instant::now();
    let source = source::open(&config, "train").expect("it is a data set");
    let mut sample = vec![0; source.shape().num_bytes()];
    source.read(source.num_samples() / 2, Draw::NONE, &mut sample).expect("a sample");
    let seconds = start.elapsed().as_secs_f64();
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let peak = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    let kib: u64 = peak.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    println!("{} {seconds:.3} {}", source.num_samples(), kib >> 10);
}

fn picture(id: usize) -> Vec<u8> {
    let picture = image::GrayImage::from_pixel(8, 8, image::Luma([id as u8]));
    let mut png = Cursor::new(Vec::new());
    picture.write_to(&mut png, image::ImageFormat::Png).expect("memory");
    png.into_inner()
}

fn make_pictures(root: &Path) {
    for id in 0..FILES {
        let folder = root.join(format!("{:03}", id / 1000));
        if id % 1000 == 0 {
            fs::create_dir_all(&folder).expect("a folder");
        }
        fs::write(folder.join(format!("{id:06}.png")), picture(id)).expect("a file");
    }
}

fn make_archives(root: &Path) {
    fs::create_dir_all(root).expect("a folder");
    for archive in 0..ARCHIVES {
        let file = File::create(root.join(format!("shard-{archive:03}.tar"))).expect("a file");
        let mut builder = tar::Builder::new(std::io::BufWriter::new(file));
        for id in 0..FILES / ARCHIVES {
            let id = archive * (FILES / ARCHIVES) + id;
            let (mut header, png) = (tar::Header::new_gnu(), picture(id));
            header.set_size(png.len() as u64);
            builder.append_data(&mut header, format!("{id:06}.png"), png.as_slice()).expect("room");
        }
        builder.into_inner().expect("room").flush().expect("room");
    }
}

/// The format by hand, with samples that are holes in the files.
fn make_shards(root: &Path) {
    fs::create_dir_all(root).expect("a folder");
    let sample_bytes = SIDE * SIDE * 3;
    let crc = crc32fast::hash(&vec![0; sample_bytes]).to_le_bytes();
    let crcs = crc.repeat(SHARD_SAMPLES);
    let end = crcs.len() + SHARD_SAMPLES * sample_bytes;
    let mut header = format!(
        r#"{{"__metadata__":{{"format":"tessera-shard-1"}},"crc32":{{"dtype":"U32","shape":[{SHARD_SAMPLES}],"data_offsets":[0,{at}]}},"samples":{{"dtype":"U8","shape":[{SHARD_SAMPLES},{SIDE},{SIDE},3],"data_offsets":[{at},{end}]}}}}"#,
        at = crcs.len(),
    );
    while header.len() % 8 != 0 {
        header.push(' ');
    }
    let bytes = 8 + header.len() + end;
    let mut shards = Vec::new();
    for shard in 0..SHARDS {
        let name = format!("train-{shard:05}.safetensors");
        let file = File::create(root.join(&name)).expect("a file");
        file.set_len(bytes as u64).expect("a sparse file");
        file.write_all_at(&(header.len() as u64).to_le_bytes(), 0).expect("room");
        file.write_all_at(header.as_bytes(), 8).expect("room");
        file.write_all_at(&crcs, 8 + header.len() as u64).expect("room");
        shards.push(format!(
            r#"{{"file":"{name}","num_samples":{SHARD_SAMPLES},"bytes":{bytes},"sha256":"-"}}"#
        ));
    }
    let manifest = format!(
        r#"{{"format":"tessera-dataset","version":1,"shape":{{"channels":3,"height":{SIDE},"width":{SIDE}}},"source":{{"format":"synthetic","files":[]}},"splits":{{"train":{{"num_samples":{},"labels":false,"pixel_mean":[0,0,0],"pixel_variance":[0,0,0],"shards":[{}]}}}}}}"#,
        SHARDS * SHARD_SAMPLES,
        shards.join(",")
    );
    fs::write(root.join("manifest.json"), manifest).expect("room");
}
