//! A moving average of the weights, which is steadier than the weights of any one step.
//!
//! Polyak and Juditsky 1992 (<https://doi.org/10.1137/0330046>), with weights that decay:
//! a += (1 - d) (w - a) after each step, where d is the smaller of `train.ema_decay` and (1 + t) / (10 + t) in the step
//! that is the t-th, so that the average is not held back by what it began with. It is a function of the weights, the
//! same on every rank: nothing is communicated.
//!
//! Averaged is what the optimiser moves, but for a critic, which nobody uses after a training. What a task moves itself (codes of a moving average, counts) is as it is, since
//! it is an average already; rows that a task has set anew are taken over at once.

use tch::Tensor;
use tessera_nn::Parameters;
use tessera_nn::parameters::{ParameterId, Stage, Trained};

/// The average of a training's weights.
#[derive(Debug)]
pub struct Average {
    decay: f64,
    /// The averages, a [trained buffer](Parameters::trained_len), with zeros for a critic.
    pub(crate) weights: Tensor,
    trained: Vec<Trained>,
}

impl Average {
    /// An average that begins with the weights as they are.
    pub(crate) fn new(decay: f64, parameters: &Parameters) -> Self {
        let flat = parameters.flat();
        let mut trained = parameters.trained();
        trained.retain(|parameter| parameter.stage != Stage::Critic);
        let weights = Tensor::zeros([parameters.trained_len()], (flat.kind(), flat.device()));
        let average = Self { decay, weights, trained: side_by_side(trained) };
        average.restart(parameters);
        average
    }

    /// Name and place of each average in its buffer.
    pub(crate) fn named<'a>(
        &'a self,
        parameters: &'a Parameters,
    ) -> impl Iterator<Item = (&'a str, Tensor)> {
        let all = parameters.trained().into_iter().zip(parameters.trained_views(&self.weights));
        let averaged = all.filter(|(parameter, _)| parameter.stage != Stage::Critic);
        averaged.map(|(_, named)| named)
    }

    /// Begins anew with the weights as they are.
    pub(crate) fn restart(&self, parameters: &Parameters) {
        for (mut average, weights) in self.pairs(parameters) {
            average.copy_(&weights);
        }
    }

    /// Takes in the weights after the `count`-th step, counted from 1.
    pub(crate) fn update(&self, count: f64, parameters: &Parameters) {
        let decay = self.decay.min((1.0 + count) / (10.0 + count));
        for (mut average, weights) in self.pairs(parameters) {
            let _ = average.lerp_(&weights, 1.0 - decay);
        }
    }

    /// Takes over these rows (`[K]` bool) of a parameter `[K, ...]` as they are.
    pub(crate) fn take_rows(&self, parameters: &Parameters, id: ParameterId, rows_k: &Tensor) {
        if let Some(mut average) = parameters.trained_view(&self.weights, id) {
            let weights = parameters.master(id);
            let mut shape = vec![1; weights.dim()];
            shape[0] = -1;
            average.copy_(&weights.where_self(&rows_k.view(shape.as_slice()), &average));
        }
    }

    /// Lets the average and the weights trade places.
    pub(crate) fn swap(&self, parameters: &Parameters) {
        for (mut average, mut weights) in self.pairs(parameters) {
            let kept = weights.copy();
            weights.copy_(&average);
            average.copy_(&kept);
        }
        parameters.refresh();
    }

    /// Averages and weights, side by side.
    fn pairs(&self, parameters: &Parameters) -> impl Iterator<Item = (Tensor, Tensor)> {
        let flat = parameters.flat();
        self.trained.iter().map(move |Trained { range, start, .. }| {
            let len = range.end - range.start;
            (self.weights.narrow(0, *start, len), flat.narrow(0, range.start, len))
        })
    }
}

/// The parameters in as few ranges as there can be.
fn side_by_side(trained: Vec<Trained>) -> Vec<Trained> {
    let mut all: Vec<Trained> = Vec::new();
    for next in trained {
        match all.last_mut() {
            Some(last) if last.range.end == next.range.start => last.range.end = next.range.end,
            _ => all.push(next),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};
    use tessera_nn::Kinds;
    use tessera_nn::parameters::{Declarations, Init, Role};

    fn parameters() -> (Parameters, [ParameterId; 3]) {
        let mut to = Declarations::default();
        let ids = [Stage::Quantizer, Stage::Encoder, Stage::Decoder].map(|stage| {
            to.declare(format!("{stage:?}"), &[2, 1], stage, Role::Weight, Init::Constant(1.0))
        });
        let mut parameters = to.allocate(0, Kinds::same(Kind::Double), Device::Cpu);
        parameters.freeze(&[Stage::Encoder]);
        (parameters, ids)
    }

    fn first(parameters: &Parameters, average: &Average, id: ParameterId) -> Option<f64> {
        parameters.trained_view(&average.weights, id).map(|view| view.double_value(&[0, 0]))
    }

    /// By hand: the decays are 2/11, 3/12 and then 0.3, so from 1 the average of the weights 2, 3, 4 is
    /// 1 + 9/11 = 20/11; 20/11 + 3/4 (3 - 20/11) = 119/44; 0.3 of that + 0.7 of 4.
    #[test]
    fn an_average_follows_the_weights() {
        let (parameters, [codes, encoder, decoder]) = parameters();
        let average = Average::new(0.3, &parameters);
        for (count, value) in [(1.0, 2.0), (2.0, 3.0), (3.0, 4.0)] {
            let _ = parameters.flat().shallow_clone().fill_(value);
            average.update(count, &parameters);
        }
        let expected = 0.3 * 119.0 / 44.0 + 0.7 * 4.0;
        for id in [codes, decoder] {
            let found = first(&parameters, &average, id).unwrap();
            assert!((found - expected).abs() < 1e-12, "{found} {expected}");
        }
        assert_eq!(first(&parameters, &average, encoder), None, "frozen: nothing to average");
        average.swap(&parameters);
        let now = |id| parameters.master(id).double_value(&[0, 0]);
        assert_eq!(now(encoder), 4.0);
        assert!((now(decoder) - expected).abs() < 1e-12);
        assert_eq!(first(&parameters, &average, decoder), Some(4.0));
    }

    #[test]
    fn rows_that_were_set_anew_are_taken_over() {
        let (parameters, [codes, ..]) = parameters();
        let average = Average::new(0.9, &parameters);
        parameters.master(codes).copy_(&Tensor::from_slice(&[5.0, 7.0]).view([2, 1]));
        average.take_rows(&parameters, codes, &Tensor::from_slice(&[false, true]));
        let view = parameters.trained_view(&average.weights, codes).unwrap();
        assert_eq!(Vec::<f64>::try_from(&view.view([-1])).unwrap(), [1.0, 7.0]);
    }
}
