//! AdamW over one flat parameter buffer, with moments that a checkpoint can hold.
//!
//! Loshchilov and Hutter 2019, <https://arxiv.org/abs/1711.05101>, algorithm 2, in PyTorch's
//! form; `weight_decay = 0` is Adam. tch's optimisers cannot be saved, and step each tensor on
//! its own.
//!
//! Each stage of a model is a group with rate, decay and schedule of its own ([`GroupsConfig`]); frozen ones are not seen
//! here. Weights of layers decay; biases, norms, positions and codes do not, unless their group says so. A parameter
//! that rests in a step keeps its value and its moments, and the step does not count for it: as in PyTorch where it has
//! no gradient.

use std::ops::Range;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};
use tessera_nn::parameters::{ParameterId, Stage, Trained};
use tessera_nn::{Parameters, fused};

use super::clip::Norms;
use super::schedule::ScheduleConfig;
use crate::config::groups::GroupsConfig;

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
    /// Decoupled weight decay of the weights of layers, 0 or more; 0 is Adam. Biases, norms,
    /// positions and codebooks do not decay, unless their group says so.
    pub weight_decay: f64,
    /// Largest norm of the whole gradient, a critic's apart; 0: no clipping.
    pub clip_grad_norm: f64,
    /// Parts of the model with settings of their own.
    pub groups: GroupsConfig,
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
            groups: GroupsConfig::default(),
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

/// AdamW with its moments, each a [trained buffer](Parameters::trained_len).
#[derive(Debug)]
pub struct AdamW {
    clip_grad_norm: f64,
    /// Steps of the run.
    steps: u64,
    /// Moving average of the gradient.
    pub exp_avg: Tensor,
    /// Moving average of its square.
    pub exp_avg_sq: Tensor,
    /// Steps that each trained parameter has taken, `[P]`, float64 on the host: what the moments' bias is
    /// corrected by. A step that was skipped is none. Where the task alone moves its state, the steps it has taken.
    pub updates: Tensor,
    /// Each trained parameter, with the number of its group.
    parameters: Vec<(Trained, usize)>,
    /// The groups that are trained, in order.
    groups: Vec<(Stage, Group)>,
    /// 1 where weights decay, a trained buffer; without decay there is no need for it.
    decayed: Option<Tensor>,
}

/// What the parameters of a group have in common.
#[derive(Debug, Clone, PartialEq)]
struct Group {
    learning_rate: f64,
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    weight_decay: f64,
    schedule: ScheduleConfig,
}

impl Group {
    fn new(all: &OptimizerConfig, schedule: &ScheduleConfig, stage: Stage) -> Self {
        let own = all.groups.of(stage);
        Self {
            learning_rate: own.learning_rate.unwrap_or(all.learning_rate),
            beta1: own.beta1.unwrap_or(all.beta1),
            beta2: own.beta2.unwrap_or(all.beta2),
            epsilon: all.epsilon,
            weight_decay: own.weight_decay.unwrap_or(all.weight_decay),
            schedule: own.schedule.as_ref().unwrap_or(schedule).clone(),
        }
    }

    fn rate(&self, step: u64, steps: u64) -> f64 {
        self.learning_rate * self.schedule.factor(step, steps)
    }
}

/// Parameters that lie side by side, are of groups that are the same, and have taken as many steps.
struct Run<'a> {
    /// Their elements in the flat parameters.
    range: Range<i64>,
    /// The first of them in a trained buffer.
    start: i64,
    group: &'a Group,
    count: f64,
}

impl AdamW {
    /// Moments of zero for the parameters that are trained, in a run of so many steps.
    pub fn new(
        config: &OptimizerConfig,
        schedule: &ScheduleConfig,
        steps: u64,
        parameters: &Parameters,
    ) -> Self {
        let trained = parameters.trained();
        let stages = parameters.stages().into_iter().filter(|stage| parameters.trains(*stage));
        let groups: Vec<_> =
            stages.map(|stage| (stage, Group::new(config, schedule, stage))).collect();
        let moments = || {
            let flat = parameters.flat();
            Tensor::zeros([parameters.trained_len()], (flat.kind(), flat.device()))
        };
        let does_decay = groups.iter().any(|(_, group)| group.weight_decay > 0.0);
        let decayed = does_decay.then(|| {
            let decayed = moments();
            for Trained { range, start, stage, role } in &trained {
                if config.groups.of(*stage).decays.includes(*role) {
                    let _ = decayed.narrow(0, *start, range.end - range.start).fill_(1.0);
                }
            }
            decayed
        });
        let number = |stage| groups.iter().position(|(other, _)| *other == stage);
        let with_group = |trained: Trained| {
            let group = number(trained.stage).expect("what is trained has a group");
            (trained, group)
        };
        Self {
            clip_grad_norm: config.clip_grad_norm,
            steps,
            exp_avg: moments(),
            exp_avg_sq: moments(),
            updates: Tensor::zeros([trained.len().max(1) as i64], (Kind::Double, Device::Cpu)),
            parameters: trained.into_iter().map(with_group).collect(),
            groups,
            decayed,
        }
    }

