//! How large a model is, and what a sample costs: told at the start and by `tessera inspect`.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use tessera_nn::Parameters;
use tessera_nn::cost::Cost;

use crate::config::groups::{ALL, name};

/// Parameters of each part, and what a sample costs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sizes {
    /// Trainable numbers of each part that has some, frozen ones included.
    pub parameters: BTreeMap<&'static str, i64>,
    /// What a sample costs, where that is known.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub sample: Option<SampleCost>,
}

/// What a sample costs, quantisers, losses and critics left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct SampleCost {
    /// Floating-point operations forward, two for a multiplication and an addition; backward has about twice as many.
    pub flops: u64,
    /// Bytes that layers keep for the backward pass.
    pub activation_bytes: u64,
    /// The same with `train.recompute`, at most.
    pub recomputed_bytes: u64,
}

impl Sizes {
    /// Those of these parameters, without what a sample costs.
    pub fn of(parameters: &Parameters) -> Self {
        let of_stage = ALL.into_iter().map(|stage| (name(stage), parameters.num_of(stage)));
        Self { parameters: of_stage.filter(|(_, num)| *num > 0).collect(), sample: None }
    }

    /// The same with what a sample costs, in the kind that the layers compute in.
    #[must_use]
    pub fn with_cost(self, cost: Cost, parameters: &Parameters) -> Self {
        let bytes = parameters.compute_kind().elt_size_in_bytes() as u64;
        let sample = SampleCost {
            flops: cost.flops,
            activation_bytes: cost.activations * bytes,
            recomputed_bytes: cost.recomputed * bytes,
        };
        Self { sample: Some(sample), ..self }
    }
}

/// In a line, for people.
impl fmt::Display for Sizes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = self.parameters.iter().map(|(part, num)| format!("{part} {}", grouped(*num)));
        let parts: Vec<String> = parts.collect();
        let all = grouped(self.parameters.values().sum());
        write!(formatter, "{all} parameters ({})", parts.join(", "))?;
        let Some(sample) = self.sample else { return Ok(()) };
        let mega = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        write!(
            formatter,
            "; a sample takes {:.4} GFLOP forward and keeps {:.2} MiB for the way back, {:.2} with train.recompute",
            sample.flops as f64 / 1e9,
            mega(sample.activation_bytes),
            mega(sample.recomputed_bytes)
        )
    }
}

/// Digits in groups of three.
fn grouped(number: i64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: 3 + 1,234,567 parameters; 2.5e9 operations; 3 and 1.5 MiB.
    #[test]
    fn sizes_are_told_in_a_line() {
        let sample = SampleCost {
            flops: 2_500_000_000,
            activation_bytes: 3 << 20,
            recomputed_bytes: 3 << 19,
        };
        let parameters = BTreeMap::from([("encoder", 1_234_567), ("decoder", 3)]);
        let sizes = Sizes { parameters, sample: Some(sample) };
        assert_eq!(
            sizes.to_string(),
            "1,234,570 parameters (decoder 3, encoder 1,234,567); a sample takes 2.5000 GFLOP forward and keeps \
             3.00 MiB for the way back, 1.50 with train.recompute"
        );
        assert_eq!(["0", "999", "1,000"], [0, 999, 1000].map(grouped));
    }
}
