//! The commands of the how-to pages: those of blocks marked `sh` are run word for word, in a folder that has what
//! their reader would have; every other block that shows a command is in a list, with what runs it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::{outside_cargo, python, root, rows, run, steps_logged, tessera};

/// A folder with the configurations, the programs, and a reader's own files.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(TempDir::new().unwrap());
        let program = tessera();
        let programs = Path::new(program.get_program()).parent().unwrap();
        fs::create_dir(place.path("target")).unwrap();
        symlink(programs, place.path("target/release")).unwrap();
        symlink(root().join("configs"), place.path("configs")).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn run(&self, program: &str, words: &str) {
        let mut command = Command::new(program);
        let (code, stdout, stderr) =
            run(command.args(words.split_whitespace()).current_dir(self.0.path()));
        assert_eq!(code, Some(0), "{program} {words}: {stdout}{stderr}");
    }

    /// Pictures 000.png, 001.png, ... of one size.
    fn pictures(&self, folder: &str, num: u32, (width, height): (u32, u32)) {
        fs::create_dir_all(self.path(folder)).unwrap();
        for id in 0..num {
            let color = |x, y| image::Rgb([x as u8, y as u8, (id * 20) as u8]);
            let picture = image::RgbImage::from_fn(width, height, color);
            picture.save(self.path(folder).join(format!("{id:03}.png"))).unwrap();
        }
    }

    /// Archives of the pictures of a folder.
    fn archives(&self, folder: &str, of: &str) {
        fs::create_dir_all(self.path(folder)).unwrap();
        let file = fs::File::create(self.path(folder).join("shard-000.tar")).unwrap();
        let mut archive = tar::Builder::new(file);
        archive.append_dir_all(".", self.path(of)).unwrap();
        archive.finish().unwrap();
    }

    /// A sound or a film of so many seconds, as FFmpeg's test sources make it.
    fn made_by_ffmpeg(&self, source: &str, seconds: u32, file: &str) {
        fs::create_dir_all(self.path(file).parent().unwrap()).unwrap();
        self.run("ffmpeg", &format!("-v error -f lavfi -i {source} -t {seconds} {file}"));
    }

    /// A packed data set where `configs/fashion_mnist.toml` looks for it.
    fn small_fashion_mnist(&self) {
        for (split, num) in [("train", 32), ("test", 8)] {
            for class in ["bag", "coat"] {
                self.pictures(&format!("pictures/{split}/{class}"), num, (28, 28));
            }
        }
        let size = "--set image.height=28 --set image.width=28 --set image.channels=1";
        let out = "--input pictures --out data/fashion_mnist";
        let program = tessera();
        let program = program.get_program().to_str().unwrap();
        self.run(program, &format!("data pack --format folder {out} {size}"));
    }

    /// Follows a page in this folder; what it prints.
    fn follow(&self, page: &str, variables: &[(&str, &str)]) -> String {
        let mut command = Command::new(root().join("launch/follow.sh"));
        command.arg(root().join("docs").join(page)).arg(self.0.path());
        outside_cargo(&mut command).envs(variables.iter().copied());
        let (code, stdout, stderr) = run(&mut command);
        assert_eq!(code, Some(0), "{page}: {stdout}{stderr}");
        stdout
    }
}

/// So short that what a page shows is shown, and no more.
const SHORT: [(&str, &str); 3] = [
    ("TESSERA__TRAIN__STEPS", "4"),
    ("TESSERA__METRICS__EVERY", "2"),
    ("TESSERA__CHECKPOINT__EVERY", "4"),
];

