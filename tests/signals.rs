//! What goes in beside pictures: sound and film, through the network that takes any signal.

use std::path::Path;

use tempfile::TempDir;

use crate::support::{errors, rows, run, tessera, train};

/// Sound of one channel and 16 bits: a header by hand, and a tone.
fn write_wav(path: &Path, instants: u32, period: u32) {
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + 2 * instants).to_le_bytes());
    bytes.extend(b"WAVEfmt ");
    bytes.extend(16u32.to_le_bytes());
    bytes.extend([1u16, 1].map(u16::to_le_bytes).concat());
    bytes.extend([8000u32, 16_000].map(u32::to_le_bytes).concat());
    bytes.extend([2u16, 16].map(u16::to_le_bytes).concat());
    bytes.extend(b"data");
    bytes.extend((2 * instants).to_le_bytes());
    for at in 0..instants {
        let sample = if at % period < period / 2 { 8000i16 } else { -8000 };
        bytes.extend(sample.to_le_bytes());
    }
    std::fs::write(path, bytes).unwrap();
}

/// A film of so many pictures, 8 by 8: a folder of them.
fn write_film(folder: &Path, frames: u8) {
    std::fs::create_dir_all(folder).unwrap();
    for frame in 0..frames {
        let mut bytes = b"P6 8 8 255\n".to_vec();
        bytes.extend((0..192u8).map(|at| at ^ (16 * frame)));
        std::fs::write(folder.join(format!("{frame:03}.ppm")), bytes).unwrap();
    }
}

/// What is there to look at or to listen to, from the training and from codes.
fn shown_and_decoded(run_dir: &Path, extension: &str) {
    let shown = run_dir.join(format!("reconstructions/step-3.{extension}"));
    assert!(std::fs::metadata(&shown).unwrap().len() > 44, "{}", shown.display());
    let sheet = run_dir.join("reconstructions/step-3.png");
    assert_eq!(sheet.exists(), extension == "apng");
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
        // A header, and 100 instants of two bytes.
        assert_eq!(std::fs::read(&names[0]).unwrap().len(), 44 + 200);
    }
}

#[test]
fn sound_and_film_are_trained_on_by_the_network_that_takes_any_signal() {
    let folder = TempDir::new().unwrap();
    let (sounds, films) = (folder.path().join("sounds"), folder.path().join("films"));
    for split in ["train", "test"] {
        std::fs::create_dir_all(sounds.join(split)).unwrap();
        for period in [10, 20, 40] {
            write_wav(&sounds.join(split).join(format!("{period}.wav")), 400, period);
            write_film(&films.join(split).join(format!("film-{period}")), 6);
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
        shown_and_decoded(&run_dir, if has_pictures { "apng" } else { "wav" });

        let all = [&[&*path, "data.kind=folder"][..], &short, &settings].concat();
        let (code, _, stderr) = run(&mut train(2, &folder.path().join("refused"), &all));
        assert_eq!(code, Some(2), "{stderr}");
        let words = "model.backbone.kind = \"conv2d\" takes pictures";
        assert!(errors(&stderr)[0].contains(words), "{stderr}");
    }
}
