//! What is drawn at random for a sample: a pure function of (seed, epoch, sample).
//!
//! Neither rank nor thread nor position in a batch is in it, so augmentation, like the order of
//! samples, is the same for every world size and after every resume.

use crate::sampler::mix;

/// Randomness of one sample in one epoch; nothing is drawn in an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw(Option<u64>);

/// What a number is drawn for; each purpose has a stream of its own.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    Left = 1,
    Top,
    Flip,
    Start,
    Variant,
}

impl Draw {
    /// For an evaluation: whatever could be drawn takes its middle.
    pub const NONE: Self = Self(None);

    /// For sample `id` of a training run's `epoch`.
    pub fn new(seed: u64, epoch: u64, id: u64) -> Self {
        let key = mix(mix(seed ^ 0x6175_676d_656e_7400).wrapping_add(epoch));
        Self(Some(mix(key.wrapping_add(id))))
    }

    /// Uniform in `0..=most`; its middle where nothing is drawn.
    pub(crate) fn up_to(self, purpose: Purpose, most: u64) -> u64 {
        match self.0 {
            Some(key) => {
                let random = u128::from(mix(key.wrapping_add(purpose as u64)));
                ((random * (u128::from(most) + 1)) >> 64) as u64
            }
            None => most / 2,
        }
    }

    /// Uniform in `0..num`; the first where nothing is drawn.
    ///
    /// # Panics
    ///
    /// If `num` is 0.
    pub(crate) fn one_of(self, purpose: Purpose, num: u64) -> u64 {
        match self.0 {
            Some(_) => self.up_to(purpose, num - 1),
            None => 0,
        }
    }

    /// Heads or tails; false where nothing is drawn.
    pub(crate) fn coin(self, purpose: Purpose) -> bool {
        self.0.is_some() && self.up_to(purpose, 1) == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_are_uniform_and_differ_by_seed_epoch_sample_and_purpose() {
        let mut counts = [0; 5];
        for id in 0..10_000 {
            counts[Draw::new(1, 2, id).up_to(Purpose::Left, 4) as usize] += 1;
        }
        // Five standard deviations of a binomial of 10,000 and 1/5 are 200.
        assert!(counts.iter().all(|&count: &i32| (count - 2000).abs() < 200), "{counts:?}");
        let wide = |draw: Draw, purpose| draw.up_to(purpose, u64::MAX - 1);
        let first = wide(Draw::new(1, 2, 3), Purpose::Left);
        for (draw, purpose) in [
            (Draw::new(2, 2, 3), Purpose::Left),
            (Draw::new(1, 3, 3), Purpose::Left),
            (Draw::new(1, 2, 4), Purpose::Left),
            (Draw::new(1, 2, 3), Purpose::Top),
        ] {
            assert_ne!(first, wide(draw, purpose));
        }
    }

    #[test]
    fn an_evaluation_takes_the_middle() {
        assert_eq!(Draw::NONE.up_to(Purpose::Left, 8), 4);
        assert!(!Draw::NONE.coin(Purpose::Flip));
    }
}
