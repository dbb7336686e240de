//! Mixtures, and a pack that is stopped.

use crate::*;
use std::collections::BTreeSet;
use tessera_data::MixturePart;

#[test]
fn parts_of_a_mixture_come_by_weight_and_must_have_one_shape() {
    let folder = tempfile::tempdir().unwrap();
    write(
        folder.path(),
        &[("a/0.png", png(1, 2, 2)), ("b/0.png", png(2, 2, 2)), ("c/0.png", png(3, 4, 4))],
    );
    let part = |name: &str, weight| MixturePart {
        weight,
        data: config(DataKind::Folder, &folder.path().join(name)),
    };
    let mixture = |parts: Vec<MixturePart>| DataConfig {
        mixture: parts,
        ..config(DataKind::Mixture, Path::new(""))
    };
    let data = mixture(vec![part("a", 3.0), part("b", 1.0)]);
    let source = source::open(&data, "train").unwrap();
    assert_eq!(source.num_samples(), 2);
    assert_eq!(read(&*source, 1, Draw::NONE), picture(2, 2, 2).into_raw());
    let sampler = source.sampler(&data.shuffling(), 0);
    let second = (0..10_000).filter(|&at| sampler.sample_at(at).id == 1).count();
    assert_eq!(second, 2500);
    assert!(refused(&mixture(vec![part("a", 1.0), part("c", 1.0)])).contains("other shapes"));
    assert!(refused(&mixture(vec![part("a", 0.0)])).contains("weights are above 0"));
    assert!(refused(&mixture(vec![])).contains("data.mixture is empty"));
    packs_as_it_is_read(&data);
}

/// A pack that is ended between two shards goes on there, and gives the same bytes.
#[test]
fn a_stopped_pack_goes_on_where_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in");
    for id in 0..10u8 {
        write(&input, &[(&format!("{id}.png"), png(id, 4, 4))]);
    }
    let data = config(DataKind::Folder, &input);
    let (whole, out) = (folder.path().join("whole"), folder.path().join("out"));
    pack(&options(data.clone(), &whole), &|_, _| {}).unwrap();

    // As a killed process leaves it: two shards that are whole, one that is not, half a line.
    let partial = folder.path().join("out.partial");
    let options = options(data.clone(), &out);
    fs::create_dir(&partial).unwrap();
    fs::write(partial.join("train-00001.safetensors"), "half").unwrap();
    let stopped =
        std::panic::catch_unwind(|| pack(&options, &|done, _| assert!(done < 7, "stopped here")));
    assert!(stopped.is_err());
    let progress = fs::read_to_string(partial.join("progress.jsonl")).unwrap();
    assert_eq!(progress.lines().count(), 3, "what is packed, and two shards");
    fs::write(partial.join("progress.jsonl"), progress.clone() + "{\"file\":\"tra").unwrap();
    let least = std::sync::atomic::AtomicU64::new(u64::MAX);
    pack(&options, &|done, _| {
        least.fetch_min(done, std::sync::atomic::Ordering::Relaxed);
    })
    .unwrap();
    assert_eq!(least.into_inner(), 3, "the first shard was not packed again");
    let names: BTreeSet<_> =
        fs::read_dir(&whole).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names.len(), 5);
    for name in &names {
        assert!(
            fs::read(whole.join(name)).unwrap() == fs::read(out.join(name)).unwrap(),
            "{name:?}"
        );
    }
    assert!(!partial.exists());

    // Of another input it is not taken up.
    fs::create_dir(&partial).unwrap();
    fs::write(partial.join("progress.jsonl"), "another input\n").unwrap();
    let out = folder.path().join("out");
    fs::remove_dir_all(&out).unwrap();
    let message = pack(&options, &|_, _| {}).unwrap_err().to_string();
    assert!(message.contains("left by a pack of another input"), "{message}");
}
