//! Files that nobody meant to write: every parser of ours is given whole files with random edits,
//! and answers with samples or with an error of one line. A panic, a hang or an allocation beyond
//! reason ends the test.
//!
//! Each target runs for a second, or for as many as `TESSERA_FUZZ_SECONDS` says (60 in
//! `./launch/test.sh --full`). `cargo bolero test -p tessera-data TARGET` runs one with a fuzzer that
//! looks where it gets.

#![allow(clippy::unwrap_used)] // the lint knows `#[test]` functions, not their helpers

use std::fs;
use std::io::Cursor;
use std::panic::RefUnwindSafe;
use std::path::Path;
use std::time::Duration;

use bolero::TypeGenerator;
use tempfile::TempDir;
use tessera_data::tokens::{TokenLevel, TokenPlan, TokenSetWriter, TokenShard, Tokenizer};
use tessera_data::{
    DataConfig, DataKind, Draw, Modality, OnCorrupt, PackOptions, SyntheticConfig, VerifyMode,
    inspect, pack, source, verify,
};

/// How long each target runs.
fn time() -> Duration {
    let seconds = std::env::var("TESSERA_FUZZ_SECONDS").ok();
    Duration::from_secs(seconds.map_or(1, |seconds| seconds.parse().unwrap()))
}

/// A change of a file; places are taken modulo its length.
#[derive(Debug, Clone, TypeGenerator)]
enum Edit {
    Flip { at: u16, bit: u8 },
    Set { at: u16, byte: u8 },
    Cut { at: u16 },
    Insert { at: u16, bytes: [u8; 4] },
    Move { from: u16, to: u16, count: u8 },
}

fn edited(bytes: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    // More edits leave nothing that a parser gets far with.
    for edit in edits.iter().take(6) {
        if bytes.is_empty() {
            break;
        }
        let len = bytes.len();
        let place = |at: u16| at as usize % len;
        match *edit {
            Edit::Flip { at, bit } => bytes[place(at)] ^= 1 << (bit % 8),
            Edit::Set { at, byte } => bytes[place(at)] = byte,
            Edit::Cut { at } => bytes.truncate(place(at)),
            Edit::Insert { at, bytes: more } => {
                bytes.splice(place(at)..place(at), more);
            }
            Edit::Move { from, to, count } => {
                let (from, to) = (place(from), place(to));
                let count = (count as usize).min(len - from).min(len - to);
                bytes.copy_within(from..from + count, to);
            }
        }
    }
    bytes
}

/// Opens what `config` names and reads all of it that can be read.
fn read_all(config: &DataConfig) {
    match source::open(config, "train") {
        Ok(source) => {
            let mut sample = vec![0; source.shape().num_bytes()];
            one_line(source.num_classes().err());
            for id in 0..source.num_samples().min(50) {
                let outcome = source.read(id, Draw::NONE, &mut sample);
                one_line(outcome.err());
                one_line(source.label(id).err());
                assert!(!source.name(id).is_empty());
            }
        }
        Err(error) => one_line(Some(error)),
    }
}

