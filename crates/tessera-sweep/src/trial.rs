//! A run of a trial: a launcher in a process and a folder of its own, and what it has left.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Map, Value};
use tessera_checkpoint::{Manifest, TensorInfo};
use tessera_control::ExitCode;
use tessera_launch::Child;

use crate::error::SweepError;
use crate::space::Point;
use crate::store::{About, Job, Outcome};

/// What a run may use of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Its cores.
    pub cores: Vec<usize>,
    /// Its GPUs, as `CUDA_VISIBLE_DEVICES` names them; `None` where there are none.
    pub gpus: Option<String>,
}

/// Shares cores and GPUs evenly among `parallel` slots; where there are fewer than slots, some share one.
pub fn slots(parallel: usize, cores: &[usize], gpus: &[String]) -> Vec<Slot> {
    fn part<T: Clone>(all: &[T], slot: usize, parallel: usize) -> Vec<T> {
        if all.len() < parallel {
            return all.iter().cycle().skip(slot).take(1).cloned().collect();
        }
        // The same number for each: a trial's numbers hang on its threads.
        let each = all.len() / parallel;
        all[slot * each..(slot + 1) * each].to_vec()
    }
    (0..parallel)
        .map(|slot| Slot {
            cores: part(cores, slot, parallel),
            gpus: (!gpus.is_empty()).then(|| part(gpus, slot, parallel).join(",")),
        })
        .collect()
}

/// Where a job's run is kept: its trial's folder, or one a fold below it.
pub fn run_dir(folder: &Path, trial: usize, fold: Option<u64>) -> PathBuf {
    let folder = folder.join("trials").join(format!("{trial:04}"));
    match fold {
        Some(fold) => folder.join(format!("fold-{fold}")),
        None => folder,
    }
}

/// The arguments of `tessera train` that train a point to `steps` steps.
pub(crate) fn train_arguments(
    about: &About,
    point: &Point,
    run_dir: Option<&Path>,
    job: &Job,
) -> Vec<OsString> {
    let sweep = &about.sweep;
    let mut sets: Vec<(String, String)> = vec![("checkpoint.keep".into(), "1".into())];
    let mut values: Vec<_> = sweep.set.iter().chain(point).collect();
    // Which keys a table has is said by its kind, which goes before them; an outer table before an inner one.
    values.sort_by_key(|(key, _)| match key.strip_suffix(".kind") {
        Some(table) => table.matches('.').count(),
        None => usize::MAX,
    });
    sets.extend(values.into_iter().map(|(key, value)| (key.clone(), as_toml(value))));
    if sweep.trials.folds > 0 {
        sets.push(("data.folds".into(), sweep.trials.folds.to_string()));
        sets.push(("data.fold".into(), job.fold.to_string()));
    }
    // The figures at the rung are those of the step that it ends with.
    if !job.steps.is_multiple_of(about.eval_every) {
        sets.push(("eval.every".into(), job.steps.to_string()));
    }
    if job.steps < about.steps {
        sets.push(("train.stop_at".into(), job.steps.to_string()));
    }
    let mut arguments: Vec<OsString> = vec!["--config".into(), sweep.base.clone().into()];
    if let Some(run_dir) = run_dir {
        arguments.extend(["--run-dir".into(), run_dir.as_os_str().to_owned()]);
    }
    for (key, value) in sets {
        arguments.extend(["--set".into(), format!("{key}={value}").into()]);
    }
    arguments
}

/// A value as TOML has it: what JSON has, but for tables.
fn as_toml(value: &Value) -> String {
    match toml::Value::try_from(value) {
        Ok(written @ (toml::Value::Array(_) | toml::Value::Table(_))) => written.to_string(),
        _ => value.to_string(),
    }
}

/// A run on its way.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) job: Job,
    pub(crate) slot: usize,
    pub(crate) run_dir: PathBuf,
    child: Child,
    begun: Instant,
    log: PathBuf,
    asked_to_stop: bool,
}

impl Running {
    /// Starts the launcher of a job. From the main thread alone.
    pub(crate) fn start(
        folder: &Path,
        about: &About,
        point: &Point,
        (job, run_dir): (Job, PathBuf),
        (number, slot): (usize, &Slot),
    ) -> Result<Self, SweepError> {
        let trials = &about.sweep.trials;
        let logs = folder.join("logs");
        std::fs::create_dir_all(&logs).map_err(SweepError::file("make", &logs))?;
        let log = logs.join(format!("{:04}-{}.log", job.trial, job.fold));
        let open = OpenOptions::new().create(true).append(true).open(&log);
        let file: File = open.map_err(SweepError::file("write", &log))?;

        let mut arguments: Vec<OsString> = vec!["launch".into()];
        arguments.extend(["--nproc".into(), trials.workers.to_string().into()]);
        arguments.extend(["--max-restarts".into(), trials.max_restarts.to_string().into()]);
        arguments.extend(["--".into(), "train".into()]);
        arguments.extend(train_arguments(about, point, Some(&run_dir), &job));
        let mut variables = Vec::new();
        if let Some(gpus) = &slot.gpus {
            variables.push(("CUDA_VISIBLE_DEVICES".into(), gpus.into()));
        }
        let child = Child::start(&arguments, &variables, &slot.cores, &file)?;
        Ok(Self {
            job,
            slot: number,
            run_dir,
            child,
            begun: Instant::now(),
            log,
            asked_to_stop: false,
        })
    }

    /// Asks for one checkpoint and the end.
    pub(crate) fn ask_to_stop(&mut self) {
        self.asked_to_stop = true;
        self.child.ask_to_stop();
    }

