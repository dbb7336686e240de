//! Bad input: exit code 2, one `error:` line that says what to do, nothing half-written, nobody
//! left running.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::{
    checkpoints, data_settings, errors, flip_bit, mounted, mpirun, packed, processes_of, rows, run,
    tensors, tessera, train, write_idx, write_program,
};

/// Runs what must be refused with code 2 and one error line that has these words.
fn refused(command: &mut Command, run_dir: &Path, words: &[&str]) -> String {
    let (code, stdout, stderr) = run(command);
    assert_eq!(code, Some(2), "{command:?}: {stderr}");
    assert_eq!(errors(&stderr).len(), 1, "{command:?}: {stderr}");
    let error = errors(&stderr)[0].to_owned();
    for word in words {
        assert!(error.contains(word), "no '{word}' in: {error}");
    }
    assert_eq!(stdout, "", "a result was printed");
    let left = processes_of(run_dir);
    assert!(left.is_empty(), "left running: {left:?}");
    error
}

/// `tessera train` of the smoke configuration, without a launcher.
fn train_alone(run_dir: &Path, settings: &[&str]) -> Command {
    let mut command = tessera();
    with_training(&mut command, run_dir, settings);
    command
}

fn with_training(command: &mut Command, run_dir: &Path, settings: &[&str]) {
    command.args(["train", "--config", "configs/smoke.toml", "--run-dir"]).arg(run_dir);
    for setting in settings {
        command.args(["--set", setting]);
    }
}

/// Under the launcher and without it: refused with these words, and no run folder is made.
fn refused_everywhere(settings: &[&str], words: &[&str]) {
    let folder = TempDir::new().unwrap();
    let run_dir = folder.path().join("run");
    for mut command in [train(2, &run_dir, settings), train_alone(&run_dir, settings)] {
        refused(&mut command, &run_dir, words);
        assert!(!run_dir.exists(), "a run folder was made");
    }
}

/// Every file below a folder with its content, to see that nothing changed.
fn contents(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(contents(&path));
        } else {
            all.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    all.sort();
    all
}

/// A run folder with checkpoints of steps 20 and 40, stopped there.
fn stopped_at_40() -> TempDir {
    let folder = TempDir::new().unwrap();
    let (code, _, stderr) = run(&mut train(2, folder.path(), &["train.stop_at=40"]));
    assert_eq!(code, Some(75), "{stderr}");
    assert_eq!(checkpoints(folder.path()), [20, 40]);
    folder
}

#[test]
fn an_unknown_key_is_told_with_its_place_and_the_nearest_one() {
    let words = ["--set", "'train.stepz'", "did you mean 'train.steps'?"];
    refused_everywhere(&["train.stepz=5"], &words);

    let folder = TempDir::new().unwrap();
    let config = folder.path().join("typo.toml");
    fs::write(&config, "seed = 1\n\n[model.quantizer]\nnum_code = 5\n").unwrap();
    let run_dir = folder.path().join("run");
    let mut command = tessera();
    command.args(["launch", "--nproc", "2", "--", "train", "--config"]).arg(&config);
    command.arg("--run-dir").arg(&run_dir);
    let place = format!("{}:4: ", config.display());
    refused(&mut command, &run_dir, &[&place, "did you mean 'model.quantizer.num_codes'?"]);
    assert!(!run_dir.exists());
}

#[test]
fn ranks_of_a_bare_mpirun_tell_a_mistake_once() {
    let folder = TempDir::new().unwrap();
    let run_dir = folder.path().join("run");
    for _ in 0..2 {
        // Whether a second rank still gets to say it would be a matter of luck.
        let mut command = mpirun(2);
        with_training(&mut command, &run_dir, &["train.stepz=5"]);
        refused(&mut command, &run_dir, &["did you mean 'train.steps'?"]);
    }
    let mut command = mpirun(2);
    with_training(&mut command, &run_dir, &["data.kind=packed", "data.path=/nowhere/shards"]);
    refused(&mut command, &run_dir, &["no data set at /nowhere/shards"]);
    assert!(!run_dir.exists());
}

/// Each host's own profile may set what the launcher has not.
#[test]
fn a_setting_of_nccl_that_ranks_do_not_share_is_named_before_the_first_step() {
    let folder = TempDir::new().unwrap();
    let (run_dir, profile) = (folder.path().join("run"), folder.path().join("worker"));
    let program = tessera().get_program().to_str().unwrap().to_owned();
    let sets = "[ \"$OMPI_COMM_WORLD_RANK\" != 1 ] || export NCCL_PROTO=Simple";
    write_program(&profile, &format!("#!/bin/sh\n{sets}\nexec {program}-worker \"$@\"\n"));
    let mut command = train(2, &run_dir, &["train.steps=3"]);
    command.env("TESSERA_WORKER", &profile);
    let words = ["rank 1 has another NCCL_PROTO in its environment than rank 0"];
    let told = refused(&mut command, &run_dir, &words);
    assert!(!told.contains("Simple"), "{told}");
}

