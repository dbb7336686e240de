//! What goes in beside pictures: sound and film, through the network that takes any signal.

use std::path::Path;

use tempfile::TempDir;

use crate::media::{write_film, write_wav};
use crate::support::{errors, python, rows, run, tessera, train};

/// A tone of square waves.
pub(crate) fn write_tone(path: &Path, instants: u32, period: u32) {
    write_wav(path, instants, |at| if at % period < period / 2 { 8000 } else { -8000 });
}

/// A film of so many pictures, 8 by 8, each pixel at least this bright.
pub(crate) fn write_small_film(folder: &Path, frames: u32, least: u8) {
    write_film(folder, frames, 8, |frame, at| ((at as u8) ^ (16 * frame) as u8).max(least));
}

/// What a training leaves to look at or to listen to.
fn is_shown(run_dir: &Path, extension: &str) {
    let shown = run_dir.join(format!("reconstructions/step-3.{extension}"));
    assert!(std::fs::metadata(&shown).unwrap().len() > 44, "{}", shown.display());
    assert!(run_dir.join("reconstructions/step-3.png").is_file());
}

/// To codes and back.
fn is_decoded(run_dir: &Path, extension: &str, instants: usize) {
    let (set, out) = (run_dir.join("tokens"), run_dir.join("decoded"));
    let paths = [run_dir, &set, &out].map(|path| path.to_str().unwrap());
    let [run_dir, set, decoded] = paths;
    for words in [
        vec!["encode", "--run", run_dir, "--out", set],
        vec!["decode", "--run", run_dir, "--tokens", set, "--out", decoded, "--limit", "2"],
    ] {
        let (code, _, stderr) = run(tessera().args(words));
        assert_eq!(code, Some(0), "{stderr}");
    }
    let names = ["00000000", "00000001"].map(|stem| out.join(format!("{stem}.{extension}")));
    assert!(names.iter().all(|name| name.is_file()));
    if extension == "wav" {
        // A header, and instants of two bytes.
        assert_eq!(std::fs::read(&names[0]).unwrap().len(), 44 + 2 * instants);
    }
}

#[test]
fn sound_and_film_are_trained_on_by_the_network_that_takes_any_signal() {
    let folder = TempDir::new().unwrap();
    let (sounds, films) = (folder.path().join("sounds"), folder.path().join("films"));
    for split in ["train", "test"] {
        std::fs::create_dir_all(sounds.join(split)).unwrap();
        for period in [10, 20, 40] {
            write_tone(&sounds.join(split).join(format!("{period}.wav")), 400, period);
            write_small_film(&films.join(split).join(format!("film-{period}")), 6, 0);
        }
    }
    let short = ["train.steps=6", "eval.every=6", "checkpoint.every=0", "metrics.images_every=3"];
    for (data, settings, has_pictures) in [
        (
            &sounds,
            vec!["data.modality=audio", "data.audio.length=100", "data.audio.sample_rate=8000"],
            false,
        ),
        (
            &films,
            vec![
                "data.modality=video",
                "data.video.frames=3",
                "data.video.height=8",
                "data.video.width=8",
            ],
            true,
        ),
    ] {
        let path = format!("data.path={}", data.display());
        let common =
            [&*path, "data.kind=folder", "model.backbone.kind=dense", "train.global_batch=8"];
        let all = [&common[..], &short, &settings].concat();
        let run_dir = folder.path().join(if has_pictures { "film" } else { "sound" });
        let mut command = train(2, &run_dir, &all);
        command.args(["--set", "model.backbone.hidden=32", "--set", "model.backbone.positions=4"]);
        let (code, _, stderr) = run(&mut command);
        assert_eq!(code, Some(0), "{stderr}");
        let evaluated = &rows(&run_dir, "eval.jsonl")[0];
        assert!(evaluated["mse"].as_f64().unwrap() > 0.0, "{evaluated}");
        assert_eq!(evaluated.get("ssim").is_some(), has_pictures, "{evaluated}");
        assert_eq!(evaluated.get("psnr").is_some(), has_pictures, "{evaluated}");
        let extension = if has_pictures { "apng" } else { "wav" };
        is_shown(&run_dir, extension);
        is_decoded(&run_dir, extension, 100);

        let all = [&[&*path, "data.kind=folder"][..], &short, &settings].concat();
        let (code, _, stderr) = run(&mut train(2, &folder.path().join("refused"), &all));
        assert_eq!(code, Some(2), "{stderr}");
        let words = "model.backbone.kind = \"conv2d\" takes pictures";
        assert!(errors(&stderr)[0].contains(words), "{stderr}");
    }
}

