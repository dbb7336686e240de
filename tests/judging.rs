//! `tessera judge`: samples beside held-out pictures, training pictures, and what needs no prior.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::probes::{on, trained, write_halves};
use crate::support::{errors, run, tessera};

/// What `tessera` prints, run with these words, where it ends with 0.
fn done(words: &[&str]) -> String {
    let (code, stdout, stderr) = run(tessera().args(words));
    assert_eq!(code, Some(0), "{words:?}: {stderr}");
    stdout
}

fn set<'a>(judged: &'a Value, name: &str) -> &'a Value {
    let sets = judged["sets"].as_array().unwrap();
    sets.iter().find(|set| set["name"] == name).unwrap_or_else(|| panic!("{name}: {judged}"))
}

#[test]
fn samples_are_judged_beside_what_needs_no_prior() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (halves, model, probe) = (path("halves"), path("model"), path("probe"));
    write_halves(Path::new(&halves));
    let longer =
        [on(Path::new(&halves)), vec!["train.steps=100".to_owned(), "eval.every=0".to_owned()]]
            .concat();
    trained(1, Path::new(&model), &longer);
    let conv = [
        "task=probe",
        "probe.head=conv",
        "probe.channels=4",
        "probe.stages=2",
        "optimizer.learning_rate=0.02",
    ];
    let conv = [on(Path::new(&halves)), conv.map(str::to_owned).to_vec()].concat();
    trained(1, Path::new(&probe), &conv);
    let (tokens, pictures) = (path("tokens"), path("pictures"));
    done(&["encode", "--run", &model, "--out", &tokens]);
    done(&[
        "decode", "--run", &model, "--tokens", &tokens, "--split", "train", "--limit", "32",
        "--out", &pictures,
    ]);

    let judge = |by: &[&str], samples: &str, out: &str| {
        let words =
            ["judge", "--run", &model, "--classifier", &probe, "--samples", samples, "--out", out];
        done(&[by, &words].concat());
        serde_json::from_str::<Value>(&fs::read_to_string(format!("{out}/judge.json")).unwrap())
            .unwrap()
    };
    let mut one = judge(&[], &tokens, &path("one"));
    let mut three = judge(&["launch", "--nproc", "3", "--"], &tokens, &path("three"));
    for judged in [&mut one, &mut three] {
        judged["path"] = Value::Null;
    }
    assert_eq!(one, three, "ranks change no digit");
    assert!(
        fs::read(path("one/nearest.png")).unwrap() == fs::read(path("three/nearest.png")).unwrap()
    );
    // There are 32 held-out pictures, and the samples are codes of training pictures.
    assert_eq!(one["num_samples"], 32);
    let copies = &one["copies"];
    assert_eq!([&copies["num_training"], &copies["exact"]], [64, 32]);
    assert_eq!(copies["codes_apart"], 0.0);
    assert_eq!(set(&one, "training pictures")["accuracy"], 1.0, "as the probe was trained");
    let frechet = |name: &str| set(&one, name)["frechet"].as_f64().unwrap();
    assert!(frechet("training pictures") < frechet("random codes"));
    assert!(frechet("training pictures") < frechet("held-out codes, shuffled"));

    // The same as files of pictures.
    let files = judge(&[], &pictures, &path("files"));
    for figure in ["frechet", "precision", "recall", "density", "coverage"] {
        assert_eq!(set(&files, "samples")[figure], set(&one, "samples")[figure], "{figure}");
    }

    let refused = |words: &[&str]| {
        let (code, _, stderr) =
            run(tessera().args(["judge", "--run", &model, "--samples"]).args(words));
        assert_eq!(code, Some(2), "{stderr}");
        errors(&stderr).remove(0).to_owned()
    };
    let told = refused(&[&tokens, "--classifier", &model]);
    assert!(told.contains("should be a run with task = \"probe\""), "{told}");
    let told = refused(&[&tokens, "--num", "1"]);
    assert!(told.contains("--num should be 2 or more, found 1"), "{told}");
    let told = refused(&[&tokens, "--num", "4"]);
    assert!(told.contains("draw more samples"), "{told}");
    let told = refused(&[&path("nowhere")]);
    assert!(told.contains("nowhere"), "{told}");
    let told = refused(&[&tokens, "--features", "vgg"]);
    assert!(told.contains("features.path"), "{told}");

    // A prior of a few steps hardly knows the classes; what a classifier rejects is drawn again.
    let prior = path("prior");
    let settings = [
        "task=prior",
        "data.kind=tokens",
        &format!("data.path={tokens}"),
        "prior.network.width=32",
        "prior.network.layers=1",
        "prior.network.heads=2",
        "train.global_batch=16",
        "train.steps=5",
        "checkpoint.every=0",
        "metrics.images_every=5",
    ];
    trained(1, Path::new(&prior), &settings.map(str::to_owned));
    assert!(
        Path::new(&format!("{prior}/samples/step-5.png")).is_file(),
        "as the training saw them"
    );
    let sample = |by: &[&str], out: &str, more: &[&str]| {
        let words = ["sample", "--run", &prior, "--num", "24", "--out", out];
        done(&[by, &words, more].concat());
        let about = fs::read_to_string(format!("{out}/samples.json")).unwrap();
        (
            fs::read(format!("{out}/tokens.safetensors")).unwrap(),
            serde_json::from_str::<Value>(&about).unwrap(),
        )
    };
    let reject = ["--reject-below", "0.9", "--classifier", &probe];
    let (all, _) = sample(&[], &path("all"), &[]);
    let (kept, about) = sample(&[], &path("kept"), &reject);
    let (by_two, _) = sample(&["launch", "--nproc", "2", "--"], &path("kept-by-two"), &reject);
    assert!(kept == by_two, "ranks change no byte");
    assert!(kept != all);
    let num_drawn = about["rejection"]["num_drawn"].as_u64().unwrap();
    assert!(num_drawn > 24, "{about}");
    let accuracy = |samples: &str, out: &str| {
        set(&judge(&[], samples, out), "samples")["accuracy"].as_f64().unwrap()
    };
    assert!(accuracy(&path("all"), &path("judged-all")) < 1.0);
    // 0.9 of two classes is the larger one.
    assert_eq!(accuracy(&path("kept"), &path("judged-kept")), 1.0);

    let refused = |more: &[&str]| {
        let words = ["sample", "--run", &prior, "--out", "x"];
        let (code, _, stderr) = run(tessera().args(words).args(more));
        assert_eq!(code, Some(2), "{stderr}");
        stderr
    };
    let told = refused(&["--reject-below", "1.5", "--classifier", &probe]);
    assert!(told.contains("--reject-below should be above 0 and below 1, found 1.5"), "{told}");
    let told = refused(&["--reject-below", "0.5"]);
    assert!(told.contains("--classifier"), "{told}");
}