    /// How it has ended: `None` while it runs; `Some(None)` where it was stopped before its rung.
    pub(crate) fn ended(&mut self) -> Option<Option<Outcome>> {
        let status = self.child.status()?;
        let code = status.code().unwrap_or(ExitCode::Failed.code());
        let seconds = self.begun.elapsed().as_secs_f64();
        let outcome = |message: String, figures| Outcome { code, message, figures, seconds };
        // Asked while it starts, it may end in any way: that is no failure of the trial's.
        let stopped = self.asked_to_stop || ExitCode::from(code) == ExitCode::Stopped;
        if code != 0 && !stopped {
            return Some(Some(outcome(self.last_words(), Map::new())));
        }
        match figures_of(&self.run_dir, self.job.steps) {
            Ok(Some(figures)) => Some(Some(outcome(String::new(), figures))),
            Ok(None) if stopped => Some(None),
            Ok(None) => {
                Some(Some(outcome("it left no evaluation of its last step".into(), Map::new())))
            }
            Err(problem) => Some(Some(outcome(problem, Map::new()))),
        }
    }

    /// What the launcher has said last.
    fn last_words(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let error = text.lines().rev().find_map(|line| line.strip_prefix("error: "));
        let last = error.or_else(|| text.lines().rev().find(|line| !line.trim().is_empty()));
        last.unwrap_or("it ended without a word").to_owned()
    }
}

/// The figures of the evaluation after `step`, and how many parameters the model has; `None` where there
/// is no checkpoint of that step with an evaluation.
pub(crate) fn figures_of(run_dir: &Path, step: u64) -> Result<Option<Map<String, Value>>, String> {
    let checkpoints = run_dir.join("checkpoints");
    if !checkpoints.exists() {
        return Ok(None); // stopped before it had begun
    }
    let all = tessera_checkpoint::list(&checkpoints).map_err(|error| error.to_string())?;
    let Some((_, folder)) = all.into_iter().find(|(found, _)| *found == step) else {
        return Ok(None);
    };
    let manifest = Manifest::read(&folder).map_err(|error| error.to_string())?;
    let Some(Value::Object(mut figures)) = manifest.evaluation else { return Ok(None) };
    let survey = tessera_checkpoint::survey(&folder).map_err(|error| error.to_string())?;
    figures.insert("parameters".to_owned(), parameters(&survey.tensors).into());
    Ok(Some(figures))
}

/// Numbers that make the model: those of its layers and codebooks, none of the optimiser's.
fn parameters(tensors: &[TensorInfo]) -> u64 {
    let of_model = |name: &str| {
        ["encoder.", "decoder.", "quantizer."].iter().any(|part| name.starts_with(part))
            && !name.contains(".ema_")
    };
    let all = tensors.iter().filter(|tensor| of_model(&tensor.name));
    all.map(|tensor| tensor.shape.iter().map(|&size| size as u64).product::<u64>()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_was_stopped_before_it_had_a_folder_has_no_figures_and_no_problem() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(figures_of(&folder.path().join("0003"), 6), Ok(None));
    }

    /// Values are sorted by key otherwise, and `kind` would come behind `code_dim`.
    #[test]
    fn the_kind_of_a_table_is_set_before_its_other_keys_and_a_trials_value_after_the_sweeps() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("base.toml");
        std::fs::write(&path, "").unwrap();
        let words = ["model.backbone.channels=4", "model.quantizer.quantizer.code_dim=2", "a=1,2"];
        let sweep = crate::Sweep::read(&path, &words.map(str::to_owned)).unwrap();
        let about = About { sweep, base: String::new(), steps: 90, eval_every: 90 };
        let point = [
            ("model.backbone.channels", Value::from(8)),
            ("model.quantizer.code_dim", Value::from(16)),
            ("model.quantizer.kind", Value::from("residual")),
            ("model.quantizer.quantizer.kind", Value::from("simvq")),
            ("x.parts", serde_json::json!([{ "path": "a", "weight": 0.5 }, [8, 5]])),
        ];
        let point: Point = point.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let job = Job { trial: 0, rung: 0, fold: 0, steps: 90 };
        let arguments = train_arguments(&about, &point, None, &job);
        let sets: Vec<&str> = arguments
            .iter()
            .map(|word| word.to_str().unwrap())
            .filter(|word| word.contains('='))
            .collect();
        let expected = [
            "checkpoint.keep=1",
            "model.quantizer.kind=\"residual\"",
            "model.quantizer.quantizer.kind=\"simvq\"",
            "model.backbone.channels=4",
            "model.quantizer.quantizer.code_dim=2",
            "model.backbone.channels=8",
            "model.quantizer.code_dim=16",
            r#"x.parts=[{ path = "a", weight = 0.5 }, [8, 5]]"#,
        ];
        assert_eq!(sets, expected);
    }

    #[test]
    fn slots_have_as_much_each_and_none_goes_without() {
        let cores = [0, 1, 2, 3, 4];
        let of = |parallel| -> Vec<Vec<usize>> {
            slots(parallel, &cores, &[]).into_iter().map(|slot| slot.cores).collect()
        };
        assert_eq!(of(2), [vec![0, 1], vec![2, 3]]);
        assert_eq!(of(1), [vec![0, 1, 2, 3, 4]]);
        assert_eq!(of(7)[4..], [vec![4], vec![0], vec![1]]);
        let gpus = ["0", "1", "2", "3"].map(str::to_owned);
        let slots = slots(2, &cores, &gpus);
        assert_eq!(slots[1].gpus.as_deref(), Some("2,3"));
    }
}