/// Networks made for sound and for film, with all that is trained beside them.
#[test]
fn networks_for_sound_and_for_film_are_trained_and_shown() {
    let folder = TempDir::new().unwrap();
    let (sounds, films) = (folder.path().join("sounds"), folder.path().join("films"));
    for split in ["train", "test"] {
        std::fs::create_dir_all(sounds.join(split)).unwrap();
        for period in [10, 20, 40] {
            write_tone(&sounds.join(split).join(format!("{period}.wav")), 1920, period);
            write_small_film(&films.join(split).join(format!("film-{period}")), 10, 0);
        }
    }
    let common = [
        "data.kind=folder",
        "train.global_batch=6",
        "train.steps=6",
        "eval.every=6",
        "checkpoint.every=0",
        "metrics.images_every=3",
    ];
    let sound = [
        "data.modality=audio",
        "data.audio.length=640",
        "data.audio.sample_rate=8000",
        "model.backbone.kind=conv1d",
        "model.backbone.channels=4",
        "model.quantizer.kind=residual",
        "model.quantizer.num_quantizers=2",
        "model.quantizer.quantizer.kind=vector",
        "model.quantizer.quantizer.num_codes=8",
        "model.quantizer.quantizer.code_dim=6",
        "loss.squared=0",
        "loss.absolute=0.1",
        "loss.mel=2",
        "loss.adversarial=4",
        "loss.feature_matching=4",
        "loss.balanced=true",
        "critic.kind=several",
        "adversarial.start=2",
    ];
    let film = [
        "data.modality=video",
        "data.video.frames=5",
        "data.video.height=8",
        "data.video.width=8",
        "model.backbone.kind=conv3d",
        "model.backbone.channels=4",
        "model.backbone.patch=2",
        "model.backbone.spatial=4",
        "model.backbone.temporal=2",
        "model.quantizer.num_codes=8",
        "model.quantizer.code_dim=6",
        "loss.frame_difference=1",
    ];
    for (data, settings, extension) in [(&sounds, &sound[..], "wav"), (&films, &film[..], "apng")] {
        let path = format!("data.path={}", data.display());
        let run_dir = folder.path().join(extension);
        let all = [&[&*path], &common[..], settings].concat();
        let (code, _, stderr) = run(&mut train(2, &run_dir, &all));
        assert_eq!(code, Some(0), "{stderr}");
        is_shown(&run_dir, extension);
        let evaluated = &rows(&run_dir, "eval.jsonl")[0];
        let number = |name: &str| evaluated[name].as_f64().unwrap_or_else(|| panic!("{evaluated}"));
        if extension == "wav" {
            assert!(number("mel_distance") > 0.0 && number("si_sdr") < 20.0, "{evaluated}");
            let read = python("read_tensorboard.py", &run_dir);
            let heard = read["audio"]["tensorboard"]["reconstructions_sound"].as_array().unwrap();
            for (sound, step) in heard.iter().zip([3, 6]) {
                let file = run_dir.join(format!("reconstructions/step-{step}.wav"));
                let bytes = file.metadata().unwrap().len();
                assert_eq!((&sound["step"], &sound["bytes"]), (&step.into(), &bytes.into()));
                assert_eq!(sound["type"], "audio/wav");
            }
            assert_eq!(heard.len(), 2);
        } else {
            assert!(number("difference_psnr") > 0.0 && number("flicker") > 0.0, "{evaluated}");
            assert_eq!(evaluated["psnr_by_frame"].as_array().unwrap().len(), 5);
        }
    }
    let path = format!("data.path={}", sounds.display());
    let all = [&[&*path], &common[..], &sound, &["data.audio.length=600"]].concat();
    let (code, _, stderr) = run(&mut train(1, &folder.path().join("refused"), &all));
    assert_eq!(code, Some(2), "{stderr}");
    assert!(errors(&stderr)[0].contains("640"), "{stderr}");
}