#[test]
fn a_value_of_the_wrong_type_or_out_of_range_is_told_with_what_it_may_be() {
    refused_everywhere(&["train.steps=many"], &["train.steps should be a whole number"]);
    refused_everywhere(&["train.global_batch=0"], &["train.global_batch should be from 1"]);
    refused_everywhere(&["data.synthetic.height=15"], &["multiples of 4", "15 x 16"]);
}

/// What networks, losses and critics cannot be, by the size of pictures (16 x 16) or by one another.
#[test]
fn networks_and_losses_that_cannot_be_are_told_with_the_key_and_what_to_do() {
    let unet2d = |keys: &str| format!("model.backbone={{kind = \"unet2d\", channels = 8, {keys}}}");
    let cases: [(&[&str], &[&str]); 12] = [
        (
            &[&unet2d("groups = 2, attention_resolutions = [12]")],
            &["model.backbone.attention_resolutions should be among [16, 8, 4]", "found 12"],
        ),
        (&[&unet2d("groups = 3")], &["model.backbone.groups should divide", "found 3"]),
        (
            &[&unet2d("groups = 2, multipliers = [1, 1, 1, 1, 1, 1]")],
            &["multiples of 32", "found 16 x 16", "pack the data at 32 x 32"],
        ),
        (
            &["model.backbone={kind = \"hierarchy\", levels = 4}"],
            &["the hierarchy backbone", "multiples of 32", "found 16 x 16"],
        ),
        (&["loss.adversarial=0.1", "critic.layers=2"], &["critic.layers is 2", "lower it to 1"]),
        (
            &["loss.adversarial=0.1", "adversarial.start=60"],
            &["adversarial.start is 60, but the run ends after 60 steps"],
        ),
        (
            &["loss.adversarial=0.1", "adversarial.critic_start=5"],
            &["adversarial.critic_start is 5, after adversarial.start, 0"],
        ),
        (
            &["loss.adversarial=0.1", "critic.kind=spectral"],
            &["critic.kind = \"spectral\" takes sound, these data are pictures", "\"patch\""],
        ),
        (&["loss.feature_matching=1"], &["loss.feature_matching compares", "set it above 0"]),
        (
            &["loss.adversarial=0.1", "loss.balanced=true", "adversarial.adaptive=true"],
            &["loss.balanced and adversarial.adaptive both", "set one of them to false"],
        ),
        (&["loss.squared=0"], &["set loss.squared = 1"]),
        (
            &["loss.perceptual=1", "perceptual.network=vgg"],
            &["perceptual.path, which is empty", "perceptual.network = \"random\""],
        ),
    ];
    for (number, (settings, words)) in cases.into_iter().enumerate() {
        if number == 0 {
            refused_everywhere(settings, words);
        }
        let folder = TempDir::new().unwrap();
        let run_dir = folder.path().join("run");
        refused(&mut train_alone(&run_dir, settings), &run_dir, words);
        assert!(!run_dir.exists(), "a run folder was made");
    }
}

#[test]
fn a_file_of_another_network_is_refused_with_the_tensor_that_is_missing() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("other.safetensors");
    let header = br#"{"weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(&[0; 4]);
    fs::write(&file, bytes).unwrap();
    let path = format!("perceptual.path={}", file.display());
    let settings = ["loss.perceptual=1", "perceptual.network=vgg", path.as_str()];
    refused_everywhere(&settings, &["perceptual.path", "other.safetensors", "features.0.weight"]);
}

#[test]
fn a_missing_configuration_file_is_named() {
    let folder = TempDir::new().unwrap();
    let run_dir = folder.path().join("run");
    let mut command = tessera();
    command.args(["launch", "--nproc", "2", "--", "train", "--config", "/nowhere/a.toml"]);
    command.arg("--run-dir").arg(&run_dir);
    refused(&mut command, &run_dir, &["cannot read the configuration /nowhere/a.toml"]);
    assert!(!run_dir.exists());
}

#[test]
fn a_data_set_that_is_missing_or_damaged_is_found_before_the_run_starts() {
    let missing = ["data.kind=packed", "data.path=/nowhere/shards"];
    refused_everywhere(&missing, &["no data set at /nowhere/shards", "tessera data pack"]);

    let folder = TempDir::new().unwrap();
    let shards = packed(folder.path());
    let settings = data_settings(&shards);
    let settings = settings.each_ref().map(String::as_str);
    let shard = shards.join("train-00002.safetensors");
    let whole = fs::read(&shard).unwrap();

    fs::write(&shard, &whole[..whole.len() - 1]).unwrap();
    let words = ["train-00002.safetensors is cut short", "copy or fetch it again"];
    refused_everywhere(&settings, &words);

    fs::write(&shard, &whole).unwrap();
    flip_bit(&shard, -30); // in the last sample
    let words = ["train-00002.safetensors is damaged", "run `tessera data verify`"];
    refused_everywhere(&settings, &words);
}

