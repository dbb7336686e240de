//! Drawing samples from a prior.
//!
//! One uniform number a token, keyed by (seed, sample id, token), and for a masked prior by the pass: what is drawn for a
//! sample depends neither on its place in a batch nor on the other samples. Logits depend on the number of samples in the
//! last bits, so whoever wants the same bytes always computes with the same number of them at once.
//!
//! Guidance (Ho and Salimans 2022, <https://arxiv.org/abs/2207.12598>) mixes logits with class, c, and without, u, as
//! u + s (c - u): 1 is none. Both are rows of one batch.

mod drawing;
mod filter;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

pub(super) use self::drawing::{Drawing, Logits};
pub(super) use self::filter::likelihood;
pub use self::filter::{Filter, pick};
use super::Prior;

/// How samples are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Sampling {
    /// What is left of each distribution.
    pub filter: Filter,
    /// How much more a class counts than it does by itself.
    pub guidance: Guidance,
    /// Passes of a masked prior, 1 or more; without effect on an autoregressive one.
    pub steps: i64,
    /// How much chance there is in which tokens a masked prior keeps, 0 or more; it falls to 0 with the passes.
    pub choice: f64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { filter: Filter::default(), guidance: Guidance::default(), steps: 12, choice: 4.5 }
    }
}

/// Classifier-free guidance.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Guidance {
    /// s of u + s (c - u): 1 is without guidance, 0 without class.
    pub scale: f64,
    /// How it changes over the steps of the sequence, or over the passes of a masked prior.
    pub schedule: GuidanceSchedule,
    /// With `schedule = "power"`, p of 1 + (s - 1) (1 - cos(pi (t / T)^p)) / 2; above 0.
    pub power: f64,
    /// How many steps or passes are guided, the first ones; 0: all.
    pub first: i64,
}

impl Default for Guidance {
    fn default() -> Self {
        Self { scale: 1.0, schedule: GuidanceSchedule::Constant, power: 2.75, first: 0 }
    }
}

/// How guidance changes from the first of T steps or passes to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum GuidanceSchedule {
    /// s.
    Constant,
    /// 1 + (s - 1) t / (T - 1).
    Linear,
    /// As RAR (<https://arxiv.org/abs/2411.00776>) has it.
    Power,
}

impl Guidance {
    /// Whether logits without class are needed.
    pub fn is_on(&self) -> bool {
        self.scale != 1.0
    }

    /// s of step or pass `at` of `num`.
    pub fn at(&self, at: i64, num: i64) -> f64 {
        if self.first > 0 && at >= self.first {
            return 1.0;
        }
        let part = match self.schedule {
            GuidanceSchedule::Constant => return self.scale,
            GuidanceSchedule::Linear if num == 1 => 1.0,
            GuidanceSchedule::Linear => at as f64 / (num - 1) as f64,
            GuidanceSchedule::Power => {
                let turn = (at as f64 / num as f64).powf(self.power) * std::f64::consts::PI;
                (1.0 - turn.cos()) / 2.0
            }
        };
        1.0 + (self.scale - 1.0) * part
    }
}

/// Which samples are drawn.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What the draws are keyed by, with the ids.
    pub seed: u64,
    /// Ids of the samples, N of them.
    pub ids: &'a [u64],
    /// The class of each, `[N]` int64, -1: none; left out: no sample has one.
    pub classes_n: Option<&'a Tensor>,
    /// Tokens that are given, `[N, T]` int64, -1: to be drawn; left out: none is given.
    pub known_nt: Option<&'a Tensor>,
}

/// Samples that were drawn, on the CPU.
#[derive(Debug)]
pub struct Samples {
    /// `[N, T]` int64, level after level.
    pub tokens_nt: Tensor,
    /// `[N, T]` float64: -ln p of each token where it was drawn, after guidance and before all filters; 0 where it was
    /// given.
    pub nats_nt: Tensor,
}

/// A value that is to be said while a prior goes through samples: a code, or a part of one.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'a> {
    /// Number of the sample.
    pub row: usize,
    /// Its logits, of all values that it may have.
    pub logits: &'a [f64],
    /// The value, where its token is given.
    pub given: Option<usize>,
}

/// How a prior goes through samples.
pub struct Walk<'a> {
    /// Says each value.
    pub choose: &'a mut dyn FnMut(Choice<'_>) -> usize,
    /// Steps after which it ends, all samples together; none: after the last one.
    pub steps: Option<i64>,
}