fn one_line(error: Option<tessera_data::DataError>) {
    if let Some(error) = error {
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

/// Edits one file of a data set again and again, and reads the set.
fn target(
    folder: &TempDir,
    file: &str,
    config: &DataConfig,
    after: &(dyn Fn(&Path) + RefUnwindSafe),
) {
    let path = folder.path().join(file);
    let whole = fs::read(&path).unwrap();
    read_all(config);
    bolero::check!().with_test_time(time()).with_type::<Vec<Edit>>().for_each(|edits| {
        fs::write(&path, edited(&whole, edits)).unwrap();
        after(folder.path());
        read_all(config);
    });
}

fn of(kind: DataKind, path: &Path) -> DataConfig {
    let holdout = 0.0;
    DataConfig {
        kind,
        path: path.to_owned(),
        holdout,
        verify: VerifyMode::Never,
        ..DataConfig::default()
    }
}

fn packed(zstd_level: Option<i32>) -> (TempDir, DataConfig) {
    let folder = tempfile::tempdir().unwrap();
    let synthetic = SyntheticConfig {
        height: 4,
        width: 4,
        num_train: 6,
        num_test: 1,
        ..SyntheticConfig::default()
    };
    let options = PackOptions {
        data: DataConfig { kind: DataKind::Synthetic, synthetic, ..DataConfig::default() },
        out: folder.path().join("set"),
        shard_samples: 6,
        zstd_level,
        on_corrupt: OnCorrupt::Fail,
    };
    pack(&options, &|_, _| {}).unwrap();
    let config = of(DataKind::Packed, &options.out);
    (folder, config)
}

fn png() -> Vec<u8> {
    let mut png = Cursor::new(Vec::new());
    let picture = image::RgbImage::from_fn(9, 7, |x, y| image::Rgb([x as u8, y as u8, 3]));
    picture.write_to(&mut png, image::ImageFormat::Png).unwrap();
    png.into_inner()
}

/// A token set of two levels, of samples of above.
fn tokens() -> (TempDir, DataConfig) {
    let (folder, data) = packed(None);
    let level = |num_codes, axes: &[u32]| TokenLevel { num_codes, axes: axes.to_vec() };
    let levels = vec![level(16, &[2, 2]), level(300, &[1, 1])];
    let tokenizer = Tokenizer { hash: "a".to_owned(), levels };
    let train = source::open(&data, "train").unwrap();
    let splits = [("train", train)];
    let plan = TokenPlan::new(&tokenizer, &["plain".to_owned()], &data, &splits, 8).unwrap();
    let target = folder.path().join("tokens");
    let writer = TokenSetWriter::begin(&target, &plan).unwrap();
    let content = TokenShard {
        codes: vec![(0..24).map(|at| at % 16).collect(), (0..6).map(|at| at * 50).collect()],
        labels: vec![None; 6],
        ids: (0..6).collect(),
        skipped: vec![],
    };
    writer.write(&plan.shards()[0], &content).unwrap();
    writer.finish().unwrap();
    let config = of(DataKind::Tokens, &target);
    (folder, config)
}

#[test]
fn manifests_of_tokens() {
    let (folder, config) = tokens();
    target(&folder, "tokens/manifest.json", &config, &|folder| {
        one_line(tessera_data::tokens::inspect(&folder.join("tokens")).err());
        one_line(verify(&folder.join("tokens"), &|_, _| {}).err());
    });
}

#[test]
fn shards_and_histograms_of_tokens() {
    let (folder, config) = tokens();
    for file in ["tokens/train-00000.safetensors", "tokens/histograms-train.safetensors"] {
        target(&folder, file, &config, &|folder| {
            one_line(tessera_data::tokens::inspect(&folder.join("tokens")).err());
            one_line(verify(&folder.join("tokens"), &|_, _| {}).err());
        });
    }
}

#[test]
fn manifests() {
    let (folder, config) = packed(None);
    target(&folder, "set/manifest.json", &config, &|folder| {
        one_line(inspect(&folder.join("set")).err());
        one_line(verify(&folder.join("set"), &|_, _| {}).err());
    });
}

#[test]
fn shards() {
    let (folder, config) = packed(None);
    target(&folder, "set/train-00000.safetensors", &config, &|_| {});
}

#[test]
fn compressed_shards() {
    let (folder, config) = packed(Some(3));
    target(&folder, "set/train-00000.safetensors", &config, &|_| {});
}

#[test]
fn idx_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = vec![0, 0, 8, 3, 0, 0, 0, 4, 0, 0, 0, 2, 0, 0, 0, 3];
    bytes.extend(0..24);
    fs::write(folder.path().join("train-images-idx3-ubyte"), bytes).unwrap();
    let config = of(DataKind::Idx, folder.path());
    target(&folder, "train-images-idx3-ubyte", &config, &|_| {});
}

#[test]
fn numpy_arrays() {
    let folder = tempfile::tempdir().unwrap();
    let header = "{'descr': '|u1', 'fortran_order': False, 'shape': (4, 2, 3), }\n";
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(0..24);
    fs::write(folder.path().join("a.npy"), bytes).unwrap();
    let config = of(DataKind::Npy, &folder.path().join("a.npy"));
    target(&folder, "a.npy", &config, &|_| {});
}

#[test]
fn labels_of_arrays() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, element: &str, shape: &str, bytes: &[u8]| {
        let header =
            format!("{{'descr': '{element}', 'fortran_order': False, 'shape': {shape}, }}\n");
        let mut array = b"\x93NUMPY\x01\x00".to_vec();
        array.extend((header.len() as u16).to_le_bytes());
        array.extend(header.as_bytes());
        array.extend(bytes);
        fs::write(folder.path().join(name), array).unwrap();
    };
    write("a.npy", "|u1", "(4, 2, 3)", &[0; 24]);
    write("a_labels.npy", "<i4", "(4,)", &[1; 16]);
    let config = of(DataKind::Npy, &folder.path().join("a.npy"));
    target(&folder, "a_labels.npy", &config, &|_| {});
}