#[test]
fn an_idx_file_that_is_cut_short_packs_nothing() {
    let folder = TempDir::new().unwrap();
    let input = folder.path().join("idx");
    write_idx(&input);
    let images = input.join("t10k-images-idx3-ubyte");
    let whole = fs::read(&images).unwrap();
    fs::write(&images, &whole[..whole.len() - 1]).unwrap();
    let out = folder.path().join("out");
    let mut command = tessera();
    command.args(["data", "pack", "--format", "idx", "--input"]).arg(&input);
    // 4 bytes of magic, 3 lengths of 4, 8 images of 64: 528.
    let words = ["t10k-images-idx3-ubyte is cut short", "expected 528", "found 527"];
    refused(command.arg("--out").arg(&out), &out, &words);
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().path()).collect();
    assert_eq!(left, [input], "something half-written is left");
}

/// What [`mounted`] found left below the folder.
fn left_in(stderr: &str) -> Vec<&str> {
    stderr.lines().filter_map(|line| line.strip_prefix("left: ")).collect()
}

#[test]
fn a_run_folder_that_cannot_be_written_is_refused_before_workers_start() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "mine").unwrap();
    for run_dir in [file.join("run"), file.clone()] {
        let before = contents(folder.path());
        for mut command in [train(2, &run_dir, &[]), train_alone(&run_dir, &[])] {
            refused(&mut command, &run_dir, &["--run-dir"]);
        }
        assert_eq!(contents(folder.path()), before);
    }

    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    for command in [train(2, &disk.join("run"), &[]), train_alone(&disk.join("run"), &[])] {
        let words = ["Read-only file system", "choose a --run-dir that can be written"];
        refused(&mut mounted(&disk, "ro,size=1m", &command), &disk, &words);
    }
}

#[test]
fn a_disk_that_stays_full_ends_the_run_restartable_and_leaves_no_partial_checkpoint() {
    let folder = TempDir::new().unwrap();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    // Rows and events of 20 steps fit into 200 KiB; the 36,864 parameters of the 3x3 convolution
    // of 64 channels alone, with both moments, make 440 KB of a checkpoint.
    let settings = ["model.backbone.channels=64", "checkpoint.max_failures=3"];
    let command = train(2, &disk, &settings);
    let (code, _, stderr) = run(&mut mounted(&disk, "size=200k", &command));
    assert_eq!(code, Some(1), "{stderr}");
    let told = errors(&stderr);
    assert_eq!(told.len(), 1, "{stderr}");
    assert!(told[0].contains("No space left on device"), "{stderr}");
    assert!(told[0].contains("free some space or choose another --run-dir"), "{stderr}");
    let left = left_in(&stderr);
    assert!(left.iter().any(|path| path.ends_with("/metrics.jsonl")), "{left:?}");
    assert!(!left.iter().any(|path| path.contains("step-00000020")), "{left:?}");
    assert!(processes_of(&disk).is_empty());
}

#[test]
fn a_full_disk_ends_a_pack_and_what_was_done_stays_for_the_next() {
    let folder = TempDir::new().unwrap();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    write_idx(&folder.path().join("idx"));
    let mut pack = tessera();
    pack.args(["data", "pack", "--format", "idx", "--shard-samples", "1", "--input"]);
    pack.arg(folder.path().join("idx")).arg("--out").arg(disk.join("set"));
    // 24 shards of one page each do not fit into 8 pages.
    let (code, _, stderr) = run(&mut mounted(&disk, "size=32k", &pack));
    assert_eq!(code, Some(2), "{stderr}");
    assert!(errors(&stderr)[0].contains("free some space"), "{stderr}");
    let left = left_in(&stderr);
    assert!(left.iter().any(|path| path.ends_with("set.partial/train-00000.safetensors")));
    assert!(left.iter().all(|path| path.contains("set.partial") && !path.ends_with(".tmp")));
}

#[test]
fn no_worker_no_mpirun_and_a_world_that_is_not_there_are_refused() {
    let folder = TempDir::new().unwrap();
    let run_dir = folder.path().join("run");
    refused(&mut train(0, &run_dir, &[]), &run_dir, &["--nproc 0", "give 1 or more"]);
    let mut command = train(2, &run_dir, &[]);
    refused(command.env("PATH", "/nowhere"), &run_dir, &["mpirun", "launch/setup.sh"]);
    for variable in ["TESSERA_WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE"] {
        let mut command = train_alone(&run_dir, &[]);
        let said = format!("{variable} says 2 ranks but MPI sees 1");
        refused(command.env(variable, "2"), &run_dir, &[&said, "mpirun of the MPI library"]);
    }
    assert!(!run_dir.exists());
}

