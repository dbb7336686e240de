//! Whoever writes which shard, and however often it is stopped: the set is the same.

use super::*;

#[test]
fn the_set_is_the_same_whichever_rank_writes_which_shard() {
    let (_folder, alone) = written();
    let expected = files(&alone);
    let names: Vec<&str> = expected.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "histograms-test.safetensors",
            "histograms-train.safetensors",
            "manifest.json",
            "test-00000.safetensors",
            "test-00001.safetensors",
            "train-00000.safetensors",
            "train-00001.safetensors",
            "train-00002.safetensors",
        ]
    );
    let plan = plan();
    let shards = plan.shards();
    let mut rotated: Vec<usize> = (0..shards.len()).collect();
    rotated.rotate_left(2);
    for world_size in 1..=6 {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("set");
        let first = TokenSetWriter::begin(&target, &plan).unwrap();
        std::thread::scope(|scope| {
            for rank in 0..world_size {
                let (target, plan, shards, order) = (&target, &plan, &shards, &rotated);
                scope.spawn(move || {
                    let writer = TokenSetWriter::join(target, plan).unwrap();
                    for &number in order.iter().skip(rank).step_by(world_size) {
                        let shard = &shards[number];
                        writer.write(shard, &content(plan, shard)).unwrap();
                    }
                });
            }
        });
        first.finish().unwrap();
        assert_eq!(files(&target), expected, "{world_size} ranks");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
    }
}

#[test]
fn a_set_that_was_stopped_goes_on_from_its_whole_shards() {
    let (_folder, alone) = written();
    let folder = tempfile::tempdir().unwrap();
    let (target, partial) = (folder.path().join("set"), folder.path().join("set.partial"));
    let plan = plan();
    let shards = plan.shards();
    let writer = TokenSetWriter::begin(&target, &plan).unwrap();
    for shard in &shards[..3] {
        writer.write(shard, &content(&plan, shard)).unwrap();
    }
    drop(writer);
    // What a killed process leaves: a shard without its note, one cut short, and a piece of one.
    edit(&partial.join(&shards[1].file), |bytes| bytes.truncate(100));
    fs::remove_file(partial.join(format!("{}.json", shards[2].file))).unwrap();
    fs::write(partial.join("train-00000.safetensors.123.tmp"), "piece").unwrap();
    let writer = TokenSetWriter::begin(&target, &plan).unwrap();
    let whole: Vec<bool> = shards.iter().map(|shard| writer.is_whole(shard).unwrap()).collect();
    assert_eq!(whole, [true, false, false, false, false]);
    for (shard, _) in shards.iter().zip(whole).filter(|(_, whole)| !whole) {
        writer.write(shard, &content(&plan, shard)).unwrap();
    }
    let manifest = writer.finish().unwrap();
    assert_eq!(manifest, TokenManifest::read(&alone).unwrap());
    assert_eq!(files(&target), files(&alone));
}

/// A folder that exists and is empty may be a volume: it is written inside of it.
#[test]
fn a_folder_that_is_empty_is_filled() {
    let (_folder, alone) = written();
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("lost+found")).unwrap();
    write(folder.path(), &plan());
    fs::remove_dir(folder.path().join("lost+found")).unwrap();
    assert_eq!(files(folder.path()), files(&alone));
}

#[test]
fn what_would_mix_two_sets_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("set");
    let refused = |outcome: Result<TokenSetWriter, DataError>| {
        told(&outcome.err().unwrap(), DataErrorKind::BadInput)
    };
    assert!(refused(TokenSetWriter::join(&target, &plan())).contains("rank 0 has begun none"));
    let writer = TokenSetWriter::begin(&target, &plan()).unwrap();
    let twice = refused(TokenSetWriter::begin(&target, &plan()));
    assert!(twice.contains("another process is writing it"), "{twice}");
    let shards = plan().shards();
    writer.write(&shards[0], &content(&plan(), &shards[0])).unwrap();
    let missing = told(&writer.finish().unwrap_err(), DataErrorKind::BadInput);
    assert!(missing.contains("train-00001.safetensors was not written"), "{missing}");

    let others = [
        plan_of(levels(), &["plain", "flip"], 5),
        plan_of(levels(), &["plain", "crop"], 4),
        plan_of(levels()[..2].to_vec(), &["plain", "flip"], 4),
    ];
    for other in &others {
        let left = refused(TokenSetWriter::begin(&target, other));
        assert!(left.contains("it was left by another data set"), "{left}");
        let joined = refused(TokenSetWriter::join(&target, other));
        assert!(joined.contains("rank 0 has begun none"), "{joined}");
    }
    TokenSetWriter::begin(&target, &plan()).unwrap().discard();
    write(&target, &others[0]);
    let full = refused(TokenSetWriter::begin(&target, &plan()));
    assert!(full.contains("it is not empty"), "{full}");
}

