//! The networks that the promises of encoding are made of, and data for each.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Value, json};
use tessera_apply::{DecodeOptions, Form};
use tessera_data::{DataConfig, DataKind, Modality, Source, SyntheticConfig};

use super::media::{write_film, write_wav};

pub(crate) const SIDE: u32 = 16;
/// No multiple of a tile, nor of a shard of two.
pub(crate) const NUM_TRAIN: u64 = 300;
pub(crate) const NUM_TEST: u64 = 85;
/// Of a sound.
const INSTANTS: u32 = 64;

/// Pictures.
pub(crate) fn data() -> DataConfig {
    let synthetic = SyntheticConfig {
        channels: 3,
        height: SIDE,
        width: SIDE,
        num_train: NUM_TRAIN,
        num_test: NUM_TEST,
        seed: 3,
    };
    DataConfig { kind: DataKind::Synthetic, synthetic, ..DataConfig::default() }
}

fn vector(num_codes: i64, code_dim: i64) -> Value {
    json!({ "kind": "vector", "num_codes": num_codes, "code_dim": code_dim })
}

/// The networks that the promise is made of, by name.
pub(crate) fn networks() -> Vec<(&'static str, Value)> {
    let conv2d = json!({ "kind": "conv2d", "channels": 8, "residual_layers": 1 });
    let unet2d = json!({ "kind": "unet2d", "channels": 32, "multipliers": [1, 2] });
    let hierarchy = json!({ "kind": "hierarchy", "channels": 8, "residual_layers": 1 });
    let residual = json!({ "kind": "residual", "num_quantizers": 3, "quantizer": vector(32, 8) });
    vec![
        ("conv2d", json!({ "backbone": conv2d, "quantizer": vector(64, 8) })),
        ("residual", json!({ "backbone": conv2d, "quantizer": residual })),
        ("unet2d", json!({ "backbone": unet2d, "quantizer": vector(300, 8) })),
        ("hierarchy", json!({ "backbone": hierarchy, "quantizer": vector(64, 8) })),
    ]
}

/// Sound and film, as files in a folder, and a network for each.
fn signals(folder: &Path) -> Vec<(&'static str, Value, DataConfig)> {
    let mut noise = 7u32;
    let mut next = move || {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise >> 16
    };
    let (sounds, films) = (folder.join("sounds"), folder.join("films"));
    for (split, num) in [("train", NUM_TRAIN), ("test", NUM_TEST)] {
        fs::create_dir_all(sounds.join(split)).unwrap();
        let instants = INSTANTS * num as u32;
        write_wav(&sounds.join(split).join("a.wav"), instants, |_| next() as i16);
        // Each clip has its own brightness and stripes.
        write_film(&films.join(split).join("a"), 3 * num as u32, SIDE, |frame, at| {
            let (clip, column) = (frame / 3, at / 3 % SIDE);
            (29 * clip + 8 * column * (clip % 5) + frame % 3) as u8
        });
    }
    let of = |path, modality| {
        let path: &Path = path;
        let (kind, path) = (DataKind::Folder, path.to_owned());
        DataConfig { kind, path, modality, ..DataConfig::default() }
    };
    let mut sound = of(&sounds, Modality::Audio);
    (sound.audio.sample_rate, sound.audio.length) = (8000, INSTANTS);
    let mut film = of(&films, Modality::Video);
    (film.video.frames, film.video.height, film.video.width) = (3, SIDE, SIDE);
    let conv1d = json!({ "kind": "conv1d", "channels": 4, "ratios": [4, 2], "lstm_layers": 1, "attention_layers": 1 });
    let conv3d =
        json!({ "kind": "conv3d", "channels": 8, "patch": 2, "spatial": 4, "temporal": 2 });
    let residual = json!({ "kind": "residual", "num_quantizers": 3, "quantizer": vector(32, 8) });
    vec![
        ("conv1d", json!({ "backbone": conv1d, "quantizer": residual }), sound),
        ("conv3d", json!({ "backbone": conv3d, "quantizer": vector(64, 8) }), film),
    ]
}

/// Networks of all signals, each with its data.
pub(crate) fn all_networks(folder: &Path) -> Vec<(&'static str, Value, DataConfig)> {
    let of_pictures = networks().into_iter().map(|(name, model)| (name, model, data()));
    of_pictures.chain(signals(folder)).collect()
}

/// The files of a folder by their names.
pub(crate) fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files = entries.filter(|path| path.is_file());
    files.map(|path| (path.file_name().unwrap().into(), fs::read(&path).unwrap())).collect()
}

/// A split of a token set.
pub(crate) fn tokens(set: &Path, split: &str) -> Arc<dyn Source> {
    let config =
        DataConfig { kind: DataKind::Tokens, path: set.to_owned(), ..DataConfig::default() };
    tessera_data::source::open(&config, split).unwrap()
}

/// All of split `test` as an array.
pub(crate) fn as_array(set: &Path, out: &Path) -> DecodeOptions {
    DecodeOptions {
        tokens: set.to_owned(),
        split: "test".to_owned(),
        ids: Vec::new(),
        limit: None,
        levels: None,
        form: Form::Array(out.to_owned()),
    }
}
