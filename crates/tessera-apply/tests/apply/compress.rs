//! Compressed files: what comes out is what the model reconstructs, from any number of ranks; damage costs itself alone.

mod by_prior;
mod streams;

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use tch::Device;
use tessera_apply::{
    ApplyError, Coding, CompressOptions, Compressed, Counted, DecompressOptions, Decompressed,
    ReconstructOptions, Reconstructed, Stream, TablesOptions, Watch, compress, count_tables,
    decompress, reconstruct,
};
use tessera_codec::{FileReader, Next};
use tessera_comm::{CommError, Communicator, Solo, Threads};
use tessera_control::{Activity, ExitCode};
use tessera_data::{DataConfig, Draw, Modality};
use tessera_model::media::{ImageShape, png};
use tessera_model::{OpenModel, open, read_tables};

use crate::encode::networks::{NUM_TEST, SIDE, all_networks, as_array, data, networks};
use crate::encode::{
    DEADLINE, decoded, decoded_as, encoded, options as to_tokens, write_model_for,
};

pub(crate) fn watching<T>(work: impl FnOnce(&Watch<'_>) -> T) -> T {
    let activity = Activity::default();
    work(&Watch { activity: &activity, stop: Arc::default(), say: &|_| () })
}

/// What rank 0 of so many says of its work with a model.
fn by_ranks<T: Send>(
    world_size: usize,
    model: &Path,
    work: impl Fn(&dyn Communicator, &OpenModel, &Coding, &Watch<'_>) -> T + Sync,
) -> T {
    tch::set_num_threads(1);
    let ranks = Threads::run(world_size, DEADLINE, |comm| {
        let opened = open(model, Device::Cpu).unwrap();
        let coding = Coding::of(&opened, model).unwrap();
        Ok::<_, CommError>(watching(|watch| work(&comm, &opened, &coding, watch)))
    });
    let mut all: Vec<T> = ranks.into_iter().map(|rank| rank.expect("joins")).collect();
    all.swap_remove(0)
}

pub(crate) fn to_file(input: &Path, out: &Path) -> CompressOptions {
    let (input, out) = (Stream::Path(input.to_owned()), Stream::Path(out.to_owned()));
    CompressOptions { input, out, levels: None, stream: None, skips: false, force: false }
}

pub(crate) fn from_file(input: &Path, out: &Path) -> DecompressOptions {
    let (input, out) = (Stream::Path(input.to_owned()), Stream::Path(out.to_owned()));
    DecompressOptions { input, out, salvage: false, force: false }
}

fn compressed(
    world_size: usize,
    model: &Path,
    options: &CompressOptions,
) -> Result<Compressed, ApplyError> {
    by_ranks(world_size, model, |comm, model, coding, watch| {
        compress(comm, model, coding, options, watch)
    })
}

fn decompressed(
    world_size: usize,
    model: &Path,
    options: &DecompressOptions,
) -> Result<Decompressed, ApplyError> {
    by_ranks(world_size, model, |comm, model, coding, watch| {
        decompress(comm, model, coding, options, watch)
    })
}

fn rebuild(input: &Path, out: &Path, overlap: u32) -> ReconstructOptions {
    let (input, out) = (Stream::Path(input.to_owned()), Stream::Path(out.to_owned()));
    ReconstructOptions {
        input,
        out,
        overlap,
        levels: None,
        stream: None,
        skips: false,
        force: false,
    }
}

fn reconstructed(
    world_size: usize,
    model: &Path,
    options: &ReconstructOptions,
) -> Result<Reconstructed, ApplyError> {
    by_ranks(world_size, model, |comm, model, _, watch| reconstruct(comm, model, options, watch))
}

fn counted(world_size: usize, model: &Path, data: &DataConfig, tokens: Option<&Path>) -> Counted {
    let options = TablesOptions {
        folder: model.to_owned(),
        tokens: tokens.map(Path::to_owned),
        samples: u64::MAX,
    };
    by_ranks(world_size, model, |comm, model, _, watch| {
        count_tables(comm, model, data, &options, watch).unwrap()
    })
}

/// The samples of the split `test` as files of their own, and where they are.
fn files_of(data: &DataConfig, folder: &Path) -> PathBuf {
    if data.modality != Modality::Image {
        return data.path.join("test");
    }
    let source = tessera_data::source::open(data, "test").unwrap();
    let inputs = folder.join("pictures");
    fs::create_dir(&inputs).unwrap();
    for id in 0..source.num_samples() {
        let mut pixels = vec![0; source.shape().num_bytes()];
        source.read(id, Draw::NONE, &mut pixels).unwrap();
        write_png(&inputs.join(format!("{id:03}.png")), &pixels, (SIDE, SIDE));
    }
    inputs
}

pub(crate) fn write_png(path: &Path, pixels: &[u8], (height, width): (u32, u32)) {
    let shape = ImageShape { height: height as usize, width: width as usize, channels: 3 };
    fs::write(path, png(pixels, shape).unwrap()).unwrap();
}

/// The pixels of all frames of a PNG file, or the numbers of a WAV file, as they lie in memory.
fn contents(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    if bytes.starts_with(b"RIFF") {
        return bytes[44..].to_vec();
    }
    let mut reader =
        png::Decoder::new(BufReader::new(File::open(path).unwrap())).read_info().unwrap();
    let mut frame = vec![0; reader.output_buffer_size().unwrap()];
    let mut all = Vec::new();
    while reader.next_frame(&mut frame).is_ok() {
        all.extend_from_slice(&frame);
    }
    all
}

/// The contents of all files of a folder, in the order of their names.
pub(crate) fn contents_of_all(folder: &Path) -> Vec<u8> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().flat_map(|path| contents(path)).collect()
}

/// Bits of the codes of a file by its tables.
fn cross_entropy(file: &Path, model: &Path) -> f64 {
    let opened = open(model, Device::Cpu).unwrap();
    let tables = read_tables(model, &opened.file).unwrap().unwrap();
    let mut reader = FileReader::open(File::open(file).unwrap()).unwrap();
    let positions = reader.header().positions();
    let mut bits = 0.0;
    while let Next::Block { codes, .. } = reader.next(&tables).unwrap() {
        let of_a_sample = positions.iter().sum::<u32>() as usize;
        for sample in codes.chunks_exact(of_a_sample) {
            let by_level = tessera_codec::coder::by_level(sample, &positions);
            let mut codes = by_level.iter();
            for (level, &num) in tables.levels().iter().zip(&positions) {
                for (position, &code) in codes.by_ref().take(num as usize).enumerate() {
                    let part = level.probabilities(position)[code as usize];
                    bits -= (f64::from(part) / f64::from(1 << 24)).log2();
                }
            }
        }
    }
    bits
}

#[test]
fn a_folder_comes_out_as_the_model_reconstructs_it_whoever_shares_the_work() {
    let files = tempfile::tempdir().unwrap();
    for (name, model, data) in all_networks(files.path()) {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let model_folder = path("model");
        write_model_for(&model_folder, &model, 5, &data);
        encoded(&model_folder, 2, &data, &to_tokens(&path("set")), false).unwrap();
        let expected = decoded(&model_folder, &path("set"), &path("array"), 1, &[]);
        let inputs = files_of(&data, folder.path());

        let plain = compressed(1, &model_folder, &to_file(&inputs, &path("plain.tsc"))).unwrap();
        assert!(!plain.has_tables && plain.num_samples == NUM_TEST, "{name}: {plain:?}");
        // By data and by the tokens that were made of them, the counts are the same.
        let by_data = counted(2, &model_folder, &data, None);
        assert_eq!(counted(1, &model_folder, &data, Some(&path("set"))), by_data, "{name}");
        let one = compressed(1, &model_folder, &to_file(&inputs, &path("1.tsc"))).unwrap();
        assert!(one.has_tables && one.payload < plain.payload, "{name}: {one:?} {plain:?}");
        let (bits, expected_bits) =
            (8.0 * one.payload as f64, cross_entropy(&path("1.tsc"), &model_folder));
        // A stream is whole words, and ends with one more at most.
        assert!(bits < expected_bits * 1.01 + 64.0, "{name}: {bits} {expected_bits}");
        for world_size in [2, 3] {
            let out = path(&format!("{world_size}.tsc"));
            compressed(world_size, &model_folder, &to_file(&inputs, &out)).unwrap();
            assert!(fs::read(&out).unwrap() == fs::read(path("1.tsc")).unwrap(), "{name}");
        }
        for (world_size, file) in [(1, "plain.tsc"), (1, "1.tsc"), (3, "1.tsc")] {
            let out = path(&format!("{world_size} {file}"));
            let done =
                decompressed(world_size, &model_folder, &from_file(&path(file), &out)).unwrap();
            assert!(done.lost.is_empty(), "{name}");
            assert!(contents_of_all(&out) == expected, "{name}, {file} by {world_size} ranks");
        }
    }
}

/// A picture of 20 x 37 is 2 x 3 samples of 16 x 16: each part comes out as it does when it is a picture of its own.
#[test]
fn a_large_picture_is_made_of_tiles() {
    let (_, model) = networks().swap_remove(0);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_model_for(&path("model"), &model, 5, &data());
    let (height, width) = (20usize, 37usize);
    let at = |y: usize, x: usize| [(y * 12) as u8, (x * 6) as u8, (x * y) as u8];
    let pixels: Vec<u8> = (0..height * width).flat_map(|p| at(p / width, p % width)).collect();
    write_png(&path("large.png"), &pixels, (20, 37));
    compressed(1, &path("model"), &to_file(&path("large.png"), &path("large.tsc"))).unwrap();
    decompressed(1, &path("model"), &from_file(&path("large.tsc"), &path("out.png"))).unwrap();
    let out = contents(&path("out.png"));
    assert_eq!(out.len(), pixels.len());
    for (top, left) in [(0, 0), (16, 16), (16, 32)] {
        // Beyond the picture its last pixels go on.
        let part: Vec<u8> = (0..256)
            .flat_map(|p| at((top + p / 16).min(height - 1), (left + p % 16).min(width - 1)))
            .collect();
        write_png(&path("part.png"), &part, (16, 16));
        let forced =
            CompressOptions { force: true, ..to_file(&path("part.png"), &path("part.tsc")) };
        compressed(1, &path("model"), &forced).unwrap();
        let forced =
            DecompressOptions { force: true, ..from_file(&path("part.tsc"), &path("back.png")) };
        decompressed(1, &path("model"), &forced).unwrap();
        let back = contents(&path("back.png"));
        for y in 0..16.min(height - top) {
            let len = 3 * 16.min(width - left);
            let line = ((top + y) * width + left) * 3;
            assert_eq!(out[line..line + len], back[y * 48..y * 48 + len], "{top} {left} {y}");
        }
    }
}

/// Without overlap a file is reconstructed as it is decompressed; with it, the middle of a tile stays what the tile is. Seams are
/// told, and of a file that is one sample are not.
#[test]
fn a_reconstruction_is_what_a_compressed_file_holds_or_blended() {
    let files = tempfile::tempdir().unwrap();
    let chosen = ["unet2d", "conv1d", "conv3d"];
    let networks_of = all_networks(files.path()).into_iter();
    for (name, model, data) in networks_of.filter(|(name, ..)| chosen.contains(name)) {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        write_model_for(&path("model"), &model, 5, &data);
        let inputs = files_of(&data, folder.path());
        compressed(1, &path("model"), &to_file(&inputs, &path("file.tsc"))).unwrap();
        decompressed(1, &path("model"), &from_file(&path("file.tsc"), &path("whole"))).unwrap();
        for world_size in [1, 2] {
            let out = path(&format!("{world_size}"));
            let done =
                reconstructed(world_size, &path("model"), &rebuild(&inputs, &out, 0)).unwrap();
            assert!(contents_of_all(&out) == contents_of_all(&path("whole")), "{name}");
            assert!(done.seam.is_none() && done.mse > 0.0 && done.psnr > 1.0, "{name}: {done:?}");
        }
    }
    let (_, model) = networks().swap_remove(0);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_model_for(&path("model"), &model, 5, &data());
    let pixels: Vec<u8> = (0..40 * 28 * 3).map(|at: usize| (at * at % 251) as u8).collect();
    write_png(&path("large.png"), &pixels, (40, 28));
    let mut outputs = Vec::new();
    for overlap in [0, 4] {
        let out = path(&format!("{overlap}.png"));
        let done =
            reconstructed(1, &path("model"), &rebuild(&path("large.png"), &out, overlap)).unwrap();
        assert!(done.seam.unwrap() > 0.0, "{done:?}");
        let mut error = 0.0;
        let output = contents(&out);
        for (ours, theirs) in output.iter().zip(&pixels) {
            error += (f64::from(*ours) - f64::from(*theirs)).powi(2);
        }
        assert!((done.mse - error / pixels.len() as f64).abs() < 1e-9);
        outputs.push(output);
    }
    for y in 0..12 {
        let row = y * 28 * 3..(y * 28 + 12) * 3;
        assert_eq!(outputs[0][row.clone()], outputs[1][row], "the first tile's own");
    }
    assert!(outputs[0] != outputs[1]);
    let error = reconstructed(1, &path("model"), &rebuild(&path("large.png"), &path("x.png"), 9));
    assert_eq!(error.unwrap_err().code(), ExitCode::BadInput);
}

#[test]
fn fewer_levels_are_a_smaller_file_and_decode_as_such() {
    let (_, model) = networks().swap_remove(1);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    write_model_for(&path("model"), &model, 5, &data());
    encoded(&path("model"), 1, &data(), &to_tokens(&path("set")), false).unwrap();
    counted(1, &path("model"), &data(), None);
    let inputs = files_of(&data(), folder.path());
    let options = CompressOptions { levels: Some(1), ..to_file(&inputs, &path("few.tsc")) };
    let few = compressed(2, &path("model"), &options).unwrap();
    let all = compressed(2, &path("model"), &to_file(&inputs, &path("all.tsc"))).unwrap();
    assert_eq!(3 * few.num_codes, all.num_codes);
    assert!(few.payload <= all.payload && few.bytes < all.bytes);
    decompressed(2, &path("model"), &from_file(&path("few.tsc"), &path("few"))).unwrap();
    let mut expected = as_array(&path("set"), &path("array"));
    expected.levels = Some(1);
    let expected = decoded_as(&path("model"), &expected, &path("array"), 1);
    assert!(contents_of_all(&path("few")) == expected);
    let too_many = CompressOptions { levels: Some(4), ..to_file(&inputs, &path("many.tsc")) };
    let error = compressed(1, &path("model"), &too_many).unwrap_err();
    assert_eq!(error.code(), ExitCode::BadInput);
}

/// A model whose samples have 384 codes, and the test split's pictures twice in a file of two blocks: 86 samples, and 84.
fn in_blocks(folder: &Path) -> (PathBuf, PathBuf) {
    let vector = json!({ "kind": "vector", "num_codes": 16, "code_dim": 4 });
    let model = json!({
        "backbone": { "kind": "conv2d", "channels": 8, "residual_layers": 1 },
        "quantizer": { "kind": "residual", "num_quantizers": 24, "quantizer": vector },
    });
    let path = |name: &str| folder.join(name);
    write_model_for(&path("model"), &model, 5, &data());
    let inputs = files_of(&data(), folder);
    for id in 0..NUM_TEST {
        let twice = format!("{:03}.png", NUM_TEST + id);
        fs::copy(inputs.join(format!("{id:03}.png")), inputs.join(twice)).unwrap();
    }
    compressed(1, &path("model"), &to_file(&inputs, &path("file.tsc"))).unwrap();
    (path("model"), path("file.tsc"))
}

#[test]
fn damage_costs_its_block_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (model, file) = in_blocks(folder.path());
    decompressed(1, &model, &from_file(&file, &path("whole"))).unwrap();
    let whole = contents_of_all(&path("whole"));
    let bytes = fs::read(&file).unwrap();
    let mut flipped = bytes.clone();
    flipped[bytes.len() * 2 / 5] ^= 4;
    let sample = (SIDE * SIDE * 3) as usize;
    let first = 86 * sample;
    for (name, damaged, lost) in [
        ("flipped", flipped, 0..first),
        ("cut off", bytes[..bytes.len() - 40].to_vec(), first..whole.len()),
    ] {
        fs::write(path("damaged.tsc"), damaged).unwrap();
        let options = from_file(&path("damaged.tsc"), &path(name));
        for world_size in [1, 2] {
            let error = decompressed(world_size, &model, &options).unwrap_err();
            assert_eq!(error.code(), ExitCode::DataCorrupt, "{name}: {error}");
            assert!(error.to_string().contains("--salvage"), "{name}: {error}");
            assert!(!path(name).exists() && !path(&format!(".{name}.partial")).exists());
        }
        let done =
            decompressed(2, &model, &DecompressOptions { salvage: true, ..options }).unwrap();
        let expected = (lost.start / sample) as u64..(lost.end / sample) as u64;
        assert_eq!(
            (done.lost[0].first, done.lost[0].num),
            (expected.start, expected.end - expected.start)
        );
        assert_eq!(done.lost[0].files[0], format!("{:03}.png", expected.start));
        let mut out = whole.clone();
        out[lost].fill(128);
        assert!(contents_of_all(&path(name)) == out, "{name}: gray, and the others as they were");
    }
    let mut head = bytes;
    head[30] ^= 1;
    fs::write(path("damaged.tsc"), head).unwrap();
    let options = from_file(&path("damaged.tsc"), &path("never"));
    let error = decompressed(1, &model, &options).unwrap_err();
    assert_eq!(error.code(), ExitCode::DataCorrupt, "{error}");
}

