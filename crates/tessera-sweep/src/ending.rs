//! How a sweep has ended: a sweep without a best trial is no success, whatever its trials say.

use tessera_control::ExitCode;

use crate::spec::Metric;
use crate::store::{Outcome, Trial, best};

/// How a sweep has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// All that was to be done is done.
    Done,
    /// It was asked to stop; the same command with `--resume` goes on.
    Stopped,
    /// All that was to be done is done, and no trial has a figure.
    Fruitless {
        /// What the trials failed with, where that is one; else 1.
        code: ExitCode,
        /// Why, in one line.
        problem: String,
    },
}

impl Ending {
    /// How a sweep has ended that has nothing more to do.
    pub(crate) fn of(trials: &[Trial], metric: &Metric) -> Self {
        if best(trials, metric).is_some() {
            return Self::Done;
        }
        let failures: Vec<&Outcome> = trials.iter().filter_map(Trial::failure).collect();
        let Some(first) = failures.first() else {
            let problem = "no trial has ended within budget.seconds: give more".to_owned();
            return Self::Fruitless { code: ExitCode::Failed, problem };
        };
        let code = ExitCode::from(first.code);
        let is_one = failures.iter().all(|other| ExitCode::from(other.code) == code);
        let is_failure = !matches!(code, ExitCode::Done | ExitCode::Stopped);
        let code = if is_one && is_failure { code } else { ExitCode::Failed };
        let problem = format!(
            "no trial has a result: {} of {} failed, the first with: {}; table.csv says why each did",
            failures.len(),
            trials.len(),
            first.message
        );
        Self::Fruitless { code, problem }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::space::Point;

    fn failed(code: i32) -> Option<Outcome> {
        let (message, figures) = ("a bug".to_owned(), serde_json::Map::new());
        Some(Outcome { code, message, figures, seconds: 1.0 })
    }

    fn done() -> Option<Outcome> {
        let figures = json!({ "mse": 0.5 }).as_object().unwrap().clone();
        Some(Outcome { code: 0, message: String::new(), figures, seconds: 1.0 })
    }

    fn ending(trials: &[&[Option<Outcome>]]) -> Ending {
        let of = |outcomes: &&[Option<Outcome>]| {
            let outcomes: Vec<_> = outcomes.iter().map(|outcome| vec![outcome.clone()]).collect();
            Trial { point: Point::new(), decided: outcomes.len(), outcomes }
        };
        let trials: Vec<Trial> = trials.iter().map(of).collect();
        Ending::of(&trials, &Metric::default())
    }

    #[test]
    fn one_trial_with_a_figure_is_enough() {
        assert_eq!(ending(&[&[failed(5)], &[done()]]), Ending::Done);
    }

    #[test]
    fn where_all_failed_the_code_is_theirs_if_it_is_one() {
        let code = |trials: &[&[Option<Outcome>]]| match ending(trials) {
            Ending::Fruitless { code, problem } => (code.code(), problem),
            other => panic!("{other:?}"),
        };
        let (numeric, problem) = code(&[&[failed(5)], &[failed(5)]]);
        assert_eq!(numeric, 5);
        assert!(
            problem.starts_with("no trial has a result: 2 of 2 failed, the first with: a bug"),
            "{problem}"
        );
        assert_eq!(code(&[&[failed(5)], &[failed(3)]]).0, 1);
        // Without an evaluation, or stopped by somebody else: no success, though the launcher's code is one.
        assert_eq!((code(&[&[failed(0)]]).0, code(&[&[failed(75)]]).0), (1, 1));
        // Also where they failed further on.
        assert_eq!(code(&[&[done(), failed(5)]]).0, 5);
        // The budget's seconds were over before anything began, or ended.
        assert_eq!(code(&[]).0, 1);
        assert!(code(&[&[None]]).1.contains("budget.seconds"));
    }
}
