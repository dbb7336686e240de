//! Sound as one stream: codes hang on all that came before, and the bytes on nobody who shares the work.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tessera_apply::{
    CompressOptions, DecompressOptions, ReconstructOptions, StreamOptions, TablesOptions,
    count_tables,
};
use tessera_codec::{FileReader, FileWriter, Media, Tables};
use tessera_control::ExitCode;
use tessera_data::{DataConfig, DataKind, Modality};
use tessera_model::media::wav;

use super::{
    by_ranks, compressed, contents, decompressed, from_file, rebuild, reconstructed, to_file,
};
use crate::encode::write_model_for;

/// Instants of a window, of which a piece of a stream is a sixteenth, two codes.
const WINDOW: u32 = 256;

/// A causal network of hop 8 and three levels of codes in `folder/model`, and sounds of these lengths in `folder/sounds`.
fn prepared(folder: &Path, more: &Value, lengths: &[usize]) -> PathBuf {
    let sounds = folder.join("sounds");
    fs::create_dir_all(&sounds).unwrap();
    let mut noise = 7u32;
    let mut next = || {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (noise >> 16) as i16 / 4
    };
    let mut write = |path: PathBuf, length: usize| {
        let samples: Vec<i16> = (0..length).map(|_| next()).collect();
        fs::write(path, wav(&samples, 1, 8000).unwrap()).unwrap();
    };
    for (number, &length) in lengths.iter().enumerate() {
        write(sounds.join(format!("{number}.wav")), length);
    }
    for split in ["train", "test"] {
        fs::create_dir_all(folder.join("data").join(split)).unwrap();
        write(folder.join("data").join(split).join("a.wav"), 64 * WINDOW as usize);
    }
    let mut backbone =
        json!({ "kind": "conv1d", "channels": 4, "ratios": [4, 2], "lstm_layers": 1 });
    backbone.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let vector = json!({ "kind": "vector", "num_codes": 32, "code_dim": 8 });
    let residual = json!({ "kind": "residual", "num_quantizers": 3, "quantizer": vector });
    let (kind, path) = (DataKind::Folder, folder.join("data"));
    let mut data = DataConfig { kind, path, modality: Modality::Audio, ..DataConfig::default() };
    (data.audio.sample_rate, data.audio.length) = (8000, WINDOW);
    let model = folder.join("model");
    write_model_for(&model, &json!({ "backbone": backbone, "quantizer": residual }), 5, &data);
    // So little data leaves a table for each position, which pieces of a stream do not have.
    let options = TablesOptions { folder: model.clone(), tokens: None, samples: u64::MAX };
    by_ranks(1, &model, |comm, opened, _, watch| {
        count_tables(comm, opened, &data, &options, watch).unwrap()
    });
    model
}

const STREAM: Option<StreamOptions> = Some(StreamOptions { latency: None });

/// Two codes at a time, each piece a block of its own.
const LIVE: Option<StreamOptions> = Some(StreamOptions { latency: Some(0.002) });

fn as_stream(input: &Path, out: &Path) -> CompressOptions {
    CompressOptions { stream: STREAM, ..to_file(input, out) }
}

fn whole(input: &Path, out: &Path) -> ReconstructOptions {
    ReconstructOptions { stream: STREAM, ..rebuild(input, out, 0) }
}

/// The numbers of each sound of a folder.
fn sounds(folder: &Path) -> Vec<Vec<i16>> {
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let numbers = |path: &PathBuf| {
        contents(path).as_chunks().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect()
    };
    paths.iter().map(numbers).collect()
}

fn assert_close(found: &[i16], wanted: &[i16]) {
    assert_eq!(found.len(), wanted.len());
    let apart = found.iter().zip(wanted).map(|(one, other)| one.abs_diff(*other)).max();
    assert!(apart <= Some(1), "{apart:?}");
}

#[test]
fn sounds_come_out_as_the_model_reconstructs_them_whoever_shares_the_work() {
    let lengths = [700, 5, 256, 257, 1024];
    for more in [json!({}), json!({ "padding": "reflect", "attention_layers": 1 })] {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let model = prepared(folder.path(), &more, &lengths);
        let done = compressed(1, &model, &as_stream(&path("sounds"), &path("1.tsc"))).unwrap();
        let pieces: usize = lengths.iter().map(|length| length.div_ceil(16)).sum();
        if more.as_object().unwrap().is_empty() {
            assert_eq!((done.num_samples, done.num_codes), (pieces as u64, 6 * pieces as u64));
        }
        assert_eq!(done.raw_bytes, 2 * lengths.iter().sum::<usize>() as u64);
        for world_size in [2, 3] {
            let out = path(&format!("{world_size}.tsc"));
            compressed(world_size, &model, &as_stream(&path("sounds"), &out)).unwrap();
            assert!(fs::read(&out).unwrap() == fs::read(path("1.tsc")).unwrap(), "{more}");
        }
        reconstructed(2, &model, &whole(&path("sounds"), &path("rebuilt"))).unwrap();
        let wanted = sounds(&path("rebuilt"));
        assert!(wanted.iter().map(Vec::len).eq(lengths));
        for world_size in [1, 2] {
            let out = path(&format!("out {world_size}"));
            let done = decompressed(world_size, &model, &from_file(&path("1.tsc"), &out)).unwrap();
            assert!(done.lost.is_empty() && sounds(&out) == wanted, "{more}");
        }
        // Larger pieces, in which nothing but the order of sums is another, and the first window of those that are cut.
        let large = StreamOptions { latency: Some(9.0) };
        let options = ReconstructOptions {
            stream: Some(large),
            ..rebuild(&path("sounds"), &path("large"), 0)
        };
        reconstructed(1, &model, &options).unwrap();
        reconstructed(1, &model, &rebuild(&path("sounds"), &path("windows"), 0)).unwrap();
        let (large, windows) = (sounds(&path("large")), sounds(&path("windows")));
        for ((wanted, large), windows) in wanted.iter().zip(&large).zip(&windows) {
            assert_close(large, wanted);
            let first = wanted.len().min(WINDOW as usize);
            assert_close(&windows[..first], &wanted[..first]);
        }
        assert!(wanted[0][256..] != windows[0][256..], "what came before is heard");
    }
}