#[test]
fn archives_and_their_indices() {
    let folder = tempfile::tempdir().unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    for id in 0..3 {
        for (extension, bytes) in [("png", png()), ("cls", b"2".to_vec())] {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            builder
                .append_data(&mut header, format!("{id}.{extension}"), bytes.as_slice())
                .unwrap();
        }
    }
    fs::write(folder.path().join("a.tar"), builder.into_inner().unwrap()).unwrap();
    let config = of(DataKind::Webdataset, folder.path());
    target(&folder, "a.tar", &config, &|folder| {
        // Every archive is looked at anew.
        let _ = fs::remove_file(folder.join("a.tar.index"));
    });
}

#[test]
fn indices() {
    let folder = tempfile::tempdir().unwrap();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(png().len() as u64);
    builder.append_data(&mut header, "0.png", png().as_slice()).unwrap();
    fs::write(folder.path().join("a.tar"), builder.into_inner().unwrap()).unwrap();
    let config = of(DataKind::Webdataset, folder.path());
    source::open(&config, "train").unwrap();
    target(&folder, "a.tar.index", &config, &|_| {});
}

#[test]
fn pictures() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a.jpg"), include_bytes!("pictures/s420-progressive.jpg"))
        .unwrap();
    fs::write(folder.path().join("b.png"), png()).unwrap();
    fs::write(folder.path().join("c.tif"), include_bytes!("pictures/lzw.tiff")).unwrap();
    let mut config = of(DataKind::Folder, folder.path());
    (config.image.height, config.image.width) = (5, 5);
    // Small enough that a lie about the size cannot take long.
    config.image.max_pixels = 1 << 20;
    target(&folder, "a.jpg", &config, &|_| {});
    target(&folder, "b.png", &config, &|_| {});
    target(&folder, "c.tif", &config, &|_| {});
}

#[test]
fn sounds_and_gifs() {
    let folder = tempfile::tempdir().unwrap();
    let mut wav =
        b"RIFF\x34\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0"
            .to_vec();
    wav.extend(b"data\x10\0\0\0");
    wav.extend(0..16);
    fs::write(folder.path().join("a.wav"), wav).unwrap();
    let mut config = of(DataKind::Folder, folder.path());
    config.modality = Modality::Audio;
    (config.audio.length, config.audio.sample_rate) = (4, 8000);
    target(&folder, "a.wav", &config, &|_| {});

    let mut gif = Vec::new();
    let mut encoder = image::codecs::gif::GifEncoder::new(&mut gif);
    for at in 0..4u8 {
        let frame = image::RgbaImage::from_pixel(4, 3, image::Rgba([40 * at, 0, 0, 255]));
        encoder.encode_frame(image::Frame::new(frame)).unwrap();
    }
    drop(encoder);
    fs::write(folder.path().join("a.gif"), gif).unwrap();
    config.modality = Modality::Video;
    (config.video.frames, config.video.height, config.video.width) = (2, 2, 2);
    config.video.max_pixels = 1 << 20;
    target(&folder, "a.gif", &config, &|_| {});
}
