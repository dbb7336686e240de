//! Sound and film are judged as pictures are: by probes on what a network of pictures sees of them.

use std::fs;
use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::probes::trained;
use crate::signals::{write_small_film, write_tone};
use crate::support::{errors, rows, run, tessera, train};

/// What an evaluation tells of features.
const FIGURES: [&str; 7] = [
    "frechet",
    "precision",
    "recall",
    "density",
    "coverage",
    "feature_distance",
    "feature_samples",
];

/// Samples of two classes, and how they are trained on.
struct Kind {
    name: &'static str,
    /// What the head of a probe on them reads.
    features: &'static str,
    /// The other one.
    others: &'static str,
    /// The folder with the test split.
    files: String,
    settings: Vec<String>,
}

/// 24 samples of each split and kind: sound that is low or high, film that is dark or bright.
fn kinds(folder: &Path) -> [Kind; 2] {
    for split in ["train", "test"] {
        for (class, period, least) in [("a", 60, 0), ("b", 8, 150)] {
            let sounds = folder.join(format!("sounds/{split}/{class}"));
            fs::create_dir_all(&sounds).unwrap();
            for number in 0..3u8 {
                let name = format!("{number}.wav");
                write_tone(&sounds.join(name), 1600, period + 2 * u32::from(number));
                let film = folder.join(format!("films/{split}/{class}/{number}"));
                write_small_film(&film, 12, least + 10 * number);
            }
        }
    }
    let files = |of: &str| folder.join(of).join("test").display().to_string();
    let settings = |data: &str, more: &[&str]| {
        let path = format!("data.path={}", folder.join(data).display());
        let common = ["data.kind=folder", "train.global_batch=8", "checkpoint.every=0"];
        let more =
            [&common[..], &["metrics.images_every=0", "train.precision=fp64"], more].concat();
        more.into_iter().map(str::to_owned).chain([path]).collect()
    };
    let sound = ["data.modality=audio", "data.audio.length=400", "data.audio.sample_rate=8000"];
    let sound = settings("sounds", &sound);
    let film = ["data.modality=video", "data.video.frames=3", "data.video.height=8"];
    let film = settings("films", &[&film[..], &["data.video.width=8"]].concat());
    let (name, features, others) = ("sound", "spectrogram", "frames");
    let sound = Kind { name, features, others, files: files("sounds"), settings: sound };
    let (name, features, others) = ("film", "frames", "spectrogram");
    [sound, Kind { name, features, others, files: files("films"), settings: film }]
}

/// What `tessera` prints, run with these words, where it ends with 0.
fn done(words: &[&str]) -> String {
    let (code, stdout, stderr) = run(tessera().args(words));
    assert_eq!(code, Some(0), "{words:?}: {stderr}");
    stdout
}

