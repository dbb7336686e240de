//! From logits to one code: what is left of a distribution, and a draw from it by one uniform number.
//!
//! All of it is arithmetic in float64 on the host, in one order: repetition, temperature, the k likeliest, the nucleus
//! (Holtzman et al. 2019, <https://arxiv.org/abs/1904.09751>), the least probability beside the largest. Ties go to the
//! lower index throughout.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is left of a distribution over codes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Filter {
    /// What logits are divided by, 0 or more; 0: the likeliest code, always.
    pub temperature: f64,
    /// How many of the likeliest codes are left; 0: all.
    pub top_k: i64,
    /// Codes are left, the likeliest first, as long as those before have less than this part together; above 0, at most
    /// 1.
    pub top_p: f64,
    /// Codes are left that have this part of the largest probability at least; from 0 to 1.
    pub min_p: f64,
    /// What positive logits of codes that a sample already has in this level are divided by, and negative ones multiplied
    /// by; above 0, and 1 for no effect.
    pub repetition: f64,
}

impl Default for Filter {
    fn default() -> Self {
        Self { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition: 1.0 }
    }
}

impl Filter {
    /// What is wrong with the values, if anything.
    ///
    /// # Errors
    ///
    /// One line that names the key and says what it may be.
    pub fn validate(&self) -> Result<(), String> {
        let Self { temperature, top_k, top_p, min_p, repetition } = *self;
        let is_finite = |value: f64, least: f64| value >= least && value.is_finite();
        let (key, range, found) = if !is_finite(temperature, 0.0) {
            ("temperature", "0 or more", temperature)
        } else if top_k < 0 {
            ("top_k", "0 or more", top_k as f64)
        } else if !(top_p > 0.0 && top_p <= 1.0) {
            ("top_p", "above 0 and at most 1", top_p)
        } else if !(0.0..=1.0).contains(&min_p) {
            ("min_p", "from 0 to 1", min_p)
        } else if !(is_finite(repetition, 0.0) && repetition > 0.0) {
            ("repetition", "above 0", repetition)
        } else {
            return Ok(());
        };
        Err(format!("{key} should be {range}, found {found}"))
    }

    /// Weights of codes, not brought to a sum of 1, of their logits. `is_used` says which codes the sample already has.
    ///
    /// # Panics
    ///
    /// If there is no logit.
    pub fn weights(&self, logits: &[f64], is_used: Option<&[bool]>) -> Vec<f64> {
        let mut logits = logits.to_vec();
        if let Some(is_used) = is_used.filter(|_| self.repetition != 1.0) {
            for (logit, _) in logits.iter_mut().zip(is_used).filter(|(_, is_used)| **is_used) {
                *logit =
                    if *logit < 0.0 { *logit * self.repetition } else { *logit / self.repetition };
            }
        }
        let mut weights = vec![0.0; logits.len()];
        let largest = largest(&logits);
        if self.temperature == 0.0 {
            weights[largest] = 1.0;
            return weights;
        }
        let of = |code: usize| ((logits[code] - logits[largest]) / self.temperature).exp();
        let mut kept: Vec<usize> = (0..logits.len()).collect();
        let likelier = |one: &usize, other: &usize| {
            logits[*other].total_cmp(&logits[*one]).then(one.cmp(other))
        };
        let top_k = self.top_k as usize;
        if (1..kept.len()).contains(&top_k) {
            kept.select_nth_unstable_by(top_k - 1, likelier);
            kept.truncate(top_k);
        }
        if self.top_p < 1.0 {
            kept.sort_unstable_by(likelier);
            let total: f64 = kept.iter().map(|&code| of(code)).sum();
            let mut before = 0.0;
            kept.retain(|&code| {
                let is_left = before < self.top_p * total;
                before += of(code);
                is_left
            });
        }
        for code in kept {
            let weight = of(code);
            // The largest weight is exp(0).
            if weight >= self.min_p {
                weights[code] = weight;
            }
        }
        weights
    }
}

/// The first of the largest.
fn largest(logits: &[f64]) -> usize {
    let mut largest = 0;
    for (code, logit) in logits.iter().enumerate() {
        if *logit > logits[largest] {
            largest = code;
        }
    }
    largest
}

/// The first code whose weight, with those before it, is more than `unit` times that of all.
///
/// * `unit`: uniform in [0, 1).
pub fn pick(weights: &[f64], unit: f64) -> usize {
    let wanted = unit * weights.iter().sum::<f64>();
    let (mut sum, mut last) = (0.0, 0);
    for (code, &weight) in weights.iter().enumerate() {
        sum += weight;
        if sum > wanted {
            return code;
        }
        if weight > 0.0 {
            last = code;
        }
    }
    // The product was rounded up to the sum.
    last
}

/// ln of the softmax of logits at a code.
pub(in crate::prior) fn likelihood(logits: &[f64], code: usize) -> f64 {
    let most = logits[largest(logits)];
    logits[code] - most - logits.iter().map(|logit| (logit - most).exp()).sum::<f64>().ln()
}
