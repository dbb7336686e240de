//! Where packs are made.

use crate::*;
use std::os::unix::fs::symlink;

/// A folder that is there and empty may be a volume, which nothing can be renamed onto.
#[test]
fn a_pack_into_a_folder_that_exists_is_made_inside_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in");
    for id in 0..7u8 {
        write(&input, &[(&format!("{id}.png"), png(id, 4, 4))]);
    }
    let data = config(DataKind::Folder, &input);
    let beside = folder.path().join("beside");
    pack(&options(data.clone(), &beside), &|_, _| {}).unwrap();
    let names = |folder: &Path| {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };

    let (volume, link) = (folder.path().join("volume"), folder.path().join("link"));
    fs::create_dir(&volume).unwrap();
    symlink(&volume, &link).unwrap();
    let inside = options(data.clone(), &link);
    // Stopped, as a kill stops it; the second try goes on behind the first shard.
    let stopped =
        std::panic::catch_unwind(|| pack(&inside, &|done, _| assert!(done < 4, "stopped here")));
    assert!(stopped.is_err());
    assert_eq!(names(&volume), [".partial"]);
    assert_eq!(names(folder.path()), ["beside", "in", "link", "volume"], "nothing lies beside it");
    // One of its shards has been moved out: the kill came at the end.
    fs::write(volume.join("train-00002.safetensors"), "old").unwrap();
    let least = std::sync::atomic::AtomicU64::new(u64::MAX);
    pack(&inside, &|done, _| {
        least.fetch_min(done, std::sync::atomic::Ordering::Relaxed);
    })
    .unwrap();
    assert_eq!(least.into_inner(), 3, "the first shard was not packed again");
    assert_eq!(names(&volume), names(&beside));
    for name in names(&beside) {
        assert!(fs::read(volume.join(&name)).unwrap() == fs::read(beside.join(&name)).unwrap());
    }

    // What is no place for a data set is said before anything is packed.
    let message =
        |out: &Path| pack(&options(data.clone(), out), &|_, _| {}).unwrap_err().to_string();
    assert!(message(&link).contains("it is not empty"));
    let nowhere = folder.path().join("nowhere");
    symlink(folder.path().join("gone"), &nowhere).unwrap();
    assert!(message(&nowhere).contains("is a link to nowhere"));
    assert!(!folder.path().join("nowhere.partial").exists());
}