    /// Whether any parameter has taken a step.
    pub fn has_begun(&self) -> bool {
        self.count() > 0.0
    }

    /// Steps that were taken.
    pub(crate) fn count(&self) -> f64 {
        self.updates.max().double_value(&[])
    }

    /// The learning rate of each group in the step with this index, from 0.
    pub fn rates(&self, step: u64) -> Vec<(Stage, f64)> {
        self.groups.iter().map(|(stage, group)| (*stage, group.rate(step, self.steps))).collect()
    }

    /// Sets the moments of these rows (`[K]` bool) of a parameter `[K, ...]` to zero: what they
    /// were moments of is no longer there.
    pub fn forget_rows(&mut self, parameters: &Parameters, id: ParameterId, rows_k: &Tensor) {
        for moments in [&self.exp_avg, &self.exp_avg_sq] {
            if let Some(mut moments_kd) = parameters.trained_view(moments, id) {
                let _ = moments_kd.masked_fill_(&rows_k.unsqueeze(1), 0.0);
            }
        }
    }

    /// The step with this index, from 0, on `flat` with these gradients (a trained buffer), whose norms are `norms`. The
    /// parameters in the ranges of `at_rest`, of `flat`, stay as they are, in all. Nothing is copied from the device to
    /// the host.
    pub fn step(
        &mut self,
        step: u64,
        flat: &Tensor,
        gradients: &Tensor,
        norms: &Norms,
        at_rest: &[Range<i64>],
    ) {
        let clipped;
        let gradients = if self.clip_grad_norm > 0.0 {
            clipped = norms.clip(gradients, self.clip_grad_norm);
            &clipped
        } else {
            gradients
        };
        let counts = self.count_step(at_rest);
        for run in self.runs(&counts) {
            self.step_run(run, step, flat, gradients);
        }
    }

    /// Counts this step for every parameter that does not rest. Its steps with this one; none: it rests.
    fn count_step(&self, at_rest: &[Range<i64>]) -> Vec<Option<f64>> {
        let mut counts: Vec<f64> = Vec::try_from(&self.updates).expect("numbers on the host");
        let taken = self.parameters.iter().zip(&mut counts).map(|((parameter, _), count)| {
            let rests = at_rest.iter().any(|rest| rest.contains(&parameter.range.start));
            (!rests).then(|| {
                *count += 1.0;
                *count
            })
        });
        let taken: Vec<_> = taken.collect();
        if taken.is_empty() {
            counts[0] += 1.0;
        }
        self.updates.shallow_clone().copy_(&Tensor::from_slice(&counts));
        taken
    }

