//! What a critic and the generator it judges learn from its logits.
//!
//! A critic gives each sample a map of logits `[N, 1, ..]`, high where it takes the sample for a
//! real one. Losses are means over a sample's logits, summed over samples. The real part always
//! comes first; the fake part of [`AdversarialLoss::critic`] has to be cut from the generator's
//! graph by whoever calls.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// How logits become losses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdversarialLoss {
    /// relu(1 - real) + relu(1 + fake) for the critic, -fake for the generator: Lim and Ye 2017
    /// (<https://arxiv.org/abs/1705.02894>). taming-transformers, LlamaGen and TiTok halve the
    /// critic's; here nothing is halved, as in EnCodec.
    #[default]
    Hinge,
    /// softplus(-real) + softplus(fake) for the critic, softplus(-fake) for the generator:
    /// Goodfellow et al. 2014 (<https://arxiv.org/abs/1406.2661>). Open-MAGVIT2 takes the softplus
    /// of a sample's mean logit; here it is the mean of their softplus.
    NonSaturating,
}

impl AdversarialLoss {
    /// The critic's loss, a scalar of the kind of the logits: the sum over real samples and that
    /// over fake ones. Each counts its own samples.
    pub fn critic(self, real_logits: &Tensor, fake_logits: &Tensor) -> Tensor {
        let [real, fake] = match self {
            Self::Hinge => [(-real_logits + 1.0).relu(), (fake_logits + 1.0).relu()],
            Self::NonSaturating => [softplus(&-real_logits), softplus(fake_logits)],
        };
        mean_logit_sum(&real) + mean_logit_sum(&fake)
    }

    /// The generator's loss, a scalar of the kind of the logits.
    pub fn generator(self, fake_logits: &Tensor) -> Tensor {
        mean_logit_sum(&match self {
            Self::Hinge => -fake_logits,
            Self::NonSaturating => softplus(&-fake_logits),
        })
    }
}

/// What keeps a critic's logits of either part from leaving the mean of the other, a scalar: the
/// mean over a sample's logits of relu(real - `ema_fake`)^2, plus that of relu(`ema_real` - fake)^2,
/// summed over samples.
///
/// Follows Tseng et al. 2021 (<https://arxiv.org/abs/2104.03310>) in the form of its
/// code. The averages are moving ones of [the mean logit](mean_logit_sum) over all ranks, scalars
/// without graph.
pub fn lecam(
    real_logits: &Tensor,
    fake_logits: &Tensor,
    ema_real: &Tensor,
    ema_fake: &Tensor,
) -> Tensor {
    let real = (real_logits - ema_fake).relu().square();
    let fake = (ema_real - fake_logits).relu().square();
    mean_logit_sum(&real) + mean_logit_sum(&fake)
}

/// Sum over samples of the mean over a sample's logits, a scalar; 0 without samples.
pub fn mean_logit_sum(logits: &Tensor) -> Tensor {
    let of_sample: i64 = logits.size()[1..].iter().product();
    logits.sum(logits.kind()) / of_sample as f64
}

/// ln(1 + exp x). libtorch's own is x itself from 20 on.
fn softplus(numbers: &Tensor) -> Tensor {
    -(-numbers).log_sigmoid()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logits(values: &[f64]) -> Tensor {
        Tensor::from_slice(values).view([-1, 1, 1, 2])
    }

    /// LlamaGen's discriminator has the two arguments the wrong way round: a critic that is right,
    /// with real logits of 3 and fake ones of -3, must lose nothing by hinge and
    /// 2 ln(1 + e^-3) = 0.0972 otherwise; one that is wrong loses 8 and 2 (3 + 0.0486).
    #[test]
    fn a_critic_that_is_right_loses_less() {
        let (high, low) = (logits(&[3.0, 3.0]), logits(&[-3.0, -3.0]));
        let (hinge, soft) = (AdversarialLoss::Hinge, AdversarialLoss::NonSaturating);
        assert_eq!(hinge.critic(&high, &low).double_value(&[]), 0.0);
        assert_eq!(hinge.critic(&low, &high).double_value(&[]), 8.0);
        let small = 2.0 * (-3.0f64).exp().ln_1p();
        assert!((soft.critic(&high, &low).double_value(&[]) - small).abs() < 1e-12);
        assert!((soft.critic(&low, &high).double_value(&[]) - small - 6.0).abs() < 1e-12);
        for loss in [hinge, soft] {
            let [fooled, seen] = [&high, &low].map(|logits| loss.generator(logits));
            assert!(fooled.double_value(&[]) < seen.double_value(&[]));
        }
    }

    /// By hand, real (2, 0) and fake (-2, 1), averages 1 and -1: relu(2 + 1)^2 and relu(0 + 1)^2,
    /// mean 5; relu(1 + 2)^2 and relu(1 - 1)^2, mean 4.5.
    #[test]
    fn each_part_is_kept_from_the_average_of_the_other() {
        let (real, fake) = (logits(&[2.0, 0.0]), logits(&[-2.0, 1.0]));
        let average = |value: f64| Tensor::from(value);
        let found = lecam(&real, &fake, &average(1.0), &average(-1.0));
        assert_eq!(found.double_value(&[]), 9.5);
    }

    /// By hand: means 1 and 3 of two samples.
    #[test]
    fn logits_are_averaged_in_a_sample_and_summed_over_samples() {
        assert_eq!(mean_logit_sum(&logits(&[0.0, 2.0, 3.0, 3.0])).double_value(&[]), 4.0);
        assert_eq!(mean_logit_sum(&logits(&[])).double_value(&[]), 0.0);
    }

    #[test]
    fn the_names_are_those_of_a_configuration() {
        let of = |loss| serde_json::to_string(&loss).unwrap();
        assert_eq!(of(AdversarialLoss::Hinge), "\"hinge\"");
        assert_eq!(of(AdversarialLoss::NonSaturating), "\"non_saturating\"");
    }
}