#[test]
fn the_commands_of_use_work() {
    let place = Place::new();
    place.small_fashion_mnist();
    place.follow("use.md", &[&SHORT[..], &[("TESSERA__SCHEDULE__WARMUP_STEPS", "0")]].concat());
    assert_eq!(fs::read_dir(place.path("decoded")).unwrap().count(), 16, "all of the test split");
    let config = |folder: &str| fs::read(place.path(folder).join("config.json")).unwrap();
    assert_eq!(config("models/fashion_mnist"), config("runs/fashion_mnist/model"));
    let pixels = |path: &str| image::open(place.path(path)).unwrap().into_luma8();
    assert_eq!(fs::read_dir(place.path("clothes")).unwrap().count(), 16);
    assert_eq!(pixels("boot.png"), pixels("clothes/00000000.png"), "alone or among others");
    assert_eq!(fs::read_dir(place.path("rebuilt")).unwrap().count(), 16);
    let report = fs::read_to_string(place.path("report.html")).unwrap();
    assert!(report.contains("Atlas") && !report.contains("is left out"), "of what the atlas has");
    let projector = &python("read_tensorboard.py", &place.path("runs/fashion_mnist"))["projector"];
    let codebook = &projector["codebook-0"];
    assert_eq!((&codebook["floats"], &codebook["codes"]), (&(512 * 64).into(), &512.into()));
    assert!(codebook["picture"].as_u64().unwrap() > 1000, "{projector}");
    assert!(place.path("features/train.safetensors").is_file());
    assert!(place.path("codes/test.labels.npy").is_file());
    for file in ["onnx/encoder.onnx", "torchscript/decoder.ts", "onnx/README.md"] {
        assert!(place.path("exports").join(file).is_file(), "{file}");
    }
    let page = fs::read_to_string(place.path("rate/rate_distortion.md")).unwrap();
    assert!(page.contains("JPEG"), "{page}");
}

#[test]
fn the_five_lines_of_the_readme_work() {
    let place = Place::new();
    place.small_fashion_mnist();
    let variables = [("TESSERA__SCHEDULE__WARMUP_STEPS", "0"), ("SECTIONS", "^## Five")];
    place.follow("../README.md", &[&SHORT[..], &variables].concat());
    assert_eq!(fs::read_dir(place.path("clothes/pictures")).unwrap().count(), 100);
    let report = fs::read_to_string(place.path("report.html")).unwrap();
    assert!(report.contains("fashion_mnist_prior"), "both runs");
}

mod full {
    use super::*;

    #[test]
    fn the_commands_of_running_work() {
        let place = Place::new();
        place.small_fashion_mnist();
        place.follow("running.md", &SHORT);
        // By the launcher, by a bare mpirun, and by one that gives time: the same run.
        let runs = ["runs/a", "runs/fashion_mnist", "runs/b"].map(|name| place.path(name));
        for folder in &runs {
            assert_eq!(rows(folder, "eval.jsonl"), rows(&runs[0], "eval.jsonl"));
            assert_eq!(steps_logged(folder), 4);
        }
    }

    #[test]
    fn the_commands_of_data_work() {
        if Command::new("ffmpeg").arg("-version").output().is_err() {
            println!("skipped: ffmpeg is missing (apt-get install ffmpeg), and the page uses it");
            return;
        }
        let place = Place::new();
        place.pictures("photos", 12, (192, 128));
        place.archives("shards", "photos");
        place.made_by_ffmpeg("sine=frequency=440:sample_rate=16000", 2, "sounds/a.wav");
        place.made_by_ffmpeg("testsrc=size=128x64:rate=24", 3, "films/a.mp4");
        // Instead of real media, which are fetched.
        place.made_by_ffmpeg("sine=frequency=440:sample_rate=8000", 4, "media/speech/a.wav");
        place.made_by_ffmpeg("testsrc=size=320x180:rate=24", 12, "media/film/big_buck_bunny.mp4");
        symlink("../photos", place.path("media/photos")).unwrap();
        let script = place.path("launch/fetch-media.sh");
        fs::create_dir(script.parent().unwrap()).unwrap();
        fs::write(&script, "#!/bin/sh\necho \"media/$1\"\n").unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();

        place.follow("data.md", &SHORT);
        for run_dir in ["runs/photo_patches", "runs/film"] {
            assert_eq!(steps_logged(&place.path(run_dir)), 4, "{run_dir}");
        }
        for set in
            ["photos", "patches", "packed", "sounds", "films", "photo_patches", "speech", "clips"]
        {
            assert!(place.path("data").join(set).join("manifest.json").is_file(), "{set}");
        }
        for picture in ["patches.png", "speech.png"] {
            assert!(image::open(place.path(picture)).unwrap().width() > 1, "{picture}");
        }
    }

