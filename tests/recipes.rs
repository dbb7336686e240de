//! The recipes, in processes, on drawn pictures, tones and patterns that move, and a few steps: stopped and resumed like never stopped, bit for bit.
//! Here the one with a critic, and all of them in `./launch/test.sh --full`.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;

use crate::media::{write_film, write_wav};
use crate::support::{root, run, tensors, tessera, train_file};

const STEPS: u64 = 8;
/// Where a resumed run was stopped: the critic counts already, its weight has not risen in full.
const STOP: u64 = 5;

/// Samples like those of a recipe, in a folder where they are files.
fn samples_of(recipe: &str) -> (TempDir, Vec<String>) {
    let folder = TempDir::new().unwrap();
    let splits = ["train", "test"].map(|split| folder.path().join(split));
    let path = format!("data.path={}", folder.path().display());
    let settings = if recipe.starts_with("speech") {
        for split in &splits {
            std::fs::create_dir_all(split).unwrap();
            for period in [10, 16, 25] {
                let tone = |at| if at % period < period / 2 { 8000 } else { -8000 };
                write_wav(&split.join(format!("{period}.wav")), 32_000, tone);
            }
        }
        let sizes = ["data.audio.length=16000", "data.audio.sample_rate=8000"];
        [&[&*path, "data.kind=folder", "data.modality=audio"], &sizes[..]].concat()
    } else if recipe.starts_with("film") {
        for (split, of) in splits.iter().zip([5, 7]) {
            write_film(&split.join("film"), 68, 64, |frame, at| (at * of + 3 * frame) as u8);
        }
        let sizes = ["data.video.frames=17", "data.video.height=64", "data.video.width=64"];
        [&[&*path, "data.kind=folder", "data.modality=video"], &sizes[..]].concat()
    } else {
        let all =
            ["data.kind=synthetic", "data.synthetic.num_train=64", "data.synthetic.num_test=12"];
        let color =
            ["data.synthetic.channels=3", "data.synthetic.height=64", "data.synthetic.width=64"];
        let size: &[&str] = if recipe.starts_with("fashion") { &[] } else { &color };
        [&all, size].concat()
    };
    let settings = settings.into_iter().map(str::to_owned).collect();
    (folder, settings)
}

fn train_to(code: i32, (recipe, samples): (&str, &[String]), run_dir: &Path, more: &[&str]) {
    let steps = format!("train.steps={STEPS}");
    let short = [
        "model.init_from=\"\"",
        "train.global_batch=6",
        "train.ema_decay=0.9",
        "checkpoint.every=0",
        "eval.every=0",
        "metrics.images_every=0",
        "schedule.warmup_steps=2",
        "adversarial.critic_start=2",
        "adversarial.start=4",
        "adversarial.warmup_steps=3",
        steps.as_str(),
    ];
    let samples: Vec<&str> = samples.iter().map(String::as_str).collect();
    let file = root().join(format!("configs/{recipe}.toml"));
    let settings = [&samples[..], &short, more].concat();
    let (found, _, stderr) = run(&mut train_file(&file, 2, run_dir, &settings));
    assert_eq!(found, Some(code), "{recipe}: {stderr}");
}

/// The folder of a run that was not stopped.
fn resumes_bit_for_bit(recipe: &str) -> TempDir {
    let [whole, resumed] = [(); 2].map(|()| TempDir::new().unwrap());
    let (_files, samples) = samples_of(recipe);
    let of = (recipe, samples.as_slice());
    train_to(0, of, whole.path(), &[]);
    train_to(75, of, resumed.path(), &[&format!("train.stop_at={STOP}")]);
    train_to(0, of, resumed.path(), &[]);
    let [one, other] = [&whole, &resumed].map(|folder| tensors(folder.path(), STEPS));
    assert!(one.keys().eq(other.keys()), "{recipe}");
    assert!(one.keys().any(|name| name.starts_with("average.decoder.")), "{recipe}");
    for (tensor, value) in &one {
        assert!(*value == other[tensor], "{recipe}: {tensor} differs after a resume");
    }
    whole
}

#[test]
fn a_recipe_with_a_critic_is_resumed_bit_for_bit() {
    let folder = resumes_bit_for_bit("fashion_mnist_gan");
    let eval = |set: &str| {
        let mut command = tessera();
        command.args(["eval", "--json", "--set", set, "--run"]).arg(folder.path());
        run(&mut command)
    };
    // An evaluation may have other features than the run, and no other model.
    let (code, stdout, stderr) = eval("eval.features.num_samples=11");
    assert_eq!(code, Some(0), "{stderr}");
    let figures: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&figures["feature_samples"], &figures["features"]), (&11.into(), &"random".into()));
    assert!(figures["frechet"].as_f64().is_some_and(|distance| distance > 0.0), "{figures}");
    assert!(figures["ms_ssim_2"].is_number() && figures["mse_by_channel"].is_null(), "{figures}");
    let (code, _, stderr) = eval("model.backbone.channels=4");
    assert_eq!(code, Some(2), "{stderr}");
    assert!(stderr.contains("--set of an evaluation is for eval.batch and eval.features alone"));
}

mod full {
    use super::*;

    #[test]
    fn all_recipes_are_resumed_bit_for_bit() {
        let pictures = ["photos_64", "photos_hierarchy", "titok_64", "fashion_mnist_gan"];
        for recipe in pictures.into_iter().chain(["speech_8k", "speech_8k_gan", "film_64"]) {
            drop(resumes_bit_for_bit(recipe));
        }
    }
}