    /// The parameters that take a step, in as few runs as there can be.
    fn runs(&self, counts: &[Option<f64>]) -> Vec<Run<'_>> {
        let mut runs: Vec<Run<'_>> = Vec::new();
        for ((parameter, number), count) in self.parameters.iter().zip(counts) {
            let (Some(count), (_, group)) = (*count, &self.groups[*number]) else { continue };
            match runs.last_mut() {
                Some(last)
                    if last.range.end == parameter.range.start
                        && last.count == count
                        && last.group == group =>
                {
                    last.range.end = parameter.range.end;
                }
                _ => {
                    let (range, start) = (parameter.range.clone(), parameter.start);
                    runs.push(Run { range, start, group, count });
                }
            }
        }
        runs
    }

    fn step_run(&self, run: Run<'_>, step: u64, flat: &Tensor, gradients: &Tensor) {
        let Run { range, start, group, count } = run;
        let Group { beta1, beta2, epsilon, weight_decay, .. } = *group;
        let rate = group.rate(step, self.steps);
        let len = range.end - range.start;
        let of = |buffer: &Tensor| buffer.narrow(0, start, len);
        let (mut flat, gradients) = (flat.narrow(0, range.start, len), of(gradients));
        let (mut exp_avg, mut exp_avg_sq) = (of(&self.exp_avg), of(&self.exp_avg_sq));
        let decayed = self.decayed.as_ref().filter(|_| weight_decay > 0.0).map(of);
        let count = count.min(f64::from(i32::MAX)) as i32;
        let (correction1, correction2) = (1.0 - beta1.powi(count), 1.0 - beta2.powi(count));
        if fused::adamw::takes(&flat) {
            let by = fused::adamw::Step {
                decay: rate * weight_decay,
                rates: [1.0 - beta1, 1.0 - beta2],
                correction: correction2.sqrt(),
                epsilon,
                rate: rate / correction1,
            };
            let moments = [&exp_avg, &exp_avg_sq];
            fused::adamw::step(&flat, &gradients, decayed.as_ref(), moments, by);
            return;
        }
        if let Some(decayed) = decayed {
            flat *= decayed * (-rate * weight_decay) + 1.0;
        }
        let _ = exp_avg.lerp_(&gradients, 1.0 - beta1);
        let _ = exp_avg_sq.lerp_(&gradients.square(), 1.0 - beta2);
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
    use tessera_nn::parameters::{Declarations, Init, Role};

    use crate::config::groups::{Decays, GroupConfig};

    /// A weight `[3, 1]`, a bias and codes `[3, 1]`, all of these values.
    fn parameters(values: [f64; 3]) -> Parameters {
        let mut to = Declarations::default();
        let ids = [
            ("codes", Stage::Quantizer, Role::Codebook),
            ("weight", Stage::Encoder, Role::Weight),
            ("bias", Stage::Encoder, Role::Bias),
        ];
        let ids = ids.map(|(name, stage, role)| {
            let shape: &[i64] = if role == Role::Bias { &[3] } else { &[3, 1] };
            to.declare(name.into(), shape, stage, role, Init::Constant(0.0))
        });
        let parameters = to.allocate(0, Kinds::same(Kind::Double), Device::Cpu);
        for id in ids {
            let mut place = parameters.master(id);
            place.copy_(&Tensor::from_slice(&values).view_as(&place));
        }
        parameters
    }

    /// The values of codes, weight and bias.
    fn values(parameters: &Parameters) -> Vec<Vec<f64>> {
        let views = parameters.named_views();
        views.map(|(_, view)| Vec::try_from(view.flatten(0, -1)).unwrap()).collect()
    }

    /// A step in which nothing rests.
    const AWAKE: &[Range<i64>] = &[];

    /// The optimiser of this table, with a constant rate, in a run of 100 steps.
    fn adamw(config: &OptimizerConfig, parameters: &Parameters) -> AdamW {
        AdamW::new(config, &ScheduleConfig::default(), 100, parameters)
    }

    /// Steps on the gradient 2 x + step / 10, with what rests in each.
    fn train(optimizer: &mut AdamW, parameters: &Parameters, rests: &[&[Range<i64>]]) {
        for (step, at_rest) in rests.iter().enumerate() {
            let flat = parameters.flat();
            let all = flat * 2.0 + step as f64 * 0.1;
            let trained = parameters.trained().into_iter().map(|trained| {
                let Range { start, end } = trained.range;
                all.narrow(0, start, end - start)
            });
            let gradients = Tensor::cat(&trained.collect::<Vec<_>>(), 0);
            let norms = Norms::of(&gradients, parameters);
            optimizer.step(step as u64, flat, &gradients, &norms, at_rest);
        }
    }

    /// Values from torch.optim.AdamW; `tests/fixtures/adamw.py` makes them.
    #[test]
    fn five_steps_are_those_of_pytorch() {
        let optimizer = OptimizerConfig {
            learning_rate: 0.1,
            weight_decay: 0.01,
            ..OptimizerConfig::default()
        };
        let parameters = parameters([1.0, -2.0, 0.5]);
        let mut optimizer = adamw(&optimizer, &parameters);
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
            let optimizer = OptimizerConfig { weight_decay, ..OptimizerConfig::default() };
            train(&mut adamw(&optimizer, &parameters), &parameters, &[AWAKE; 3]);
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
        let codes = [parameters([0.0; 3]).trained()[0].range.clone()];
        let ours = parameters([1.0, -2.0, 0.5]);
        let mut optimizer = adamw(&config, &ours);
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
        let mut of_two = adamw(&config, &theirs);
        train(&mut of_two, &theirs, &[AWAKE]);
        train(&mut of_two, &theirs, &[AWAKE]);
        assert_eq!(of_codes(&optimizer, &ours), of_codes(&of_two, &theirs));
        assert_ne!(values(&ours)[1], values(&theirs)[1], "the weight has taken four");
    }

    /// By hand: the first step of Adam moves each parameter by rate * g / (|g| + eps), whatever
    /// the size of g, so clipping changes it by eps alone.
    #[test]
    fn clipping_scales_the_gradient_by_its_norm() {
        let optimizer = OptimizerConfig { clip_grad_norm: 1.0, ..OptimizerConfig::default() };
        let parameters = parameters([0.0; 3]);
        let mut optimizer = adamw(&optimizer, &parameters);
        let gradients = parameters.flat().zeros_like();
        gradients.narrow(0, 0, 2).copy_(&Tensor::from_slice(&[30.0, 40.0]));
        let norms = Norms::of(&gradients, &parameters);
        optimizer.step(0, parameters.flat(), &gradients, &norms, &[]);
        // (1 - 0.9) * 30 / 50, up to the 1e-6 in the divisor.
        assert!((optimizer.exp_avg.double_value(&[0]) - 0.06).abs() < 1e-8);
    }

    /// By hand: the first step of Adam moves each parameter by rate * sign(g). At 1 the decay of 0.1 * 0.5 is taken first.
    #[test]
    fn a_group_has_a_rate_a_decay_and_a_schedule_of_its_own() {
        let parameters = parameters([1.0; 3]);
        let mut optimizer = OptimizerConfig { learning_rate: 0.1, ..OptimizerConfig::default() };
        let schedule = ScheduleConfig { warmup_steps: 4, ..ScheduleConfig::default() };
        optimizer.groups.quantizer = GroupConfig {
            learning_rate: Some(0.2),
            weight_decay: Some(0.5),
            decays: Decays::Everything,
            schedule: Some(schedule),
            ..GroupConfig::default()
        };
        let mut optimizer = adamw(&optimizer, &parameters);
        let rates = optimizer.rates(1);
        assert_eq!(rates, [(Stage::Quantizer, 0.1), (Stage::Encoder, 0.1)], "half of 0.2");
        train(&mut optimizer, &parameters, &[AWAKE]);
        let values = values(&parameters);
        let rate = 0.2 / 4.0;
        let expected = 1.0 - rate * 0.5 - rate;
        assert!((values[0][0] - expected).abs() < 1e-8, "{values:?}");
        assert!((values[1][0] - 0.9).abs() < 1e-8, "{values:?}");
    }

    #[test]
    fn groups_with_the_same_settings_are_one_bit_for_bit() {
        let [one, two] = [None, Some(0.001)].map(|learning_rate| {
            let parameters = parameters([1.0, -2.0, 0.5]);
            let mut optimizer = OptimizerConfig { weight_decay: 0.1, ..Default::default() };
            optimizer.groups.encoder.learning_rate = learning_rate;
            let mut optimizer = adamw(&optimizer, &parameters);
            assert_eq!(optimizer.runs(&[Some(1.0); 3]).len(), 1);
            train(&mut optimizer, &parameters, &[AWAKE; 3]);
            values(&parameters)
        });
        assert_eq!(one, two);
    }

    #[test]
    fn a_frozen_group_stays_and_has_no_moments() {
        let mut parameters = parameters([1.0, -2.0, 0.5]);
        parameters.freeze(&[Stage::Quantizer]);
        let decaying = OptimizerConfig { weight_decay: 0.1, ..OptimizerConfig::default() };
        let mut optimizer = adamw(&decaying, &parameters);
        assert_eq!((optimizer.exp_avg.size(), optimizer.updates.size()), (vec![32], vec![2]));
        train(&mut optimizer, &parameters, &[AWAKE; 3]);
        let whole = self::parameters([1.0, -2.0, 0.5]);
        train(&mut adamw(&decaying, &whole), &whole, &[AWAKE; 3]);
        let (found, all) = (values(&parameters), values(&whole));
        assert_eq!(found[0], [1.0, -2.0, 0.5]);
        assert_eq!(found[1..], all[1..], "the others are trained as they would be beside it");
    }

    const PYTORCH_ADAMW: [f64; 3] = [0.4990213840066041, -1.4962740177385871, 0.006478474410055404];
}