/// How many of `num_hidden` tokens each pass of a masked prior reveals.
pub fn tokens_revealed(num_hidden: usize, steps: i64) -> Vec<usize> {
    let mut hidden = num_hidden;
    let mut revealed = |at: i64| {
        let again = num_hidden_again(at, steps, hidden, num_hidden);
        std::mem::replace(&mut hidden, again) - again
    };
    (0..steps).map(&mut revealed).collect()
}

/// How many tokens are hidden again after pass `at` of `steps`, of those that are hidden now, and were at the start.
pub(super) fn num_hidden_again(at: i64, steps: i64, hidden: usize, at_start: usize) -> usize {
    if at + 1 == steps || hidden == 0 {
        return 0;
    }
    let done = (at + 1) as f64 / steps as f64;
    let wanted = at_start as f64 * (std::f64::consts::FRAC_PI_2 * done).cos();
    (wanted.floor() as usize).min(hidden - 1).max(1)
}

impl Prior {
    /// Draws samples, for a request that is [good](Self::check_request). Tokens that are given stay as they are.
    pub fn sample(&self, sampling: &Sampling, request: &Request<'_>) -> Samples {
        tch::no_grad(|| self.scheme.sample(&self.parameters, sampling, request))
    }

    /// Goes through samples token by token, as [`Self::sample`] does, and lets somebody else say each value, those of given tokens
    /// too: what an entropy coder does, which writes given values and, the other way round, reads them. The same request in a
    /// batch as large gives the same logits, as long as the same values are said. Tokens `[N, T]` int64, level after level; none of
    /// a masked prior, which has no order.
    pub fn walk(&self, request: &Request<'_>, walk: Walk<'_>) -> Option<Tensor> {
        let walked = tch::no_grad(|| self.scheme.walk(&self.parameters, request, walk));
        walked.map(|samples| samples.tokens_nt)
    }

    /// What is wrong with a request, if anything.
    ///
    /// # Errors
    ///
    /// One line that says what it may be.
    pub fn check_request(&self, sampling: &Sampling, request: &Request<'_>) -> Result<(), String> {
        sampling.filter.validate()?;
        let Sampling { guidance, steps, choice, .. } = *sampling;
        if steps < 1 {
            return Err(format!("steps should be 1 or more, found {steps}"));
        }
        if !(choice >= 0.0 && choice.is_finite()) {
            return Err(format!("choice should be 0 or more, found {choice}"));
        }
        let Guidance { scale, power, first, .. } = guidance;
        let is_good = scale.is_finite() && power > 0.0 && power.is_finite() && first >= 0;
        if !is_good {
            return Err(format!(
                "guidance should have a finite scale, a power above 0 and 0 or more first ones, found {guidance:?}"
            ));
        }
        if sampling.filter.repetition != 1.0 && self.scheme.num_parts() > 1 {
            return Err(
                "repetition should be 1 for a prior whose codes are drawn in parts".to_owned()
            );
        }
        if guidance.is_on() && self.codes.num_classes == 0 {
            return Err("guidance.scale should be 1 for a prior without classes".to_owned());
        }
        let num = request.ids.len() as i64;
        if let Some(classes_n) = request.classes_n {
            let classes: Vec<i64> = Vec::try_from(classes_n.to_device(Device::Cpu))
                .map_err(|_| "classes should be whole numbers on one axis".to_owned())?;
            let range = -1..self.codes.num_classes;
            if classes.len() as i64 != num || !classes.iter().all(|class| range.contains(class)) {
                return Err(format!(
                    "classes should be {num} numbers from -1 (none) to {}, found {classes:?}",
                    range.end - 1
                ));
            }
        }
        let Some(known_nt) = request.known_nt else { return Ok(()) };
        let wanted = [num, self.codes.num_tokens()];
        if known_nt.size() != wanted {
            return Err(format!("given tokens should be {wanted:?}, found {:?}", known_nt.size()));
        }
        let known = whole_numbers(known_nt);
        for row in known.chunks(wanted[1] as usize) {
            for (level, start) in self.codes.levels.iter().zip(self.codes.starts()) {
                let of_level = &row[start as usize..(start + level.num_positions()) as usize];
                let range = -1..level.num_codes;
                if let Some(code) = of_level.iter().find(|code| !range.contains(code)) {
                    return Err(format!(
                        "given tokens should be -1 (to be drawn) to {}, found {code}",
                        range.end - 1
                    ));
                }
            }
            self.scheme.check_known(row)?;
        }
        Ok(())
    }
}

fn whole_numbers(tensor: &Tensor) -> Vec<i64> {
    let flat = tensor.to_kind(Kind::Int64).to_device(Device::Cpu).reshape([-1]);
    Vec::try_from(flat).expect("int64 numbers on one axis")
}
