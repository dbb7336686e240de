//! Haar's transform of film: blocks of 2 x 2 x 2 values as their mean and seven differences.
//!
//! A round halves time, height and width and makes eight channels of one. Along an axis a pair (a, b)
//! becomes low (a + b) / 2 and high (a - b) / 2; the way back is low + high and low - high. Taps of
//! 1 / sqrt 2 divided by 2 sqrt 2 in all, as Cosmos has it, are the same numbers. Halves are exact, so
//! the way back loses what sums round and nothing else.
//!
//! A patch of 2^r is r rounds, each of all channels of the one before. The first frame stands for a
//! whole patch in time: it is repeated in front, and on the way back all but one of its copies are
//! dropped. So 1 + n patches of frames become 1 + n, and a picture becomes one.
//!
//! Channels come in the order of the source: by time, then height, then width, low before high (LLL,
//! LLH, LHL, ..), and within each by the channels before. The first are the means of patches.

use tch::{Device, Kind, Tensor};

use super::Fill;
use crate::chain::Block;
use crate::graph::{Graph, Op, Value};
use crate::parameters::Parameters;
use crate::signal::{channels_first, channels_last};

/// Film `[N, C, 1 + p t, p h, p w]` to patches `[N, p^3 C, 1 + t, h, w]`.
#[derive(Debug, Clone, Copy)]
pub struct ToPatches {
    rounds: u32,
    patch: i64,
    channels: i64,
}

/// The way back of [`ToPatches`].
#[derive(Debug, Clone, Copy)]
pub struct FromPatches(ToPatches);

impl ToPatches {
    /// Patches of `patch` frames, rows and columns of film of so many channels.
    ///
    /// # Panics
    ///
    /// If the patch is not a power of two.
    pub fn new(patch: i64, channels: i64) -> Self {
        assert!(patch > 0 && patch & (patch - 1) == 0, "a patch is a power of two, not {patch}");
        Self { rounds: patch.trailing_zeros(), patch, channels }
    }

    /// Patches to film.
    pub fn inverse(self) -> FromPatches {
        FromPatches(self)
    }
}

impl Block for ToPatches {
    fn forward(&self, _parameters: &Parameters, input: &Tensor) -> Tensor {
        let mut film = channels_last(input);
        if self.rounds > 0 {
            let [num, _, height, width, channels] = film.size()[..] else {
                panic!("film has 5 axes")
            };
            let copies = [num, self.patch - 1, height, width, channels];
            let first = film.narrow(1, 0, 1).expand(copies, false);
            film = Tensor::cat(&[first, film], 1);
        }
        channels_first(&self.fold(film))
    }

    /// A convolution whose taps are the signs of the differences: it gives [`Self::forward`] but for the order of sums.
    fn describe(
        &self,
        _parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        if self.rounds == 0 {
            return Ok(input);
        }
        let ends = vec![(self.patch - 1, 0), (0, 0), (0, 0)];
        let input = graph.push(Op::Pad { ends, fill: Fill::Replicate }, &[input]);
        let size = self.patch.pow(3) * self.channels;
        let units = self.units().view([size, self.patch, self.patch, self.patch, self.channels]);
        let weight = self.fold(units).view([size, size]).tr();
        let weight = weight.reshape([size, self.patch, self.patch, self.patch, self.channels]);
        let op = Op::Conv {
            weight: channels_first(&weight).contiguous(),
            bias: None,
            stride: vec![self.patch; 3],
            dilation: vec![1; 3],
            groups: 1,
            zeros: vec![(0, 0); 3],
        };
        Ok(graph.push(op, &[input]))
    }
}

impl ToPatches {
    /// The rounds, of `[N, T, H, W, C]` with the copies of the first frame.
    fn fold(self, film_nthwc: Tensor) -> Tensor {
        let mut film = film_nthwc;
        for _ in 0..self.rounds {
            // The last axis to be split is the slowest among channels.
            for axis in [3, 2, 1] {
                let [even, odd] = [0, 1].map(|start| film.slice(axis, start, None, 2));
                film = Tensor::cat(&[&even + &odd, even - odd], 4) * 0.5;
            }
        }
        film
    }

    /// Patches of which each has one value that is 1, the others 0.
    fn units(self) -> Tensor {
        Tensor::eye(self.patch.pow(3) * self.channels, (Kind::Float, Device::Cpu))
    }
}