fn read(path: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// To 1e-9 in float64: ranks add up in another order, and four steps of training make more of it.
fn equal(name: &str, one: &Value, two: &Value) {
    let [a, b] =
        [one, two].map(|row| row[name].as_f64().unwrap_or_else(|| panic!("{name}: {row}")));
    assert!((a - b).abs() < 1e-9 * a.abs().max(1.0), "{name}: {a} {b}");
}

#[test]
fn sound_and_film_are_judged_by_probes_as_pictures_are() {
    let folder = TempDir::new().unwrap();
    for Kind { name, features, others, files, settings } in kinds(folder.path()) {
        let path = |of: &str| folder.path().join(format!("{name}-{of}")).display().to_string();
        let [probe, tokens] = ["probe", "tokens"].map(path);
        let with = |more: &[&str]| {
            [settings.clone(), more.iter().map(|&set| set.to_owned()).collect()].concat()
        };
        let on = format!("probe.features={features}");
        let head = [
            "task=probe",
            "probe.head=conv",
            "probe.channels=4",
            "probe.stages=2",
            &on,
            "train.steps=25",
            "eval.every=25",
            "optimizer.learning_rate=0.02",
        ];
        trained(2, Path::new(&probe), &with(&head));
        let evaluated = &rows(Path::new(&probe), "eval.jsonl")[0];
        assert_eq!((&evaluated["samples"], &evaluated["accuracy"]), (&24.into(), &1.0.into()));

        let from = format!("eval.features.path={probe}");
        let by = ["eval.features.network=probe", &from];
        let dense = [
            "model.backbone.kind=dense",
            "model.backbone.hidden=32",
            "model.backbone.positions=4",
            "model.quantizer.num_codes=8",
            "train.steps=4",
            "eval.every=4",
        ];
        let perceptual = ["loss.perceptual=0.1", "perceptual.network=random"];
        let perceptual = if name == "film" { &perceptual[..] } else { &[] };
        let [one, two] = [1, 2].map(|world_size| {
            let run_dir = path(&format!("of-{world_size}"));
            let all = with(&[&dense[..], &by, perceptual].concat());
            trained(world_size, Path::new(&run_dir), &all);
            rows(Path::new(&run_dir), "eval.jsonl").remove(0)
        });
        FIGURES.iter().for_each(|figure| equal(figure, &one, &two));
        assert!(one["frechet"].as_f64().unwrap() > 0.0 && one["feature_samples"] == 24, "{one}");

        // A model folder is measured by them too.
        let run_dir = path("of-1");
        let model = format!("{run_dir}/model");
        let told = done(&["eval", "--json", "--model", &model, "--set", by[0], "--set", by[1]]);
        let told: Value = serde_json::from_str(&told).unwrap();
        FIGURES.iter().for_each(|figure| equal(figure, &one, &told));

        done(&["encode", "--run", &run_dir, "--out", &tokens]);
        let judge = |samples: &str, out: &str| {
            let words = ["judge", "--run", &run_dir, "--classifier", &probe];
            done(&[&words[..], &["--samples", samples, "--out", out]].concat());
            assert!(fs::metadata(format!("{out}/nearest.png")).unwrap().len() > 100);
            read(&format!("{out}/judge.json"))
        };
        let judged = judge(&tokens, &path("judged"));
        let set = |judged: &Value, wanted: &str| {
            let sets = judged["sets"].as_array().unwrap();
            sets.iter()
                .find(|set| set["name"] == wanted)
                .unwrap_or_else(|| panic!("{judged}"))
                .clone()
        };
        assert_eq!((&judged["num_samples"], &judged["copies"]["exact"]), (&24.into(), &24.into()));
        assert_eq!(set(&judged, &format!("training {name}"))["accuracy"], 1.0);
        match name {
            "film" => {
                // Files of the test split are the held-out samples themselves. Roots of a singular covariance turn
                // rounding of 1e-16 into 1e-8, and squares of features are thousands.
                let files = judge(&files, &path("files"));
                let frechet = set(&files, "samples")["frechet"].as_f64().unwrap();
                assert!(frechet.abs() < 1e-3, "{files}");
            }
            _ => rejected(&path("prior"), &path("kept"), &tokens, &probe),
        }

        let refused = |more: &[&str], words: &str| {
            let all = with(more);
            let all: Vec<&str> = all.iter().map(String::as_str).collect();
            let (code, _, stderr) = run(&mut train(1, &folder.path().join("refused"), &all));
            assert_eq!(code, Some(2), "{stderr}");
            assert!(errors(&stderr)[0].contains(words), "{stderr}");
        };
        let other = format!("probe.features={others}");
        let words = format!("these data are {name}: set it to \"{features}\"");
        refused(&["task=probe", &other], &words);
        let own = format!("eval.features.path={run_dir}");
        let words = format!("task = \"probe\", probe.features = \"{features}\" and probe.head");
        refused(&[&dense[..], &[by[0], &own]].concat(), &words);
        if name == "sound" {
            let words = "set it to 0, and loss.mel to what it should count";
            refused(&[&dense[..], &["loss.perceptual=1"]].concat(), words);
        }
    }
}

/// A prior of a few steps draws samples, and none that the probe is in doubt about.
fn rejected(prior: &str, kept: &str, tokens: &str, probe: &str) {
    let draws = [
        "task=prior",
        "data.kind=tokens",
        &format!("data.path={tokens}"),
        "prior.network.width=16",
        "prior.network.layers=1",
        "prior.network.heads=2",
        "train.global_batch=8",
        "train.steps=2",
        "checkpoint.every=0",
        "metrics.images_every=0",
    ];
    trained(1, Path::new(prior), &draws.map(str::to_owned));
    let words = ["sample", "--run", prior, "--num", "4", "--out", kept, "--without-class"];
    // Of two classes the likelier one has more than a half.
    done(&[&words[..], &["--reject-below", "0.5", "--classifier", probe]].concat());
    assert_eq!(read(&format!("{kept}/samples.json"))["rejection"]["num_drawn"], 4);
}
