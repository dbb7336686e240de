//! AdamW over one flat parameter buffer, with moments that a checkpoint can hold.
//!
//! Loshchilov and Hutter 2019, <https://arxiv.org/abs/1711.05101>, algorithm 2, in PyTorch's
//! form; `weight_decay = 0` is Adam. tch's optimisers cannot be saved, and step each tensor on
//! its own.
//!
//! Weights of layers decay; biases, norms and codes do not ([`Parameters::decayed`]). A parameter
//! that rests in a step (a level of a residual quantiser that the step leaves out) keeps its value
//! and its moments, and the step does not count for it: as in PyTorch where it has no gradient.

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
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
    /// Decoupled weight decay of the weights of layers, 0 or more; 0 is Adam. Biases, norms and
    /// codebooks do not decay.
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
    /// Steps that each parameter has taken, `[P]`, float64 on the host: what the moments' bias is
    /// corrected by. A step that was skipped is none.
    pub updates: Tensor,
    /// The elements of each parameter.
    ranges: Vec<Range<i64>>,
    /// 1 where weights decay, `[len]`; without decay there is no need for it.
    decayed: Option<Tensor>,
}

impl AdamW {
    /// Moments of zero for these parameters.
    pub fn new(config: &OptimizerConfig, parameters: &Parameters) -> Self {
        let (flat, ranges) = (parameters.flat(), parameters.ranges());
        Self {
            config: config.clone(),
            exp_avg: flat.zeros_like(),
            exp_avg_sq: flat.zeros_like(),
            updates: Tensor::zeros([ranges.len() as i64], (Kind::Double, Device::Cpu)),
            ranges,
            decayed: (config.weight_decay > 0.0).then(|| parameters.decayed()),
        }
    }

