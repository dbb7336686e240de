//! Norms of a gradient, and what clipping makes of it.
//!
//! A critic is trained against the rest of a model. Each of the two has a norm of its own, and is clipped by it, so that
//! neither takes part in how large a step the other makes.

use tch::{Kind, Tensor};
use tessera_nn::Parameters;
use tessera_nn::loss::zero_if_finite;
use tessera_nn::parameters::Stage;

/// Norms of a gradient, a trained buffer; scalars.
#[derive(Debug)]
pub struct Norms {
    /// Of all but the critic.
    pub model: Tensor,
    /// Of the critic, where one is trained, with its first element.
    critic: Option<(i64, Tensor)>,
}

impl Norms {
    /// The norms of these gradients of the parameters.
    pub fn of(gradients: &Tensor, parameters: &Parameters) -> Self {
        let critic = parameters.trained_range_of(Stage::Critic);
        if critic.is_empty() {
            return Self { model: gradients.norm(), critic: None };
        }
        let len = gradients.size()[0];
        assert_eq!(critic.end, len, "a critic's parameters are the last");
        let of_critic = gradients.narrow(0, critic.start, len - critic.start).norm();
        let model = gradients.narrow(0, 0, critic.start).norm();
        Self { model, critic: Some((critic.start, of_critic)) }
    }

    /// The model's norm, in float64; not finite where the critic's is not.
    pub(crate) fn told(&self) -> Tensor {
        let norm = match &self.critic {
            None => self.model.shallow_clone(),
            Some((_, critic)) => &self.model + zero_if_finite(critic),
        };
        norm.to_kind(Kind::Double)
    }

    /// The gradient with both parts brought to norm `most` where they are longer.
    pub(crate) fn clip(&self, gradients: &Tensor, most: f64) -> Tensor {
        let factor = |norm: &Tensor| (most / (norm + 1e-6)).clamp_max(1.0);
        let Some((start, critic)) = &self.critic else { return gradients * factor(&self.model) };
        let len = gradients.size()[0];
        let model = gradients.narrow(0, 0, *start) * factor(&self.model);
        Tensor::cat(&[model, gradients.narrow(0, *start, len - start) * factor(critic)], 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;
    use tessera_nn::Kinds;
    use tessera_nn::parameters::{Declarations, Init, Role};

    /// By hand: the decoder's gradient is (3, 4) with norm 5, the critic's (0, 2); each is brought to norm 1.
    #[test]
    fn a_critic_is_clipped_by_its_own_norm() {
        let mut to = Declarations::default();
        for stage in [Stage::Decoder, Stage::Critic] {
            let name = format!("{stage:?}");
            to.declare(name, &[2], stage, Role::Bias, Init::Constant(0.0));
        }
        let parameters = to.allocate(0, Kinds::same(Kind::Double), Device::Cpu);
        let gradients = parameters.flat().zeros_like();
        for (at, value) in [(0, 3.0), (1, 4.0), (17, 2.0)] {
            let _ = gradients.get(at).fill_(value);
        }
        let norms = Norms::of(&gradients, &parameters);
        assert_eq!(norms.told().double_value(&[]), 5.0);
        let clipped = norms.clip(&gradients, 1.0);
        let found = [0, 1, 16, 17].map(|at| clipped.double_value(&[at]));
        for (found, expected) in found.into_iter().zip([0.6, 0.8, 0.0, 1.0]) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
        let _ = gradients.get(17).fill_(f64::NAN);
        assert!(Norms::of(&gradients, &parameters).told().double_value(&[]).is_nan());
    }
}