    #[test]
    fn the_commands_of_fine_tuning_work() {
        let place = Place::new();
        place.small_fashion_mnist();
        let said = place.follow(
            "fine-tuning.md",
            &[&SHORT[..], &[("TESSERA__SCHEDULE__WARMUP_STEPS", "0")]].concat(),
        );
        for name in ["larger", "fashion_mnist_classifier", "fashion_mnist_probe"] {
            assert_eq!(steps_logged(&place.path("runs").join(name)), 4, "{name}: {said}");
        }
    }

    #[test]
    fn the_commands_of_generation_work() {
        let place = Place::new();
        place.small_fashion_mnist();
        place.pictures("photos/sea", 20, (96, 64));
        let white = |x, y| image::Luma([if x > 9 && x < 15 && y > 11 { 255u8 } else { 0 }]);
        image::GrayImage::from_fn(28, 28, white).save(place.path("mask.png")).unwrap();
        place.follow(
            "generation.md",
            &[&SHORT[..], &[("TESSERA__SCHEDULE__WARMUP_STEPS", "0")]].concat(),
        );
        assert_eq!(fs::read_dir(place.path("samples/pictures")).unwrap().count(), 100);
        let sheet = image::open(place.path("samples/grid.png")).unwrap();
        assert_eq!(sheet.width(), 10 * 28 + 11 * 2, "ten beside one another");
        let about = fs::read_to_string(place.path("samples/samples.json")).unwrap();
        let about: serde_json::Value = serde_json::from_str(&about).unwrap();
        assert_eq!(about["classes"][1], 1, "samples take turns in the classes");
        let told = rows(&place.path("runs/fashion_mnist_prior"), "metrics.jsonl");
        // A prior begins with all codes alike.
        let nats = told[0]["nats_per_token"].as_f64().unwrap();
        assert!((nats - 256f64.ln()).abs() < 0.5, "{nats}");
        assert!(place.path("runs/fashion_mnist_prior/model/tokenizer/config.json").is_file());
        for (folder, num) in [
            ("continued", 16),
            ("filled", 4 * 20),
            ("filled_test", 2),
            ("restored", 160),
            ("clear", 40),
        ] {
            let pictures = fs::read_dir(place.path(folder).join("pictures")).unwrap();
            assert_eq!(pictures.count(), num, "{folder}");
        }
    }

    #[test]
    fn the_commands_of_sound_and_film_work() {
        let place = Place::new();
        for (file, hertz) in [("train/en/a", 440), ("train/fr/b", 330), ("test/en/hello", 220)] {
            let source = format!("sine=frequency={hertz}:sample_rate=8000");
            place.made_by_ffmpeg(&source, 4, &format!("prompts/{file}.wav"));
        }
        for (file, pattern) in [("train/hills", "testsrc"), ("test/sea", "testsrc2")] {
            place.made_by_ffmpeg(
                &format!("{pattern}=size=64x64:rate=17"),
                2,
                &format!("films/{file}.mkv"),
            );
        }
        let short = [
            ("TESSERA__SCHEDULE__WARMUP_STEPS", "0"),
            ("TESSERA__TRAIN__GLOBAL_BATCH", "2"),
            ("TESSERA__PRIOR__NETWORK__LAYERS", "1"),
            ("TESSERA__MODEL__BACKBONE__CHANNELS", "4"),
        ];
        place.follow("sound-and-film.md", &[&SHORT[..], &short].concat());
        let shown = ["reconstructions.png", "reconstructions.wav"];
        assert!(shown.iter().all(|name| place.path("shown").join(name).is_file()));
        let files = |folder: &str| fs::read_dir(place.path(folder)).unwrap().count();
        assert_eq!([files("spoken/sounds"), files("continued/sounds")], [8, 4]);
        assert_eq!([files("moving/films"), files("continued_film/films")], [8, 2]);
        // Two seconds at 8 kHz, 16 bits; all begin with the same second, as the decoder sees it alone.
        let sounds = [0, 1].map(|number| {
            fs::read(place.path(&format!("continued/sounds/{number:08}.wav"))).unwrap()
        });
        assert_eq!(sounds[0].len(), 44 + 2 * 16_000);
        let second = 44 + 2 * (8000 - 64);
        assert!(sounds[0][..second] == sounds[1][..second] && sounds[0] != sounds[1]);
        let about = fs::read_to_string(place.path("spoken/samples.json")).unwrap();
        let about: serde_json::Value = serde_json::from_str(&about).unwrap();
        assert!(about["classes"].as_array().unwrap().iter().all(|class| class == 1), "{about}");
    }