#[test]
fn a_run_that_would_not_be_the_same_one_is_refused_and_its_folder_stays_as_it_is() {
    let folder = stopped_at_40();
    let before = contents(folder.path());
    let other = ["model.quantizer.num_codes=128"];
    let words = ["model.quantizer.num_codes is 128", "has 64", "another --run-dir"];
    for mut command in [train(2, folder.path(), &other), train_alone(folder.path(), &other)] {
        refused(&mut command, folder.path(), &words);
        assert!(contents(folder.path()) == before, "the run folder was changed");
    }
    for mut command in [train(2, folder.path(), &[]), train_alone(folder.path(), &[])] {
        let words = ["is not empty", "--resume auto"];
        refused(command.args(["--resume", "never"]), folder.path(), &words);
        assert!(contents(folder.path()) == before, "the run folder was changed");
    }
    let mut eval = tessera();
    eval.args(["eval", "--checkpoint", "7", "--run"]).arg(folder.path());
    refused(&mut eval, folder.path(), &["no such checkpoint", "20, 40"]);
    assert!(contents(folder.path()) == before, "the run folder was changed");
}

#[test]
fn an_evaluation_of_what_is_no_run_is_refused() {
    let folder = TempDir::new().unwrap();
    let mut eval = tessera();
    refused(
        eval.args(["eval", "--run"]).arg(folder.path()),
        folder.path(),
        &["is no run folder", "config.toml"],
    );
    let mut eval = tessera();
    eval.args(["launch", "--nproc", "2", "--", "eval", "--run"]).arg(folder.path());
    refused(&mut eval, folder.path(), &["is no run folder"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy_folder(&path, &target) } else { drop(fs::copy(&path, &target)) }
    }
}

#[test]
fn a_checkpoint_with_a_flipped_bit_is_skipped_and_the_run_ends_as_if_undisturbed() {
    let undisturbed = TempDir::new().unwrap();
    let (code, _, stderr) = run(&mut train(2, undisturbed.path(), &[]));
    assert_eq!(code, Some(0), "{stderr}");
    let stopped = stopped_at_40();
    let names = ["state-00001-of-00002.safetensors", "state-00002-of-00002.safetensors"];
    for name in names.into_iter().chain(["manifest.json"]) {
        let folder = TempDir::new().unwrap();
        copy_folder(stopped.path(), folder.path());
        let checkpoint = folder.path().join("checkpoints/step-00000040");
        flip_bit(&checkpoint.join(name), -100);

        let (code, _, stderr) = run(tessera().arg("inspect").arg(&checkpoint));
        assert_eq!(code, Some(6), "{name}: {stderr}");
        assert!(errors(&stderr)[0].contains(name), "{stderr}");
        assert!(errors(&stderr)[0].contains("another checkpoint"), "{stderr}");

        let (code, _, stderr) = run(&mut train(2, folder.path(), &[]));
        assert_eq!(code, Some(0), "{name}: {stderr}");
        assert!(stderr.contains("checkpoint skipped: "), "{name}: {stderr}");
        assert!(stderr.contains("resuming from step 20, the newest good checkpoint"), "{stderr}");
        for file in ["metrics.jsonl", "eval.jsonl"] {
            assert_eq!(rows(folder.path(), file), rows(undisturbed.path(), file), "{name}");
        }
        assert!(tensors(folder.path(), 60) == tensors(undisturbed.path(), 60), "{name}");
    }
}

#[test]
fn any_single_flipped_bit_in_a_checkpoint_is_seen() {
    let folder = stopped_at_40();
    let checkpoint = folder.path().join("checkpoints/step-00000040");
    let verify = || tessera_checkpoint::verify(&checkpoint);
    verify().unwrap();
    let mut unseen = Vec::new();
    for entry in fs::read_dir(&checkpoint).unwrap() {
        let path = entry.unwrap().path();
        let whole = fs::read(&path).unwrap();
        let is_state = path.extension().is_some_and(|extension| extension == "safetensors");
        // Each byte of a manifest, and 100 places over a file of tensors; another bit each time.
        for at in (0..whole.len()).step_by(if is_state { whole.len().div_ceil(100) } else { 1 }) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            fs::write(&path, bytes).unwrap();
            if verify().is_ok() {
                unseen.push(format!("{}:{at}", path.display()));
            }
        }
        fs::write(&path, &whole).unwrap();
    }
    assert!(unseen.is_empty(), "{} flipped bits not seen, such as {}", unseen.len(), unseen[0]);
}