#[test]
fn what_cannot_work_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let (_, architecture) = networks().swap_remove(0);
    write_model_for(&path("model"), &architecture, 5, &data());
    write_model_for(&path("other"), &architecture, 6, &data());
    fs::create_dir(path("pictures")).unwrap();
    write_png(&path("pictures/a.png"), &[7; 768], (16, 16));
    let model = open(&path("model"), Device::Cpu).unwrap();
    let coding = Coding::of(&model, &path("model")).unwrap();
    let compressed = |options: &CompressOptions| {
        watching(|watch| compress(&Solo::default(), &model, &coding, options, watch))
    };
    let (inputs, file) = (path("pictures"), path("file.tsc"));
    compressed(&to_file(&inputs, &file)).unwrap();
    let before = fs::read(&file).unwrap();

    let refused = |options: &CompressOptions, word: &str| {
        let error = compressed(options).unwrap_err();
        assert_eq!(error.code(), ExitCode::BadInput, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    };
    refused(&to_file(&inputs, &file), "--force");
    refused(&to_file(&inputs, &path("pictures/file.tsc")), "elsewhere");
    refused(&to_file(&inputs, &path("model")), "is a folder");
    refused(&to_file(&path("model"), &path("new.tsc")), "holds no file");
    fs::write(path("pictures/b.png"), b"no picture").unwrap();
    let error = compressed(&to_file(&inputs, &path("new.tsc"))).unwrap_err();
    assert_eq!(error.code(), ExitCode::DataCorrupt, "{error}");
    assert!(!path("new.tsc").exists() && !path(".new.tsc.partial").exists());
    let skipping = CompressOptions { skips: true, ..to_file(&inputs, &path("new.tsc")) };
    assert_eq!(compressed(&skipping).unwrap().num_files, 1);
    assert_eq!(fs::read(&file).unwrap(), before);

    let decompressed = |model: &OpenModel, options: &DecompressOptions| {
        watching(|watch| decompress(&Solo::default(), model, &coding, options, watch)).unwrap_err()
    };
    let other = open(&path("other"), Device::Cpu).unwrap();
    fs::write(path("garbage.tsc"), b"no compressed file").unwrap();
    fs::create_dir_all(path("there/is")).unwrap();
    for (model, input, out, word) in [
        (&other, "file.tsc", "out", "compressed with the model"),
        (&model, "garbage.tsc", "out", "no compressed file"),
        (&model, "file.tsc", "there", "--force"),
        (&model, "file.tsc", "file.tsc", "is there already"),
    ] {
        let error = decompressed(model, &from_file(&path(input), &path(out)));
        assert_eq!(error.code(), ExitCode::BadInput, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    }
    assert!(!path("out").exists());
    let missing = decompressed(&model, &from_file(&path("missing.tsc"), &path("out")));
    assert_eq!(missing.code(), ExitCode::BadInput, "{missing}");
    assert!(missing.to_string().contains("missing.tsc"), "{missing}");
    refused(&to_file(&path("nowhere"), &path("new2.tsc")), "cannot be read");
    refused(&to_file(&inputs.join("a.png"), &path("no/folder.tsc")), "cannot be written");
    let error = decompressed(&model, &from_file(&file, &path("garbage.tsc/below")));
    assert!(error.to_string().contains("cannot be written"), "{error}");
    // What is in a folder that is written into stays, but for files of the same names.
    let forced = DecompressOptions { force: true, ..from_file(&file, &path("there")) };
    fs::write(path("there/a.png"), b"another").unwrap();
    watching(|watch| decompress(&Solo::default(), &model, &coding, &forced, watch)).unwrap();
    assert!(path("there/is").is_dir() && contents(&path("there/a.png")).len() == 768);
    // One file: its name says what it is.
    compressed(&to_file(&path("pictures/a.png"), &path("one.tsc"))).unwrap();
    let error = decompressed(&model, &from_file(&path("one.tsc"), &path("one.jpg")));
    assert!(error.to_string().contains(".png"), "{error}");
}
