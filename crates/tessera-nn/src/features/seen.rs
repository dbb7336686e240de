//! Samples of any signal as a network of pictures sees them.
//!
//! Vectors and distances are of each sample by itself, so those of parts and ranks add up to those of the whole.

use tch::Tensor;

use super::{FeatureNetwork, View};
use crate::Signal;

/// A network, and what it sees.
#[derive(Debug)]
pub struct Seen {
    /// What makes features of pictures.
    pub network: FeatureNetwork,
    /// What it sees of samples.
    pub view: View,
}

impl Seen {
    /// A network that sees pictures of this view.
    ///
    /// # Errors
    ///
    /// One line that says what the pictures should be.
    pub fn new(network: FeatureNetwork, view: View) -> Result<Self, String> {
        let [channels, height, width] = view.shape();
        network.validate(channels, height, width).map_err(|problem| match view.signal() {
            Signal::Audio { .. } => {
                format!(
                    "{problem}; sound is seen as a spectrogram of {height} mels and {width} columns"
                )
            }
            _ => problem,
        })?;
        Ok(Self { network, view })
    }

    /// Whether samples have a distance: [`FeatureNetwork::has_maps`].
    pub fn has_maps(&self) -> bool {
        self.network.has_maps()
    }

    /// A vector for each sample `[N, ..]`, `[N, F]`, without graph. Of a picture and of a sound it is
    /// [`FeatureNetwork::vector`]. Of a film it is the mean of its frames' vectors, and behind it, `[N, 2F]` in all, the
    /// mean of those of the differences 0.5 + (x(t + 1) - x(t)) / 2: frames alone take a still film for a good one. A film
    /// of one frame has zeros there.
    pub fn vector(&self, samples_nc: &Tensor) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let Signal::Video { frames, .. } = self.view.signal() else {
            return self.network.vector(&self.view.pictures(samples_nc));
        };
        // One frame of all films at a time: as much memory as pictures take.
        let frame = |at: i64| samples_nc.select(2, at);
        let mut still = self.network.vector(&frame(0));
        let mut moved = still.zeros_like();
        for at in 1..frames {
            still += self.network.vector(&frame(at));
            moved += self.network.vector(&((frame(at) - frame(at - 1)) / 2.0 + 0.5));
        }
        Tensor::cat(&[still / frames as f64, moved / (frames - 1).max(1) as f64], 1)
    }

    /// Sum over samples of how far outputs are from targets, [`FeatureNetwork::distance_sum`]: a scalar with graph to the
    /// outputs, of sound without. Of a film it is the mean over its frames.
    ///
    /// # Panics
    ///
    /// If the network has no maps.
    pub fn distance_sum(&self, outputs_nc: &Tensor, targets_nc: &Tensor) -> Tensor {
        self.mean_over_pictures([outputs_nc, targets_nc], FeatureNetwork::distance_sum)
    }

    /// The same by [`FeatureNetwork::original_distance_sum`], without graph: what is reported.
    ///
    /// # Panics
    ///
    /// If the network has no maps.
    pub fn original_distance_sum(&self, outputs_nc: &Tensor, targets_nc: &Tensor) -> Tensor {
        self.mean_over_pictures([outputs_nc, targets_nc], FeatureNetwork::original_distance_sum)
    }

    fn mean_over_pictures(
        &self,
        samples: [&Tensor; 2],
        distance: impl Fn(&FeatureNetwork, &Tensor, &Tensor) -> Tensor,
    ) -> Tensor {
        let Signal::Video { frames, .. } = self.view.signal() else {
            let [outputs, targets] = samples.map(|samples| self.view.pictures(samples));
            return distance(&self.network, &outputs, &targets);
        };
        let of_frame = |at: i64| {
            let [outputs, targets] = samples.map(|samples| samples.select(2, at));
            distance(&self.network, &outputs, &targets)
        };
        let all: Vec<Tensor> = (0..frames).map(of_frame).collect();
        let sum = Tensor::stack(&all, 0);
        sum.sum(sum.kind()) / frames as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::Stages;
    use tch::{Device, Kind};

    fn seen(signal: Signal, channels: i64) -> Seen {
        let network = FeatureNetwork::Stages(Stages::random(channels, Device::Cpu));
        Seen::new(network, View::of(&signal, 8000).unwrap()).unwrap()
    }

    fn film(frames: i64) -> (Seen, Tensor) {
        let signal = Signal::Video { channels: 3, frames, height: 8, width: 8 };
        let at = Tensor::arange(4 * 3 * frames * 64, (Kind::Double, Device::Cpu));
        (seen(signal, 3), ((at * 0.37).sin() * 0.4 + 0.5).view([4, 3, frames, 8, 8]))
    }

    fn off(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    /// By hand: a film that stands still has its one picture's vector, and behind it that of gray, 0.5 everywhere.
    #[test]
    fn a_still_film_moves_as_gray_does() {
        let (seen, films) = film(3);
        let still = films.narrow(2, 0, 1);
        let vectors = seen.vector(&still.expand([4, 3, 3, 8, 8], false));
        assert_eq!(vectors.size(), [4, 768]);
        let of_picture = seen.network.vector(&still.squeeze_dim(2));
        assert!(off(&vectors.narrow(1, 0, 384), &of_picture) < 1e-12);
        let gray =
            seen.network.vector(&Tensor::full([1, 3, 8, 8], 0.5, (Kind::Double, Device::Cpu)));
        assert!(off(&vectors.narrow(1, 384, 384), &gray) < 1e-12);
        // Not so one that moves, and one of one frame has no movement.
        assert!(off(&seen.vector(&films).narrow(1, 384, 384), &gray) > 1e-3);
        let (single, pictures) = film(1);
        let vectors = single.vector(&pictures);
        assert_eq!(vectors.narrow(1, 384, 384).abs().max().double_value(&[]), 0.0);
        assert_eq!(vectors.narrow(1, 0, 384), single.network.vector(&pictures.squeeze_dim(2)));
    }

    /// By hand: of three frames that are the same the mean distance is that of one.
    #[test]
    fn the_distance_of_film_is_the_mean_over_frames() {
        let (seen, films) = film(3);
        let [one, other] = [films.narrow(2, 0, 1), films.narrow(2, 1, 1)];
        let [outputs, targets] = [&one, &other].map(|film| film.expand([4, 3, 3, 8, 8], false));
        let outputs = outputs.contiguous().set_requires_grad(true);
        let distance = seen.distance_sum(&outputs, &targets);
        let of_one = seen.network.distance_sum(&one.squeeze_dim(2), &other.squeeze_dim(2));
        assert!((distance.double_value(&[]) - of_one.double_value(&[])).abs() < 1e-9);
        distance.backward();
        assert!(outputs.grad().abs().max().double_value(&[]) > 0.0);
    }

    #[test]
    fn vectors_of_a_part_are_a_part_of_the_vectors() {
        let sound = Signal::Audio { channels: 2, samples: 700 };
        let at = Tensor::arange(4 * 2 * 700, (Kind::Double, Device::Cpu));
        let waves = ((&at * &at * 1e-4).sin() * 0.5).view([4, 2, 700]);
        for (seen, samples) in [film(2), (seen(sound, 1), waves)] {
            let (whole, part) = (seen.vector(&samples), seen.vector(&samples.narrow(0, 1, 2)));
            assert!(off(&whole.narrow(0, 1, 2), &part) < 1e-12);
            assert!(off(&whole.get(0), &whole.get(1)) > 1e-3);
            assert_eq!(seen.vector(&samples.narrow(0, 0, 0)).size(), [0, whole.size()[1]]);
            let apart = seen.original_distance_sum(&samples, &samples.flip([0])).double_value(&[]);
            assert!(apart > 1e-3, "{apart}");
        }
    }

    #[test]
    fn a_sound_too_short_for_a_network_is_told_as_a_spectrogram() {
        let view = View::of(&Signal::Audio { channels: 1, samples: 100 }, 8000).unwrap();
        let network = FeatureNetwork::Stages(Stages::random(1, Device::Cpu));
        let refused = Seen::new(network, view).unwrap_err();
        assert!(refused.contains("a spectrogram of 64 mels and 5 columns"), "{refused}");
    }
}
