//! Which checkpoints are kept.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::manifest::Manifest;

/// Which checkpoints are kept. The newest one, just verified, always is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// The newest ones, at least 1.
    pub last: u64,
    /// Not 0: those of steps that are multiples of this.
    pub every: u64,
    /// The best ones by an evaluation after the same step.
    pub best: u64,
    /// What "best" means.
    pub metric: BestMetric,
}

/// A figure of an evaluation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BestMetric {
    /// Mean squared error: the lowest.
    #[default]
    Mse,
    /// Peak signal-to-noise ratio: the highest.
    Psnr,
    /// Structural similarity: the highest.
    Ssim,
    /// Perplexity of the codes: the highest.
    Perplexity,
    /// With `task = "probe"`, part of the samples whose class was found: the highest.
    Accuracy,
    /// With `task = "probe"`, cross-entropy of the classes: the lowest.
    CrossEntropy,
    /// With `task = "prior"`, nats a token: the lowest.
    NatsPerToken,
}

impl BestMetric {
    /// What an evaluation says of it, turned so that less is better.
    fn of(self, evaluation: &Value) -> Option<f64> {
        let (key, sign) = match self {
            Self::Mse => ("mse", 1.0),
            Self::Psnr => ("psnr", -1.0),
            Self::Ssim => ("ssim", -1.0),
            Self::Perplexity => ("perplexity", -1.0),
            Self::Accuracy => ("accuracy", -1.0),
            Self::CrossEntropy => ("cross_entropy", 1.0),
            Self::NatsPerToken => ("nats_per_token", 1.0),
        };
        evaluation.get(key)?.as_f64().filter(|value| value.is_finite()).map(|value| sign * value)
    }
}

impl Retention {
    /// The steps of those among `all`, oldest first, that need not be kept.
    pub(crate) fn expired(&self, all: &[(u64, PathBuf)]) -> Vec<u64> {
        let metric = |path: &PathBuf| {
            let manifest = Manifest::read(path).ok()?;
            manifest.evaluation.and_then(|evaluation| self.metric.of(&evaluation))
        };
        let measured: Vec<(u64, Option<f64>)> = all
            .iter()
            .map(|(step, path)| (*step, if self.best > 0 { metric(path) } else { None }))
            .collect();
        self.choose(&measured)
    }

    /// Of steps with what an evaluation said of each (less is better), those to remove.
    fn choose(&self, all: &[(u64, Option<f64>)]) -> Vec<u64> {
        let mut best: Vec<(f64, u64)> =
            all.iter().filter_map(|&(step, metric)| Some((metric?, step))).collect();
        best.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        best.truncate(self.best as usize);
        let newest = all.len().saturating_sub(self.last.max(1) as usize);
        all[..newest]
            .iter()
            .map(|&(step, _)| step)
            .filter(|step| self.every == 0 || !step.is_multiple_of(self.every))
            .filter(|step| best.iter().all(|(_, kept)| kept != step))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retention(last: u64, every: u64, best: u64) -> Retention {
        Retention { last, every, best, metric: BestMetric::Mse }
    }

    #[test]
    fn the_last_the_nth_and_the_best_stay() {
        let all = [(10, Some(0.5)), (20, Some(0.1)), (30, None), (40, Some(0.3)), (50, Some(0.2))];
        assert_eq!(retention(2, 0, 0).choose(&all), [10, 20, 30]);
        assert_eq!(retention(1, 30, 0).choose(&all), [10, 20, 40]);
        assert_eq!(retention(1, 0, 1).choose(&all), [10, 30, 40]);
        assert_eq!(retention(1, 0, 3).choose(&all), [10, 30]);
        assert_eq!(retention(9, 0, 0).choose(&all), [0; 0]);
        // The newest is what a resume needs, whatever the numbers say.
        assert_eq!(retention(0, 0, 0).choose(&all), [10, 20, 30, 40]);
        assert_eq!(retention(0, 0, 0).choose(&[]), [0; 0]);
    }

    #[test]
    fn higher_is_better_for_psnr() {
        let evaluation = serde_json::json!({"mse": 0.25, "psnr": 6.0, "ssim": null});
        assert_eq!(BestMetric::Mse.of(&evaluation), Some(0.25));
        assert_eq!(BestMetric::Psnr.of(&evaluation), Some(-6.0));
        assert_eq!(BestMetric::Ssim.of(&evaluation), None);
    }
}