    /// Word for word with the real data: half an hour on two cores. The prior has learned, and samples are nearer to real
    /// pictures than what needs no prior.
    #[test]
    fn the_commands_of_generation_work_with_real_pictures() {
        let place = Place::new();
        let fetch = Command::new(root().join("launch/fetch-fashion-mnist.sh")).output().unwrap();
        let input = String::from_utf8(fetch.stdout).unwrap();
        let program = tessera();
        let program = program.get_program().to_str().unwrap();
        let input = input.trim();
        place.run(
            program,
            &format!("data pack --format idx --input {input} --out data/fashion_mnist"),
        );
        place.pictures("photos/sea", 20, (96, 64));
        let white = |x, y| image::Luma([if x > 9 && x < 15 && y > 11 { 255u8 } else { 0 }]);
        image::GrayImage::from_fn(28, 28, white).save(place.path("mask.png")).unwrap();
        place.follow("generation.md", &[]);
        let measured = rows(&place.path("runs/fashion_mnist_prior"), "eval.jsonl");
        let measured = measured.last().unwrap();
        let nats = |key: &str| measured[key].as_f64().unwrap();
        assert!(nats("nats_per_token") < nats("nats_position_and_class") - 1.3, "{measured}");
        let judged = fs::read_to_string(place.path("samples/judge.json")).unwrap();
        let judged: serde_json::Value = serde_json::from_str(&judged).unwrap();
        let sets = judged["sets"].as_array().unwrap();
        let frechet = |name: &str| {
            let set = sets.iter().find(|set| set["name"] == name).unwrap();
            set["frechet"].as_f64().unwrap()
        };
        assert!(frechet("samples") < frechet("codes by position"), "{judged}");
        assert!(frechet("samples") < frechet("held-out codes, shuffled"), "{judged}");
    }

    /// Word for word with the real data, each training for 200 steps: ten minutes on two cores. What they learn in whole recipes is in
    /// `docs/results`.
    #[test]
    fn the_commands_of_sound_and_film_work_with_real_data() {
        let place = Place::new();
        let media = |what: &str| {
            let fetch =
                Command::new(root().join("launch/fetch-media.sh")).arg(what).output().unwrap();
            PathBuf::from(String::from_utf8(fetch.stdout).unwrap().trim())
        };
        for language in ["en", "fr"] {
            let mut prompts: Vec<PathBuf> = fs::read_dir(media("languages").join(language))
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .collect();
            prompts.sort();
            for (number, prompt) in (1..).zip(prompts) {
                let split = if number % 10 == 0 { "test" } else { "train" };
                let folder = place.path("prompts").join(split).join(language);
                fs::create_dir_all(&folder).unwrap();
                fs::copy(&prompt, folder.join(prompt.file_name().unwrap())).unwrap();
            }
        }
        let held_out = place.path("prompts/test/en");
        let first = fs::read_dir(&held_out).unwrap().next().unwrap().unwrap().path();
        fs::rename(first, held_out.join("hello.wav")).unwrap();
        let film = media("film").join("big_buck_bunny.mp4");
        for (name, from, seconds) in [("train/hills", 20, 120), ("test/sea", 410, 20)] {
            fs::create_dir_all(place.path("films").join(name).parent().unwrap()).unwrap();
            place.run(
                "ffmpeg",
                &format!(
                    "-v error -ss {from} -t {seconds} -i {} -vf fps=12,scale=-2:64,crop=64:64 -an films/{name}.mkv",
                    film.display()
                ),
            );
        }
        place.follow("sound-and-film.md", &[("TESSERA__TRAIN__STEPS", "200")]);
        for run in ["speech_8k", "speech_8k_prior", "film_64", "film_64_prior"] {
            let measured = rows(&place.path("runs").join(run), "eval.jsonl").pop().unwrap();
            assert_eq!(measured["step"], 200, "{measured}");
        }
        let files = |folder: &str| fs::read_dir(place.path(folder)).unwrap().count();
        assert_eq!([files("spoken/sounds"), files("continued/sounds")], [8, 4]);
        assert_eq!([files("moving/films"), files("continued_film/films")], [8, 2]);
    }

