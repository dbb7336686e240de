//! A token set is a data source like any other.

use std::collections::BTreeSet;
use std::process::Command;

use safetensors::{Dtype, SafeTensors};
use tessera_data::tokens::{Histograms, TokenInfo};
use tessera_data::{
    LoadOptions, Loader, MixturePart, OnCorrupt, Order, PackOptions, Shuffle, pack, preview,
    train_plan,
};

use super::*;

#[test]
fn every_code_comes_back_whatever_its_width() {
    let (_folder, path) = written();
    for (split, num) in [("train", NUM_TRAIN), ("test", NUM_TEST)] {
        let source = open(&path, split);
        assert_eq!((source.num_samples(), source.shape()), (num, SampleShape::tokens(14)));
        for id in 0..num {
            assert_eq!(read(&*source, id, Draw::NONE).unwrap(), codes(&levels(), id, 0));
            assert_eq!(source.label(id).unwrap(), (id != 4).then_some(id as i64 % 3));
            assert_eq!(source.name(id), id.to_string());
        }
        assert_eq!(source.num_classes().unwrap(), Some(3));
        assert_eq!(source.classes(), ["ant", "bee", "cow"]);
        let groups = (0..num).map(|id| id / 3 * 3).collect();
        assert_eq!(source.groups().unwrap(), Groups::Of(groups));
    }
    let train = open(&path, "train");
    assert_eq!(train.shard_starts(), [0, 4, 8, 11]);
    let expected = TokenInfo {
        tokenizer: "0123abcd".to_owned(),
        shape: SampleShape::image(3, 8, 12),
        levels: levels(),
        variants: words(&["plain", "flip"]),
    };
    assert_eq!(train.tokens(), Some(&expected));
    assert_eq!(train.fingerprint(), open(&path, "test").fingerprint());
}

#[test]
fn a_shard_is_a_safetensors_file_of_the_narrowest_types() {
    let (_folder, path) = written();
    let bytes = fs::read(path.join("train-00001.safetensors")).unwrap();
    let shard = SafeTensors::deserialize(&bytes).unwrap();
    let found = |name: &str| {
        let tensor = shard.tensor(name).unwrap();
        (tensor.dtype(), tensor.shape().to_vec())
    };
    assert_eq!(found("codes.0"), (Dtype::U8, vec![4, 2, 6]));
    assert_eq!(found("codes.1"), (Dtype::U16, vec![4, 2, 6]));
    assert_eq!(found("codes.2"), (Dtype::U32, vec![4, 2, 2]));
    assert_eq!(found("label"), (Dtype::I32, vec![4]));
    assert_eq!(found("id"), (Dtype::U64, vec![4]));
    assert_eq!(found("group"), (Dtype::U64, vec![4]));
    assert_eq!(found("crc32"), (Dtype::U32, vec![4, 2]));
    // Sample 4 of the split is the first one here, and has no label.
    let labels = shard.tensor("label").unwrap();
    let expected: Vec<u8> = [-1i32, 2, 0, 1].iter().flat_map(|label| label.to_le_bytes()).collect();
    assert_eq!(labels.data(), expected);
    let second = &shard.tensor("codes.0").unwrap().data()[6..12];
    assert!(second.iter().zip(codes(&levels(), 4, 1)).all(|(&byte, code)| u32::from(byte) == code));
}

