//! An atlas of every network: whose codes they are, in files of the sizes that it says.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use tch::Device;
use tessera_apply::{Atlas, AtlasOptions, Watch, write_atlas};
use tessera_comm::{CommError, Threads};
use tessera_control::{Activity, ExitCode};
use tessera_data::DataConfig;
use tessera_model::open;

use crate::encode::networks::{NUM_TEST, all_networks};
use crate::encode::{DEADLINE, write_model_for};

fn options(out: &Path) -> AtlasOptions {
    AtlasOptions {
        out: out.to_owned(),
        split: "test".to_owned(),
        samples: 20,
        patches: 3,
        maps: 2,
        neighbours: 5,
        force: false,
    }
}

fn written(
    world_size: usize,
    model: &Path,
    data: &DataConfig,
    options: &AtlasOptions,
) -> Result<Atlas, tessera_apply::ApplyError> {
    tch::set_num_threads(1);
    let mut ranks = Threads::run(world_size, DEADLINE, |comm| {
        let opened = open(model, Device::Cpu).unwrap();
        let activity = Activity::default();
        let watch = Watch { activity: &activity, stop: Arc::default(), say: &|_| () };
        Ok::<_, CommError>(write_atlas(&comm, &opened, data, options, &watch))
    });
    ranks.swap_remove(0).expect("joins")
}

/// All files below a folder.
fn all_files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for below in [folder.to_owned(), folder.join("index_maps")] {
        for entry in fs::read_dir(below).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                all.insert(path.strip_prefix(folder).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    all
}

fn size_of(png: &[u8]) -> (u64, u64) {
    let number = |at: usize| u64::from(u32::from_be_bytes(png[at..at + 4].try_into().unwrap()));
    (number(16), number(20))
}

#[test]
fn every_network_has_an_atlas_whoever_shares_the_work() {
    let files = tempfile::tempdir().unwrap();
    for (name, model, data) in all_networks(files.path()) {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        write_model_for(&path("model"), &model, 5, &data);
        let done = written(1, &path("model"), &data, &options(&path("one"))).unwrap();
        written(2, &path("model"), &data, &options(&path("two"))).unwrap();
        let all = all_files(&path("one"));
        assert!(all == all_files(&path("two")), "{name}");

        assert_eq!(done.num_samples, NUM_TEST.min(20), "{name}");
        let about: Value = serde_json::from_slice(&all[Path::new("atlas.json")]).unwrap();
        let number = |value: &Value| value.as_u64().unwrap();
        for (level, of_level) in about["levels"].as_array().unwrap().iter().enumerate() {
            let positions: u64 = of_level["axes"].as_array().unwrap().iter().map(number).product();
            let counts: Vec<u64> =
                of_level["counts"].as_array().unwrap().iter().map(number).collect();
            assert_eq!(counts.iter().sum::<u64>(), done.num_samples * positions, "{name} {level}");
            let used = counts.iter().filter(|num| **num > 0).count();
            assert_eq!(done.levels[level], (counts.len(), used), "{name} {level}");
            for (sheet, rows) in
                [("alone", None), ("context", None), ("patches", Some(counts.len()))]
            {
                let cells = &of_level[sheet];
                if cells.is_null() {
                    assert!(name == "conv1d" && sheet == "patches", "{name} {sheet}");
                    continue;
                }
                let columns = number(&cells["columns"]);
                let rows = rows.unwrap_or(counts.len().div_ceil(columns as usize)) as u64;
                let wanted = (columns * number(&cells["width"]), rows * number(&cells["height"]));
                let png = &all[Path::new(&format!("{sheet}-{level}.png"))];
                assert_eq!(size_of(png), wanted, "{name} {sheet}");
            }
            let taken = of_level["neighbours"].as_array().unwrap().len();
            assert_eq!(taken, used.min(5));
            // Behind a head of whole 64 bytes.
            let pairs = &all[Path::new(&format!("neighbours-{level}.npy"))];
            assert_eq!(pairs.len() % 64, 4 * taken * taken % 64, "{name}");
        }
        let map: Value = serde_json::from_slice(&all[Path::new("index_maps/001.json")]).unwrap();
        assert_eq!(map["id"], 1);
        assert_eq!(map["codes"].as_array().unwrap().len(), done.levels.len());
        assert_eq!(all.contains_key(Path::new("alone-0.wav")), name == "conv1d");
    }
}

#[test]
fn a_folder_that_is_there_stays() {
    let files = tempfile::tempdir().unwrap();
    let (_, model, data) = all_networks(files.path()).swap_remove(0);
    let folder = tempfile::tempdir().unwrap();
    write_model_for(&folder.path().join("model"), &model, 5, &data);
    let out = folder.path().join("atlas");
    fs::create_dir(&out).unwrap();
    fs::write(out.join("mine"), b"here").unwrap();
    let model = folder.path().join("model");
    let error = written(1, &model, &data, &options(&out)).unwrap_err();
    assert_eq!(error.code(), ExitCode::BadInput, "{error}");
    assert!(error.to_string().contains("--force") && out.join("mine").is_file(), "{error}");
    written(1, &model, &data, &AtlasOptions { force: true, ..options(&out) }).unwrap();
    assert!(!out.join("mine").exists() && out.join("atlas.json").is_file());
    let absent = AtlasOptions { split: "dev".to_owned(), ..options(&folder.path().join("x")) };
    assert_eq!(written(1, &model, &data, &absent).unwrap_err().code(), ExitCode::BadInput);
}