#[test]
fn lost_codes_are_silence_behind_which_a_stream_begins_anew() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let model = prepared(folder.path(), &json!({}), &[330, 100]);
    let live = CompressOptions { stream: LIVE, ..to_file(&path("sounds"), &path("live.tsc")) };
    compressed(1, &model, &live).unwrap();
    let few = CompressOptions { levels: Some(1), ..as_stream(&path("sounds"), &path("few.tsc")) };
    assert!(
        compressed(1, &model, &few).unwrap().payload
            < fs::metadata(path("live.tsc")).unwrap().len()
    );
    decompressed(1, &model, &from_file(&path("few.tsc"), &path("few"))).unwrap();
    let first = ReconstructOptions { levels: Some(1), ..whole(&path("sounds"), &path("first")) };
    reconstructed(1, &model, &first).unwrap();
    assert!(sounds(&path("few")) == sounds(&path("first")));

    decompressed(1, &model, &from_file(&path("live.tsc"), &path("whole"))).unwrap();
    let wanted = sounds(&path("whole"));
    let mut bytes = fs::read(path("live.tsc")).unwrap();
    let blocks: Vec<usize> =
        (0..bytes.len() - 3).filter(|&at| bytes[at..at + 4] == *b"\xb1TS\x0b").collect();
    // Pieces of 16 instants: 21 of the first sound, 7 of the second, and the end.
    assert_eq!(blocks.len(), 29);
    bytes[blocks[4] + 33] ^= 1;
    fs::write(path("damaged.tsc"), &bytes).unwrap();
    let options = from_file(&path("damaged.tsc"), &path("salvaged"));
    let error = decompressed(1, &model, &options).unwrap_err();
    assert_eq!(error.code(), ExitCode::DataCorrupt, "{error}");
    assert!(!path("salvaged").exists());
    let done = decompressed(2, &model, &DecompressOptions { salvage: true, ..options }).unwrap();
    assert_eq!((done.lost[0].first, done.lost[0].num), (4, 1));
    assert_eq!(done.lost[0].files, ["0.wav"]);
    let found = sounds(&path("salvaged"));
    assert!(found[0][..64] == wanted[0][..64] && found[1] == wanted[1]);
    assert!(found[0][64..80].iter().all(|sample| *sample == 0));
    assert!(found[0][80..] != wanted[0][80..], "without its past");
}

/// A piece of 2^24 codes would be computed at once.
#[test]
fn a_header_that_claims_too_much_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let model = prepared(folder.path(), &json!({}), &[300]);
    compressed(1, &model, &as_stream(&path("sounds/0.wav"), &path("one.tsc"))).unwrap();
    let mut header =
        FileReader::open(fs::File::open(path("one.tsc")).unwrap()).unwrap().header().clone();
    header.levels.truncate(1);
    header.levels[0].positions = 1 << 24;
    (header.entries[0].samples, header.entries[0].media) =
        (None, Media::Audio { channels: 1, sample_rate: 8000, frames: None });
    let tables = Tables::uniform(&[32, 32, 32]).unwrap();
    header.tables = tables.id().to_owned();
    let mut bytes = Vec::new();
    FileWriter::new(&mut bytes, header, &tables).unwrap().finish_with(9).unwrap();
    fs::write(path("claims.tsc"), bytes).unwrap();
    let error = decompressed(1, &model, &from_file(&path("claims.tsc"), &path("out.wav")));
    let error = error.unwrap_err();
    assert_eq!(error.code(), ExitCode::DataCorrupt, "{error}");
    assert!(error.to_string().contains("pieces of 16777216 codes, not 1 to 32"), "{error}");
}

#[test]
fn what_has_no_stream_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let model = prepared(folder.path(), &json!({ "causal": false }), &[300]);
    let refused = |error: tessera_apply::ApplyError, word: &str| {
        assert_eq!(error.code(), ExitCode::BadInput, "{error}");
        assert!(error.to_string().contains(word), "{error}");
    };
    let error = compressed(1, &model, &as_stream(&path("sounds"), &path("x.tsc"))).unwrap_err();
    refused(error, "causal = false");
    let error = reconstructed(1, &model, &whole(&path("sounds"), &path("x"))).unwrap_err();
    refused(error, "causal = false");
    let both = ReconstructOptions { overlap: 3, ..whole(&path("sounds"), &path("x")) };
    refused(reconstructed(1, &model, &both).unwrap_err(), "--overlap");
    assert!(!path("x").exists() && !path("x.tsc").exists());
}