#[test]
fn python_opens_shards_and_histograms() {
    let made = || {
        let home = std::env::var_os("HOME")?;
        Some(PathBuf::from(home).join(".cache/tessera/python/bin/python"))
    };
    let python = std::env::var_os("TESSERA_PYTHON").map(PathBuf::from).or_else(made).unwrap();
    let has = Command::new(&python).args(["-c", "import safetensors.numpy"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        println!("skipped: no Python with safetensors and numpy; launch/python.sh makes one");
        return;
    }
    let (_folder, path) = written();
    let script = "
import sys
from safetensors.numpy import load_file
shard = load_file(sys.argv[1] + '/train-00001.safetensors')
for name in sorted(shard):
    print(name, shard[name].dtype, *shard[name].shape)
print(*shard['codes.2'][1, 1], *shard['label'])
counts = load_file(sys.argv[1] + '/histograms-train.safetensors')
for name in sorted(counts):
    print(name, counts[name].dtype, *counts[name].shape, int(counts[name].sum()))
";
    let output = Command::new(python).args(["-c", script]).arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let [first, second] = codes(&levels(), 5, 1)[12..] else { panic!("two codes of level 2") };
    let expected = format!(
        "codes.0 uint8 4 2 6\ncodes.1 uint16 4 2 6\ncodes.2 uint32 4 2 2\ncrc32 uint32 4 2\n\
         group uint64 4\nid uint64 4\nlabel int32 4\n{first} {second} -1 2 0 1\n\
         class.0 uint32 3 6 256 60\nclass.1 uint32 3 6 257 60\nclass.2 uint32 3 2 70000 20\n\
         level.0 uint64 256 66\nlevel.1 uint64 257 66\nlevel.2 uint64 70000 22\n\
         position.0 uint32 6 256 66\nposition.1 uint32 6 257 66\nposition.2 uint32 2 70000 22\n"
    );
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

/// The variant of a sample in an epoch: the same in whatever order, and by whomever, it is read.
#[test]
fn variants_are_drawn_by_seed_epoch_and_sample() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("set");
    write(&path, &plan_of(levels(), &["plain", "flip", "crop.0", "crop.1"], 3));
    let source = open(&path, "train");
    let variant = |seed, epoch, id| {
        let found = read(&*source, id, Draw::new(seed, epoch, id)).unwrap();
        (0..4).find(|&variant| codes(&levels(), id, variant) == found).unwrap()
    };
    let keys: Vec<(u64, u64, u64)> =
        (0..200).flat_map(|epoch| (0..NUM_TRAIN).map(move |id| (7, epoch, id))).collect();
    let forward: Vec<usize> =
        keys.iter().map(|&(seed, epoch, id)| variant(seed, epoch, id)).collect();
    let mut backward: Vec<usize> =
        keys.iter().rev().map(|&(seed, epoch, id)| variant(seed, epoch, id)).collect();
    backward.reverse();
    assert_eq!(forward, backward);
    // Five standard deviations of a binomial of 2200 and 1/4 are 102.
    for number in 0..4 {
        let count = forward.iter().filter(|variant| **variant == number).count();
        assert!(count.abs_diff(550) < 102, "variant {number} came {count} times");
    }
    let other: Vec<usize> = keys.iter().map(|&(_, epoch, id)| variant(8, epoch, id)).collect();
    assert_ne!(forward, other);
    // An evaluation reads the samples as they are.
    assert!(
        (0..NUM_TRAIN).all(|id| read(&*source, id, Draw::NONE).unwrap() == codes(&levels(), id, 0))
    );
}

/// Codes, labels and numbers of samples of some steps, over all ranks of a world.
fn steps(
    config: &DataConfig,
    first: u64,
    world_size: usize,
    threads: usize,
) -> Vec<(u64, i64, Vec<u8>)> {
    let source = source::open(config, "train").unwrap();
    let mut all = Vec::new();
    let options =
        LoadOptions { labels: true, threads, on_corrupt: OnCorrupt::Skip, ..Default::default() };
    let mut loaders: Vec<Loader> = (0..world_size)
        .map(|rank| {
            let order = Order::Shuffled(source.sampler(&config.shuffling(), 5));
            Loader::new(
                Arc::clone(&source),
                order,
                train_plan(first, 9, 7, rank, world_size),
                options,
            )
            .unwrap()
        })
        .collect();
    for _ in first..9 {
        for loader in &mut loaders {
            let batch = loader.next().unwrap().unwrap();
            let samples = batch.pixels().chunks_exact(batch.shape.num_bytes());
            let labels = batch.labels.iter().copied();
            for ((id, label), sample) in batch.ids.iter().zip(labels).zip(samples) {
                all.push((*id, label, sample.to_vec()));
            }
        }
    }
    all
}

#[test]
fn batches_are_the_same_for_every_world_and_after_every_resume() {
    let (_folder, path) = written();
    for shuffle in [Shuffle::Global, Shuffle::TwoLevel] {
        let config = DataConfig { shuffle, shuffle_shards: 2, shuffle_block: 2, ..config(&path) };
        let alone = steps(&config, 0, 1, 1);
        assert_eq!(alone.len(), 63);
        // Sample 4 has no label, and others take its place.
        assert!(alone.iter().all(|(id, label, _)| *id != 4 && *label == *id as i64 % 3));
        for (world_size, threads) in [(1, 3), (2, 1), (3, 2), (5, 1)] {
            assert_eq!(steps(&config, 0, world_size, threads), alone, "{world_size} ranks");
        }
        assert_eq!(steps(&config, 4, 3, 1), alone[4 * 7..]);
    }
}

#[test]
fn parts_and_mixtures_of_token_sets_know_what_their_codes_are() {
    let (_folder, path) = written();
    let whole = open(&path, "train");
    for part in [
        DataConfig { folds: 3, fold: 1, ..config(&path) },
        DataConfig { fraction: 0.5, ..config(&path) },
    ] {
        let part = source::open(&part, "train").unwrap();
        assert_eq!(part.tokens(), whole.tokens());
        let counted = part.histograms().unwrap().unwrap();
        assert_eq!(counted.levels[0].iter().sum::<u64>(), 6 * part.num_samples());
        assert!(part.num_samples() < NUM_TRAIN);
    }
    let mixture = |parts: &[&Path]| {
        let part = |path: &&Path| MixturePart { weight: 1.0, data: config(path) };
        DataConfig {
            kind: DataKind::Mixture,
            mixture: parts.iter().map(part).collect(),
            ..DataConfig::default()
        }
    };
    let twice = source::open(&mixture(&[&path, &path]), "train").unwrap();
    assert_eq!((twice.num_samples(), twice.tokens()), (2 * NUM_TRAIN, whole.tokens()));
    let (once, both) = (whole.histograms().unwrap().unwrap(), twice.histograms().unwrap().unwrap());
    let doubled = |counts: &Vec<Vec<u64>>| -> Vec<Vec<u64>> {
        counts.iter().map(|counts| counts.iter().map(|count| 2 * count).collect()).collect()
    };
    assert_eq!(doubled(&once.levels), both.levels);

    let folder = tempfile::tempdir().unwrap();
    let refused = |name: &str, tokenizer: &str, levels: Vec<TokenLevel>| {
        let other = folder.path().join(name);
        let tokenizer = Tokenizer { hash: tokenizer.to_owned(), levels };
        let splits: [(&str, Arc<dyn Source>); 1] =
            [("train", Arc::new(Encoded { num_samples: 3 }))];
        let data = DataConfig::default();
        let plan = TokenPlan::new(&tokenizer, &words(&["plain"]), &data, &splits, 4).unwrap();
        write(&other, &plan);
        let error = source::open(&mixture(&[&path, &other]), "train").err().unwrap();
        told(&error, DataErrorKind::BadInput)
    };
    let message = refused("other", "4567", levels());
    let expected =
        "data.mixture has token sets of two tokenisers, 0123abcd in part 1 and 4567 in part 2";
    assert!(message.starts_with(expected), "{message}");
    let message = refused("grid", "0123abcd", levels()[..2].to_vec());
    assert!(message.contains("of several grids or numbers of codes"), "{message}");
    let mut mixed = mixture(&[&path, &path]);
    mixed.mixture[1].data = DataConfig { kind: DataKind::Synthetic, ..DataConfig::default() };
    let message = told(&source::open(&mixed, "train").err().unwrap(), DataErrorKind::BadInput);
    assert!(message.contains("has token sets and other data"), "{message}");
}

#[test]
fn counts_are_those_of_the_samples_as_they_are() {
    let (_folder, path) = written();
    let train = open(&path, "train");
    let histograms: Histograms = train.histograms().unwrap().unwrap();
    let (positions, classes) = (histograms.positions.unwrap(), histograms.classes.unwrap());
    let mut expected = (vec![0; 256], vec![0; 6 * 256], vec![0; 3 * 6 * 256]);
    for id in 0..NUM_TRAIN {
        for (position, code) in codes(&levels(), id, 0)[..6].iter().enumerate() {
            expected.0[*code as usize] += 1;
            expected.1[position * 256 + *code as usize] += 1;
            if id != 4 {
                expected.2[(id as usize % 3 * 6 + position) * 256 + *code as usize] += 1;
            }
        }
    }
    assert_eq!(
        (&histograms.levels[0], &positions[0], &classes[0]),
        (&expected.0, &expected.1, &expected.2)
    );
    let used: BTreeSet<u32> =
        (0..NUM_TRAIN).flat_map(|id| codes(&levels(), id, 0)[12..].to_vec()).collect();
    let read_again = train.histograms().unwrap().unwrap();
    assert_eq!(read_again.num_used(2), used.len());
}

#[test]
fn what_needs_samples_to_look_at_refuses_tokens() {
    let (folder, path) = written();
    let options = PackOptions {
        data: config(&path),
        out: folder.path().join("packed"),
        shard_samples: 4,
        zstd_level: None,
        on_corrupt: OnCorrupt::Fail,
    };
    let message = told(&pack(&options, &|_, _| {}).unwrap_err(), DataErrorKind::BadInput);
    assert!(message.starts_with("data.kind is of tokens, which lie in shards"), "{message}");
    let sheet = folder.path().join("sheet.png");
    let drawn = preview(&*open(&path, "train"), &[0], OnCorrupt::Fail, &sheet);
    let message = told(&drawn.unwrap_err(), DataErrorKind::BadInput);
    assert!(message.starts_with("data.kind is of tokens, which are no pictures"), "{message}");
    let files = DataConfig {
        kind: DataKind::Folder,
        modality: tessera_data::Modality::Tokens,
        ..config(&path)
    };
    let message = told(&files.validate().unwrap_err(), DataErrorKind::BadInput);
    assert!(message.contains("set data.kind to \"tokens\""), "{message}");
}
