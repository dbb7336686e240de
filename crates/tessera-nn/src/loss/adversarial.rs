//! What a critic and the generator it judges learn from its logits and its maps of features.
//!
//! A network of a critic gives each sample a map of logits `[N, 1, ..]`, high where it takes the sample
//! for a real one. Losses are means over a sample's logits, summed over samples; of several
//! networks [`OverCritics`] makes one. The real part comes first in [`AdversarialLoss::critic`], whose
//! fake part has to be cut from the generator's graph by whoever calls.

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
    /// (1 - real)^2 + fake^2 for the critic, (1 - fake)^2 for the generator: Mao et al. 2017
    /// (<https://arxiv.org/abs/1611.04076>), without the halves there, as the Descript codec has it.
    LeastSquares,
}

/// How terms of several networks of a critic, and of several maps of a network, become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OverCritics {
    /// Their mean, as in EnCodec.
    #[default]
    Mean,
    /// Their sum, as in the Descript codec.
    Sum,
}

impl OverCritics {
    /// The mean or the sum of scalars, of which there is at least one.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub fn of(self, terms: &[Tensor]) -> Tensor {
        let (first, others) = terms.split_first().expect("a critic has a network");
        let sum = others.iter().fold(first.shallow_clone(), |sum, term| sum + term);
        match self {
            Self::Mean if !others.is_empty() => sum / terms.len() as f64,
            _ => sum,
        }
    }
}

impl AdversarialLoss {
    /// The critic's loss, a scalar of the kind of the logits: the sum over real samples and that
    /// over fake ones. Each counts its own samples.
    pub fn critic(self, real_logits: &Tensor, fake_logits: &Tensor) -> Tensor {
        let [real, fake] = match self {
            Self::Hinge => [(-real_logits + 1.0).relu(), (fake_logits + 1.0).relu()],
            Self::NonSaturating => [softplus(&-real_logits), softplus(fake_logits)],
            Self::LeastSquares => [(-real_logits + 1.0).square(), fake_logits.square()],
        };
        mean_logit_sum(&real) + mean_logit_sum(&fake)
    }

    /// The generator's loss, a scalar of the kind of the logits.
    pub fn generator(self, fake_logits: &Tensor) -> Tensor {
        mean_logit_sum(&match self {
            Self::Hinge => -fake_logits,
            Self::NonSaturating => softplus(&-fake_logits),
            Self::LeastSquares => (-fake_logits + 1.0).square(),
        })
    }
}

/// How far what a network of a critic sees in outputs is from what it sees in targets, a scalar: of
/// each map the mean over a sample of |fake - real|, summed over samples; then their mean or sum.
/// Its gradient goes to the fake maps alone.
///
/// Follows Kumar et al. 2019 (<https://arxiv.org/abs/1910.06711>), equation 4. EnCodec's paper divides by
/// the mean of |real| over the batch, which is no sum over samples; its code does not.
///
/// * `fake_maps`, `real_maps`: `[N, channels, ..]` each, in the same order, of the same samples.
///
/// # Panics
///
/// If there is no map, or one has another shape than its counterpart.
pub fn feature_matching(fake_maps: &[Tensor], real_maps: &[Tensor], over: OverCritics) -> Tensor {
    assert_eq!(fake_maps.len(), real_maps.len(), "the same network makes as many maps");
    let of_map = |(fake, real): (&Tensor, &Tensor)| {
        assert_eq!(fake.size(), real.size(), "a map has one size");
        mean_logit_sum(&(fake - real.detach()).abs())
    };
    let terms: Vec<Tensor> = fake_maps.iter().zip(real_maps).map(of_map).collect();
    over.of(&terms)
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

/// Sum over samples of the mean over a sample's numbers `[N, ..]`, a scalar; 0 without samples.
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
    use tch::{Device, Kind};

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

    /// By hand: of two samples with maps of two and of one number, |1 - 0|, |2 - 4| and |3 - 0|, |5 - 1| have means
    /// 1.5 and 3.5, |2| and |1| are themselves; 5 and 3 are 4 in the mean, and 8 in sum.
    #[test]
    fn features_are_matched_map_by_map_and_targets_learn_nothing() {
        let fake = [logits(&[1.0, 2.0, 3.0, 5.0]), Tensor::from_slice(&[2.0, 1.0]).view([2, 1])];
        let real =
            [logits(&[0.0, 4.0, 0.0, 1.0]), Tensor::zeros([2, 1], (Kind::Double, Device::Cpu))];
        let [fake, real] = [fake, real].map(|maps| maps.map(|map| map.set_requires_grad(true)));
        let mean = feature_matching(&fake, &real, OverCritics::Mean);
        assert_eq!(mean.double_value(&[]), 4.0);
        let sum = feature_matching(&fake, &real, OverCritics::Sum);
        assert_eq!(sum.double_value(&[]), 8.0);
        sum.backward();
        assert_eq!(
            Vec::<f64>::try_from(fake[0].grad().flatten(0, -1)).unwrap(),
            [0.5, -0.5, 0.5, 0.5]
        );
        assert!(real.iter().all(|map| !map.grad().defined()));
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
        assert_eq!(of(AdversarialLoss::LeastSquares), "\"least_squares\"");
    }
}