/// Sound is trained on spectra, by one rank and by two alike, and measured by what people compare codecs by.
#[test]
fn sound_is_trained_on_spectra_and_measured_by_them() {
    let folder = TempDir::new().unwrap();
    let sounds = folder.path().join("sounds");
    for split in ["train", "test"] {
        std::fs::create_dir_all(sounds.join(split)).unwrap();
        for period in [10, 20, 40] {
            write_tone(&sounds.join(split).join(format!("{period}.wav")), 1200, period);
        }
    }
    let path = format!("data.path={}", sounds.display());
    let sound = [
        &*path,
        "data.kind=folder",
        "data.modality=audio",
        "data.audio.length=300",
        "data.audio.sample_rate=8000",
        "model.backbone.kind=dense",
        "model.backbone.hidden=32",
        "model.backbone.positions=4",
        "train.global_batch=8",
        "train.steps=4",
        "eval.every=4",
        "checkpoint.every=0",
        "metrics.every=1",
        "metrics.images_every=0",
        "loss.absolute=1",
        "loss.mel=1",
        "loss.stft=0.5",
        "spectral.stft_sizes=[256, 64]",
        "spectral.stft_windows=[200, 64]",
        "spectral.stft_hops=[50, 16]",
    ];
    let [one, two] = [1, 2].map(|world_size| {
        let run_dir = folder.path().join(format!("of {world_size}"));
        let (code, _, stderr) = run(&mut train(world_size, &run_dir, &sound));
        assert_eq!(code, Some(0), "{stderr}");
        [rows(&run_dir, "metrics.jsonl"), rows(&run_dir, "eval.jsonl")]
    });
    // Sums in float32 differ by their order, and four steps of training make more of it.
    let near = |name: &str, (a, b): (&serde_json::Value, &serde_json::Value)| {
        let [a, b] =
            [a, b].map(|row| row[name].as_f64().unwrap_or_else(|| panic!("{name}: {row}")));
        assert!((a - b).abs() < 1e-3 * a.abs(), "{name}: {a} {b}");
    };
    for name in ["recon_absolute", "mel_loss", "stft_loss", "loss"] {
        one[0].iter().zip(&two[0]).for_each(|rows| near(name, rows));
    }
    for name in ["si_sdr", "si_sdr_median", "snr", "mel_distance", "mel_windows"] {
        near(name, (&one[1][0], &two[1][0]));
    }
    assert_eq!(one[1][0]["mel_windows"], 4);
    assert_eq!(one[1][0]["silent_samples"], 0);

    for (set, words) in [
        ("spectral.windows=[512]", "spectral.windows has 1 numbers and spectral.mels has 0"),
        ("spectral.stft_sizes=[256, 512]", "spectral.stft_sizes has 512, longer than a sample of"),
        ("data.audio.length=30", "set spectral.windows to shorter ones"),
    ] {
        let all = [&sound[..], &[set]].concat();
        let (code, _, stderr) = run(&mut train(1, &folder.path().join("refused"), &all));
        assert_eq!(code, Some(2), "{stderr}");
        assert!(errors(&stderr)[0].contains(words), "{stderr}");
    }
    for loss in ["loss.mel", "loss.stft"] {
        let set = format!("{loss}=1");
        let (code, _, stderr) = run(&mut train(1, &folder.path().join("refused"), &[&*set]));
        assert_eq!(code, Some(2), "{stderr}");
        let words = format!("{loss} is for sound, these data are pictures: set it to 0");
        assert!(errors(&stderr)[0].contains(&words), "{stderr}");
    }
}