#[test]
fn codes_that_do_not_fit_the_plan_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan();
    let writer = TokenSetWriter::begin(&folder.path().join("set"), &plan).unwrap();
    let shard = &plan.shards()[1];
    let refused = |change: &dyn Fn(&mut TokenShard)| {
        let mut content = content(&plan, shard);
        change(&mut content);
        told(&writer.write(shard, &content).unwrap_err(), DataErrorKind::BadInput)
    };
    let message = refused(&|content| content.codes[1][3] = 257);
    assert!(
        message.contains("train-00001.safetensors has code 257 at level 1, which has 257 codes")
    );
    let message = refused(&|content| content.codes[0].truncate(40));
    let expected =
        "has 40 codes at level 0, expected those of 4 samples, 2 variants and a grid of [2, 3]";
    assert!(message.contains(expected), "{message}");
    let message = refused(&|content| content.codes.truncate(2));
    assert!(message.contains("has codes of 2 levels, expected 3"), "{message}");
    let message = refused(&|content| content.labels[2] = Some(3));
    assert!(message.contains("has label 3, expected one of 3 classes"), "{message}");
    let message = refused(&|content| content.ids[1] = content.ids[0]);
    assert!(message.contains("has samples twice"), "{message}");
    let message = refused(&|content| content.ids[3] = 8);
    assert!(message.contains("has sample 8, which is none of 4..8"), "{message}");
    assert!(!writer.is_whole(shard).unwrap());
}

#[test]
fn what_cannot_be_encoded_is_told_before_anything_is() {
    let refused = |levels: &[(u32, &[u32])], variants: &[&str], shape: SampleShape| {
        let levels = levels
            .iter()
            .map(|(num_codes, axes)| TokenLevel { num_codes: *num_codes, axes: axes.to_vec() });
        let tokenizer = Tokenizer { hash: "a".to_owned(), levels: levels.collect() };
        let splits: [(&str, Arc<dyn Source>); 1] = [("train", Arc::new(Shaped(shape)))];
        let data = DataConfig::default();
        let plan = TokenPlan::new(&tokenizer, &words(variants), &data, &splits, 4);
        told(&plan.unwrap_err(), DataErrorKind::BadInput)
    };
    let picture = SampleShape::image(1, 4, 4);
    let message = refused(&[(0, &[2, 2])], &["plain"], picture);
    assert!(message.contains("has 0 codes at level 0"), "{message}");
    let message = refused(&[(4, &[2, 0])], &["plain"], picture);
    assert!(message.contains("has a grid of [2, 0] at level 0"), "{message}");
    let message = refused(&[(4, &[1 << 16, 1 << 16])], &["plain"], picture);
    assert!(message.contains("the limit is"), "{message}");
    let message = refused(&[(4, &[2])], &["plain", "flip", "flip"], picture);
    assert!(message.contains("has the variant \"flip\" twice"), "{message}");
    assert!(refused(&[], &["plain"], picture).contains("has no level of codes"));
    assert!(refused(&[(4, &[2])], &[], picture).contains("has no variant"));
    let message = refused(&[(4, &[2])], &["plain"], SampleShape::tokens(8));
    assert!(message.contains("tokens were encoded, which have codes already"), "{message}");
}

/// Two samples of any shape.
struct Shaped(SampleShape);

impl Source for Shaped {
    fn num_samples(&self) -> u64 {
        2
    }
    fn shape(&self) -> SampleShape {
        self.0
    }
    fn read(&self, _id: u64, _draw: Draw, _out: &mut [u8]) -> Result<(), DataError> {
        Ok(())
    }
    fn fingerprint(&self) -> String {
        String::new()
    }
}

/// Samples that cannot be read are left out, those of a whole shard as well; the numbers of the
/// others stay.
#[test]
fn samples_that_were_left_out_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (target, plan) = (folder.path().join("set"), plan_of(levels(), &["plain"], 4));
    let writer = TokenSetWriter::begin(&target, &plan).unwrap();
    for (number, shard) in plan.shards().iter().enumerate() {
        let kept = match number {
            0 => 1..4,
            1 => 4..4,
            _ => shard.samples.clone(),
        };
        let kept_shard = PlannedShard { samples: kept.clone(), ..shard.clone() };
        let mut content = content(&plan, &kept_shard);
        let left_out = shard.samples.clone().filter(|id| !kept.contains(id));
        content.skipped = left_out.map(|id| format!("picture-{id}")).collect();
        writer.write(shard, &content).unwrap();
        assert!(writer.is_whole(shard).unwrap());
    }
    let manifest = writer.finish().unwrap();
    let train = &manifest.splits["train"];
    assert_eq!((train.num_samples, train.shards.len()), (6, 2));
    assert_eq!(train.skipped[..2], ["picture-0", "picture-4"]);
    let source = open(&target, "train");
    let names: Vec<String> = (0..6).map(|id| source.name(id)).collect();
    assert_eq!(names, ["1", "2", "3", "8", "9", "10"]);
    assert_eq!(read(&*source, 3, Draw::NONE).unwrap(), codes(&levels(), 8, 0));
    assert_eq!(source.notes(), ["5 samples could not be read when they were encoded"]);
}
