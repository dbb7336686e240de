//! Mean and variance of the elements of each channel, from exact integer sums.

use serde::{Deserialize, Serialize};

use crate::shape::SampleShape;

/// Exact sums of elements and of their squares, a channel; the same in whatever order samples come.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Moments {
    sums: Vec<i128>,
    squares: Vec<u128>,
    count: u128,
    /// What an element is divided by to be in [0, 1] or [-1, 1].
    scale: u32,
}

impl Moments {
    /// Those of one sample.
    pub(crate) fn of(shape: SampleShape, sample: &[u8]) -> Self {
        let channels = shape.channels as usize;
        let (mut sums, mut squares) = (vec![0i64; channels], vec![0u64; channels]);
        let mut add = |at: usize, value: i32| {
            sums[at % channels] += i64::from(value);
            squares[at % channels] += u64::from(value.unsigned_abs()).pow(2);
        };
        let scale = match shape.element_bytes() {
            1 => {
                sample.iter().enumerate().for_each(|(at, &byte)| add(at, i32::from(byte)));
                255
            }
            _ => {
                let (pairs, _) = sample.as_chunks::<2>();
                let values = pairs.iter().map(|pair| i16::from_le_bytes(*pair));
                values.enumerate().for_each(|(at, value)| add(at, i32::from(value)));
                32768
            }
        };
        Self {
            sums: sums.into_iter().map(i128::from).collect(),
            squares: squares.into_iter().map(u128::from).collect(),
            count: (sample.len() / shape.element_bytes() / channels) as u128,
            scale,
        }
    }

    /// Adds those of other samples.
    pub(crate) fn merge(&mut self, other: &Self) {
        if self.count == 0 {
            *self = other.clone();
            return;
        }
        for (ours, theirs) in self.sums.iter_mut().zip(&other.sums) {
            *ours += theirs;
        }
        for (ours, theirs) in self.squares.iter_mut().zip(&other.squares) {
            *ours += theirs;
        }
        self.count += other.count;
    }

    /// Mean and population variance of each channel, of scaled elements.
    pub(crate) fn mean_and_variance(&self) -> (Vec<f64>, Vec<f64>) {
        let (count, scale) = (self.count as f64, f64::from(self.scale));
        let mean = self.sums.iter().map(|&sum| sum as f64 / count / scale).collect();
        let spread = |(&sum, &square): (&i128, &u128)| {
            let spread = self.count * square - sum.unsigned_abs() * sum.unsigned_abs();
            spread as f64 / (count * count) / (scale * scale)
        };
        (mean, self.sums.iter().zip(&self.squares).map(spread).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand, two pixels of two channels: (0, 255) and (255, 255). Channel 0 has mean 1/2
    /// and variance 1/4, channel 1 has mean 1 and variance 0.
    #[test]
    fn moments_are_those_of_the_scaled_bytes() {
        let moments = Moments::of(SampleShape::image(2, 1, 2), &[0, 255, 255, 255]);
        assert_eq!(moments.mean_and_variance(), (vec![0.5, 1.0], vec![0.25, 0.0]));
    }

    /// By hand: -16384 and 16384 are -1/2 and 1/2, in two samples.
    #[test]
    fn moments_of_audio_are_signed() {
        let shape = SampleShape::audio(1, 1, 8000);
        let mut moments = Moments::of(shape, &(-16384i16).to_le_bytes());
        moments.merge(&Moments::of(shape, &16384i16.to_le_bytes()));
        assert_eq!(moments.mean_and_variance(), (vec![0.0], vec![0.25]));
    }
}