    /// Whether any parameter has taken a step.
    pub fn has_begun(&self) -> bool {
        self.updates.gt(0.0).any().int64_value(&[]) != 0
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

    /// One step on `flat` with these gradients, whose norm is `norm`. The parameters in the ranges
    /// of `at_rest` stay as they are, in all. Nothing is copied from the device to the host.
    pub fn step(
        &mut self,
        factor: f64,
        flat: &Tensor,
        gradients: &Tensor,
        norm: &Tensor,
        at_rest: &[Range<i64>],
    ) {
        let clip_grad_norm = self.config.clip_grad_norm;
        let clipped;
        let gradients = if clip_grad_norm > 0.0 {
            clipped = gradients * (clip_grad_norm / (norm + 1e-6)).clamp_max(1.0);
            &clipped
        } else {
            gradients
        };
        for (range, count) in self.runs(at_rest) {
            self.step_range(factor, range, count, flat, gradients);
        }
    }

    /// Counts this step for every parameter that does not rest; their elements in as few ranges as
    /// there can be, each with its number of updates.
    fn runs(&mut self, at_rest: &[Range<i64>]) -> Vec<(Range<i64>, f64)> {
        let mut counts: Vec<f64> = Vec::try_from(&self.updates).expect("numbers on the host");
        let mut runs: Vec<(Range<i64>, f64)> = Vec::new();
        for (range, count) in self.ranges.iter().zip(&mut counts) {
            if at_rest.iter().any(|rest| rest.contains(&range.start)) {
                continue;
            }
            *count += 1.0;
            match runs.last_mut() {
                Some((last, same)) if last.end == range.start && same == count => {
                    last.end = range.end;
                }
                _ => runs.push((range.clone(), *count)),
            }
        }
        self.updates.copy_(&Tensor::from_slice(&counts));
        runs
    }

    /// The step of elements that have taken `count` with this one.
    fn step_range(
        &self,
        factor: f64,
        range: Range<i64>,
        count: f64,
        flat: &Tensor,
        gradients: &Tensor,
    ) {
        let OptimizerConfig { beta1, beta2, epsilon, weight_decay, .. } = self.config;
        let rate = self.config.learning_rate * factor;
        let of = |all: &Tensor| all.narrow(0, range.start, range.end - range.start);
        let (mut flat, gradients) = (of(flat), of(gradients));
        let (mut exp_avg, mut exp_avg_sq) = (of(&self.exp_avg), of(&self.exp_avg_sq));
        if let Some(decayed) = &self.decayed {
            flat *= of(decayed) * (-rate * weight_decay) + 1.0;
        }
        let _ = exp_avg.lerp_(&gradients, 1.0 - beta1);
        let _ = exp_avg_sq.lerp_(&gradients.square(), 1.0 - beta2);
        let count = count.min(f64::from(i32::MAX)) as i32;
        let (correction1, correction2) = (1.0 - beta1.powi(count), 1.0 - beta2.powi(count));
        let mut denominator = exp_avg_sq.sqrt();
        denominator /= correction2.sqrt();
        denominator += epsilon;
        let mut update = exp_avg / denominator;
        update *= rate / correction1;
        flat -= update;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tessera_nn::Kinds;
    use tessera_nn::parameters::{Declarations, Init, Role, Stage};

    /// A weight `[3, 1]`, a bias and codes `[3, 1]`, all of these values.
    fn parameters(values: [f64; 3]) -> Parameters {
        let (mut to, init) = (Declarations::default(), Init::Uniform(1.0));
        let ids = [
            to.declare("codes".into(), &[3, 1], Stage::Quantizer, Role::Codebook, init),
            to.declare("weight".into(), &[3, 1], Stage::Encoder, Role::Weight, init),
            to.declare("bias".into(), &[3], Stage::Encoder, Role::Bias, init),
        ];
        let parameters = to.allocate(0, Kinds::same(Kind::Double), Device::Cpu);
        for id in ids {
            let mut place = parameters.master(id);
            place.copy_(&Tensor::from_slice(&values).view_as(&place));
        }
        parameters
    }

    /// The values of codes, weight and bias.
    fn values(parameters: &Parameters) -> Vec<Vec<f64>> {
        let views = parameters.named_views(parameters.flat());
        views.map(|(_, view)| Vec::try_from(view.flatten(0, -1)).unwrap()).collect()
    }

    /// A step in which nothing rests.
    const AWAKE: &[Range<i64>] = &[];

    /// Steps on the gradient 2 x + step / 10, with what rests in each.
    fn train(optimizer: &mut AdamW, parameters: &Parameters, rests: &[&[Range<i64>]]) {
        for (step, at_rest) in rests.iter().enumerate() {
            let flat = parameters.flat();
            let gradients = flat * 2.0 + step as f64 * 0.1;
            optimizer.step(1.0, flat, &gradients, &gradients.norm(), at_rest);
        }
    }

    /// Values from torch.optim.AdamW; `tests/fixtures/adamw.py` makes them.
    #[test]
    fn five_steps_are_those_of_pytorch() {
        let config = OptimizerConfig {
            learning_rate: 0.1,
            weight_decay: 0.01,
            ..OptimizerConfig::default()
        };
        let parameters = parameters([1.0, -2.0, 0.5]);
        let mut optimizer = AdamW::new(&config, &parameters);
        train(&mut optimizer, &parameters, &[AWAKE; 5]);
        for (found, expected) in values(&parameters)[1].iter().zip(PYTORCH_ADAMW) {
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        assert_eq!(optimizer.updates, Tensor::from_slice(&[5.0; 3]));
    }

    /// Codes and biases are what they are without decay, bit for bit; weights are not.
    #[test]
    fn weights_of_layers_decay_and_nothing_else() {
        let [with, without] = [0.1, 0.0].map(|weight_decay| {
            let parameters = parameters([1.0, -2.0, 0.5]);
            let config = OptimizerConfig { weight_decay, ..OptimizerConfig::default() };
            train(&mut AdamW::new(&config, &parameters), &parameters, &[AWAKE; 3]);
            values(&parameters)
        });
        assert_eq!((&with[0], &with[2]), (&without[0], &without[2]));
        for (decayed, plain) in with[1].iter().zip(&without[1]) {
            assert!(decayed.abs() < plain.abs(), "{with:?} {without:?}");
        }
    }

    /// The codes rest in the middle two of four steps. Everything of them stays bit for bit, and
    /// the last step is their second: that of a run of two steps with these two gradients.
    #[test]
    fn what_rests_stays_as_it_is_and_counts_no_step() {
        let config = OptimizerConfig { weight_decay: 0.1, ..OptimizerConfig::default() };
        let codes = [parameters([0.0; 3]).ranges()[0].clone()];
        let ours = parameters([1.0, -2.0, 0.5]);
        let mut optimizer = AdamW::new(&config, &ours);
        train(&mut optimizer, &ours, &[AWAKE]);
        let of_codes = |optimizer: &AdamW, parameters: &Parameters| {
            let moments = [&optimizer.exp_avg, &optimizer.exp_avg_sq, parameters.flat()];
            moments.map(|flat| flat.narrow(0, 0, 16).copy())
        };
        let before = of_codes(&optimizer, &ours);
        train(&mut optimizer, &ours, &[&codes, &codes]);
        assert_eq!(of_codes(&optimizer, &ours), before);
        assert_eq!(optimizer.updates, Tensor::from_slice(&[1.0, 3.0, 3.0]));
        train(&mut optimizer, &ours, &[AWAKE]);

        let theirs = parameters([1.0, -2.0, 0.5]);
        let mut of_two = AdamW::new(&config, &theirs);
        train(&mut of_two, &theirs, &[AWAKE]);
        train(&mut of_two, &theirs, &[AWAKE]);
        assert_eq!(of_codes(&optimizer, &ours), of_codes(&of_two, &theirs));
        assert_ne!(values(&ours)[1], values(&theirs)[1], "the weight has taken four");
    }

    /// By hand: the first step of Adam moves each parameter by rate * g / (|g| + eps), whatever
    /// the size of g, so clipping changes it by eps alone.
    #[test]
    fn clipping_scales_the_gradient_by_its_norm() {
        let config = OptimizerConfig { clip_grad_norm: 1.0, ..OptimizerConfig::default() };
        let parameters = parameters([0.0; 3]);
        let mut optimizer = AdamW::new(&config, &parameters);
        let gradients = parameters.flat().zeros_like();
        gradients.narrow(0, 0, 2).copy_(&Tensor::from_slice(&[30.0, 40.0]));
        optimizer.step(1.0, parameters.flat(), &gradients, &gradients.norm(), &[]);
        // (1 - 0.9) * 30 / 50, up to the 1e-6 in the divisor.
        assert!((optimizer.exp_avg.double_value(&[0]) - 0.06).abs() < 1e-8);
    }

    const PYTORCH_ADAMW: [f64; 3] = [0.4990213840066041, -1.4962740177385871, 0.006478474410055404];
}