impl FromPatches {
    /// The rounds back, to `[N, T, H, W, C]` with the copies of the first frame.
    fn unfold(self, film_nthwc: Tensor) -> Tensor {
        let mut film = film_nthwc;
        for _ in 0..self.0.rounds {
            for axis in [1, 2, 3] {
                let halves = film.chunk(2, 4);
                let pair = [&halves[0] + &halves[1], &halves[0] - &halves[1]];
                film = Tensor::stack(&pair, axis + 1).flatten(axis, axis + 1);
            }
        }
        film
    }
}

impl Block for FromPatches {
    fn forward(&self, _parameters: &Parameters, input: &Tensor) -> Tensor {
        let film = self.unfold(channels_last(input));
        let copies = self.0.patch - 1;
        channels_first(&film.narrow(1, copies, film.size()[1] - copies))
    }

    /// See the other way.
    fn describe(
        &self,
        _parameters: &Parameters,
        graph: &mut Graph,
        input: Value,
    ) -> Result<Value, String> {
        let ToPatches { rounds, patch, .. } = self.0;
        if rounds == 0 {
            return Ok(input);
        }
        let units = self.0.units().unsqueeze(1).unsqueeze(1).unsqueeze(1);
        let op = Op::ConvTranspose {
            weight: channels_first(&self.unfold(units)).contiguous(),
            bias: None,
            stride: vec![patch; 3],
            dilation: vec![1; 3],
            groups: 1,
            cut: vec![(patch - 1, 0), (0, 0), (0, 0)],
        };
        Ok(graph.push(op, &[input]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::{Declarations, Kinds};

    fn through(block: &dyn Block, input: &Tensor) -> Tensor {
        let none = Declarations::default().allocate(0, Kinds::same(Kind::Double), Device::Cpu);
        block.forward(&none, input)
    }

    /// Multiples of 1/4 below 8: sums of 64 of them and their halves are exact.
    fn film(shape: &[i64]) -> Tensor {
        let count = Tensor::arange(shape.iter().product::<i64>(), (Kind::Double, Device::Cpu));
        ((count * 37.0).remainder(31.0) / 4.0).view(shape)
    }

    /// By hand: the first frame stands twice, so its differences in time are 0 and its others 2 x 8 / 8; the second patch has
    /// frames a = (1, 2; 3, 4) and b = (5, 6; 7, 16). Means 44 / 8 and so on with the signs of the axes.
    #[test]
    fn a_patch_is_its_mean_and_seven_differences() {
        let frames = [[8.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 16.0]];
        let input = Tensor::from_slice(&frames.concat()).view([1, 1, 3, 2, 2]);
        let found = through(&ToPatches::new(2, 1), &input);
        assert_eq!(found.size(), [1, 8, 2, 1, 1]);
        let expected = [
            [2.0, 5.5],
            // LLH: (1 - 2 + 3 - 4 + 5 - 6 + 7 - 16) / 8.
            [2.0, -1.5],
            // LHL: (1 + 2 - 3 - 4 + 5 + 6 - 7 - 16) / 8.
            [2.0, -2.0],
            // LHH: (1 - 2 - 3 + 4 + 5 - 6 - 7 + 16) / 8.
            [2.0, 1.0],
            // HLL: (10 - 34) / 8, and the like.
            [0.0, -3.0],
            [0.0, 1.0],
            [0.0, 1.0],
            [0.0, -1.0],
        ];
        assert_eq!(found.reshape([16]), Tensor::from_slice(&expected.concat()));
    }

    #[test]
    fn film_comes_back_exactly_and_the_first_channels_are_means() {
        for (patch, frames) in [(1, 3), (2, 1), (2, 5), (4, 1), (4, 9)] {
            let input = film(&[2, 3, frames, 8, 4]);
            let patches = through(&ToPatches::new(patch, 3), &input);
            let axes = [1 + (frames - 1) / patch, 8 / patch, 4 / patch];
            assert_eq!(patches.size(), [&[2, 3 * patch.pow(3)], axes.as_slice()].concat());
            assert_eq!(through(&ToPatches::new(patch, 3).inverse(), &patches), input);
            let first = input.select(2, 0);
            let means = first.avg_pool2d([patch; 2], [patch; 2], [0, 0], false, false, None);
            assert_eq!(patches.narrow(1, 0, 3).select(2, 0), means);
        }
    }

    #[test]
    fn a_batch_of_no_samples_has_patches_too() {
        let patches = through(&ToPatches::new(2, 3), &film(&[0, 3, 3, 4, 4]));
        assert_eq!(patches.size(), [0, 24, 2, 2, 2]);
        assert_eq!(through(&ToPatches::new(2, 3).inverse(), &patches).size(), [0, 3, 3, 4, 4]);
    }
}