    /// Two sweeps of 24 trainings; `tests/sweeps.rs` has sweeps of the same kinds.
    #[test]
    fn the_commands_of_sweeps_work() {
        let place = Place::new();
        let said = place.follow("sweeps.md", &[]);
        for sweep in ["smoke", "codes"] {
            let folder = place.path("runs/sweeps").join(sweep);
            assert!(folder.join("best.toml").is_file(), "{sweep}: {said}");
            let table = fs::read_to_string(folder.join("table.csv")).unwrap();
            let num = if sweep == "smoke" { 9 } else { 3 * 5 };
            assert_eq!(table.lines().count(), 1 + num, "{table}");
            assert!(!table.contains("failed"), "{table}");
        }
    }
}

/// Blocks that need another system than a test has, or take long: their page, words of theirs, and what runs the
/// command in another form.
const ELSEWHERE: [(&str, &str, &str); 9] = [
    ("docs/losses.md", "--set eval.features", "tests/recipes.rs"),
    ("docs/testing.md", "./launch/test.sh", ".ci/run"),
    ("README.md", "./launch/demo.sh", ".ci/run"),
    ("docs/clusters.md", "sbatch ", "tests/slurm.rs"),
    ("docs/clusters.md", "docker build ", "launch/test-image.sh"),
    ("docs/reliability.md", "tessera chaos ", "tests/matrix.rs"),
    ("docs/report.md", "tessera report", "crates/tessera-cli/tests/report.rs"),
    ("docs/trackers.md", "tessera track", "tests/tracking.rs"),
    ("docs/architecture.md", "tessera launch ", "crates/tessera-cli/tests/launch.rs"),
];

#[test]
fn every_block_that_shows_a_command_is_run() {
    let programs =
        ["tessera ", "tessera-worker ", "mpirun ", "sbatch ", "docker ", "cargo ", "./launch/"];
    let mut followed = Vec::new();
    let mut elsewhere = Vec::new();
    for page in crate::docs::pages() {
        let name = crate::docs::short(&page);
        if name.starts_with("docs/results") || name.starts_with("docs/reference") {
            continue; // what was run then; what the code says
        }
        for (language, block) in crate::docs::blocks(&fs::read_to_string(&page).unwrap()) {
            let shows =
                block.lines().any(|line| programs.iter().any(|name| line.starts_with(name)));
            if language == "sh" {
                followed.push(name.clone());
            } else if shows {
                let known =
                    |(of, word, _): &&(&str, &str, &str)| name == *of && block.contains(word);
                let entry = ELSEWHERE.iter().find(known);
                elsewhere
                    .push(*entry.unwrap_or_else(|| panic!("nothing runs, in {name}:\n{block}")));
            }
        }
    }
    followed.dedup();
    let tested = [
        "data",
        "fine-tuning",
        "generation",
        "running",
        "sound-and-film",
        "sweeps",
        "tutorial",
        "use",
    ]
    .map(|page| format!("docs/{page}.md"));
    let tested = [&["README.md".to_owned()], &tested[..]].concat();
    assert_eq!(followed, tested, "a page with blocks marked `sh` needs its test");
    for (_, word, by) in elsewhere {
        let what = word.split_whitespace().last().unwrap();
        let text = fs::read_to_string(root().join(by)).unwrap();
        assert!(text.contains(what), "{by} runs no {what}");
    }
}
