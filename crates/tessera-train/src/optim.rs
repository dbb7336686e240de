//! AdamW over one flat parameter buffer, with moments that a checkpoint can hold.
//!
//! Loshchilov and Hutter 2019, <https://arxiv.org/abs/1711.05101>, algorithm 2, in PyTorch's
//! form; `weight_decay = 0` is Adam. tch's optimisers cannot be saved, and step each tensor on
//! its own.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;
use tessera_nn::Parameters;
use tessera_nn::parameters::ParameterId;

/// The `[optimizer]` table: AdamW.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    /// Step size before the schedule's factor, 0 or more.
    pub learning_rate: f64,
    /// Decay of the first moment, in [0, 1).
    pub beta1: f64,
    /// Decay of the second moment, in [0, 1).
    pub beta2: f64,
    /// Added to the root of the second moment, 0 or more.
    pub epsilon: f64,
    /// Decoupled weight decay, 0 or more; 0 is Adam.
    pub weight_decay: f64,
    /// Largest norm of the whole gradient; 0: no clipping.
    pub clip_grad_norm: f64,
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.0,
            clip_grad_norm: 0.0,
        }
    }
}

impl OptimizerConfig {
    pub(crate) fn validate(&self) -> Result<(), String> {
        for (key, value) in [
            ("learning_rate", self.learning_rate),
            ("weight_decay", self.weight_decay),
            ("clip_grad_norm", self.clip_grad_norm),
        ] {
            if !(value >= 0.0 && value.is_finite()) {
                return Err(format!("optimizer.{key} should be 0 or more, found {value}"));
            }
        }
        if !(self.epsilon > 0.0 && self.epsilon.is_finite()) {
            return Err(format!("optimizer.epsilon should be above 0, found {}", self.epsilon));
        }
        for (key, value) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&value) {
                return Err(format!(
                    "optimizer.{key} should be at least 0 and below 1, found {value}"
                ));
            }
        }
        Ok(())
    }
}

/// AdamW with its moments, `[len]` each, laid out like the parameters.
#[derive(Debug)]
pub struct AdamW {
    config: OptimizerConfig,
    /// Moving average of the gradient.
    pub exp_avg: Tensor,
    /// Moving average of its square.
    pub exp_avg_sq: Tensor,
}

impl AdamW {
    /// Moments of zero for parameters like `flat`.
    pub fn new(config: &OptimizerConfig, flat: &Tensor) -> Self {
        Self { config: config.clone(), exp_avg: flat.zeros_like(), exp_avg_sq: flat.zeros_like() }
    }

    /// Step size before the schedule's factor.
    pub fn learning_rate(&self) -> f64 {
        self.config.learning_rate
    }

    /// Sets the moments of these rows (`[K]` bool) of a parameter `[K, ...]` to zero: what they
    /// were moments of is no longer there.
    pub fn forget_rows(&mut self, parameters: &Parameters, id: ParameterId, rows_k: &Tensor) {
        for flat in [&self.exp_avg, &self.exp_avg_sq] {
            let mut moments_kd = parameters.view_in(flat, id);
            let _ = moments_kd.masked_fill_(&rows_k.unsqueeze(1), 0.0);
        }
    }

    /// One step on `flat` with these gradients, whose norm is `norm`; `step` counts from 0. Nothing
    /// is copied to the host.
    pub fn step(
        &mut self,
        step: u64,
        factor: f64,
        flat: &mut Tensor,
        gradients: &Tensor,
        norm: &Tensor,
    ) {
        let OptimizerConfig { beta1, beta2, epsilon, weight_decay, clip_grad_norm, .. } =
            self.config;
        let rate = self.config.learning_rate * factor;
        let clipped;
        let gradients = if clip_grad_norm > 0.0 {
            clipped = gradients * (clip_grad_norm / (norm + 1e-6)).clamp_max(1.0);
            &clipped
        } else {
            gradients
        };
        if weight_decay > 0.0 {
            *flat *= 1.0 - rate * weight_decay;
        }
        let _ = self.exp_avg.lerp_(gradients, 1.0 - beta1);
        let _ = self.exp_avg_sq.lerp_(&gradients.square(), 1.0 - beta2);
        let count = i32::try_from(step + 1).unwrap_or(i32::MAX);
        let (correction1, correction2) = (1.0 - beta1.powi(count), 1.0 - beta2.powi(count));
        let mut denominator = self.exp_avg_sq.sqrt();
        denominator /= correction2.sqrt();
        denominator += epsilon;
        let mut update = &self.exp_avg / denominator;
        update *= rate / correction1;
        *flat -= update;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adamw(config: &OptimizerConfig, steps: u64) -> Vec<f64> {
        let mut flat = Tensor::from_slice(&[1.0f64, -2.0, 0.5]);
        let mut optimizer = AdamW::new(config, &flat);
        for step in 0..steps {
            let gradients = &flat * 2.0 + step as f64 * 0.1;
            optimizer.step(step, 1.0, &mut flat, &gradients, &gradients.norm());
        }
        Vec::try_from(flat).unwrap()
    }

    /// Values from torch.optim.AdamW; `tests/fixtures/adamw.py` makes them.
    #[test]
    fn five_steps_are_those_of_pytorch() {
        let config = OptimizerConfig {
            learning_rate: 0.1,
            weight_decay: 0.01,
            ..OptimizerConfig::default()
        };
        let expected: [f64; 3] = PYTORCH_ADAMW;
        for (found, expected) in adamw(&config, 5).into_iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
    }

    /// By hand: the first step of Adam moves each parameter by rate * g / (|g| + eps), whatever
    /// the size of g, so clipping changes it by eps alone.
    #[test]
    fn clipping_scales_the_gradient_by_its_norm() {
        let config = OptimizerConfig { clip_grad_norm: 1.0, ..OptimizerConfig::default() };
        let mut flat = Tensor::from_slice(&[0.0f64, 0.0]);
        let mut optimizer = AdamW::new(&config, &flat);
        let gradients = Tensor::from_slice(&[30.0f64, 40.0]);
        optimizer.step(0, 1.0, &mut flat, &gradients, &gradients.norm());
        // (1 - 0.9) * 30 / 50, up to the 1e-6 in the divisor.
        assert!((optimizer.exp_avg.double_value(&[0]) - 0.06).abs() < 1e-8);
    }

    const PYTORCH_ADAMW: [f64; 3] = [0.4990213840066041, -1.4962740177385871, 0.006478474410055404];
}
