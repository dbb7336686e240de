//! What a network of pictures sees of samples of any signal.
//!
//! | samples | pictures |
//! |---|---|
//! | pictures | themselves |
//! | sound | its log-mel spectrogram, [`Spectrogram::of_rate`]: `[1, 64, T / hop + 1]` |
//! | film | each of its frames |
//!
//! All are in [0, 1]. A spectrogram has no graph.

use tch::Tensor;

use crate::Signal;
use crate::signal::to_frames;
use crate::spectrogram::Spectrogram;

/// Samples as pictures. Tokens have no view, and sound whose rate is unknown has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    signal: Signal,
    /// Instants a second of sound.
    sample_rate: i64,
}

impl View {
    /// Of samples of this signal; `sample_rate` is that of sound in instants a second, and of no matter for others.
    ///
    /// # Errors
    ///
    /// One line where there is none: of tokens, and of sound with a rate of 0.
    pub fn of(signal: &Signal, sample_rate: u32) -> Result<Self, String> {
        match signal {
            Signal::Tokens { .. } => Err("tokens are no pictures".to_owned()),
            Signal::Audio { .. } if sample_rate == 0 => {
                Err("sound is seen as a spectrogram, which needs its sample rate".to_owned())
            }
            _ => Ok(Self { signal: *signal, sample_rate: i64::from(sample_rate) }),
        }
    }

    /// The samples.
    pub fn signal(&self) -> Signal {
        self.signal
    }

    /// Channels, height and width of a picture.
    pub fn shape(&self) -> [i64; 3] {
        match self.signal {
            Signal::Image { channels, height, width }
            | Signal::Video { channels, height, width, .. } => [channels, height, width],
            Signal::Audio { samples, .. } => {
                let [height, width] = Spectrogram::of_rate(self.sample_rate).size(samples);
                [1, height, width]
            }
            Signal::Tokens { .. } => unreachable!("tokens have no view"),
        }
    }

    /// Pictures of a sample: the frames of film, 1 of others.
    pub fn num_pictures(&self) -> i64 {
        match self.signal {
            Signal::Video { frames, .. } => frames,
            _ => 1,
        }
    }

    /// The pictures of samples `[N, ..]`, those of a sample one after another: `[N M, C, H, W]`.
    pub fn pictures(&self, samples_nc: &Tensor) -> Tensor {
        match self.signal {
            Signal::Audio { .. } => Spectrogram::of_rate(self.sample_rate).levels(samples_nc),
            Signal::Video { .. } => to_frames(samples_nc),
            Signal::Image { .. } | Signal::Tokens { .. } => samples_nc.shallow_clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    /// By hand: 1 kHz is 1000 of 2146 mels at 8 kHz; filter m of 64 has its top at m + 1 steps of 2146 / 65 = 33.0 mels,
    /// so that of number 29, at 990.5, is the nearest.
    #[test]
    fn a_sine_is_brightest_at_its_mel() {
        let view = View::of(&Signal::Audio { channels: 1, samples: 1000 }, 8000).unwrap();
        let at = Tensor::arange(1000, (Kind::Double, Device::Cpu));
        let sine = (at * (std::f64::consts::TAU / 8.0)).sin().view([1, 1, 1000]);
        let pictures = view.pictures(&Tensor::cat(&[&sine * 0.5, sine.zeros_like()], 0));
        assert_eq!(pictures.size()[1..], view.shape());
        assert_eq!((pictures.size(), view.num_pictures()), (vec![2, 1, 64, 16], 1));
        assert_eq!(pictures.get(0).get(0).select(1, 8).argmax(0, false).int64_value(&[]), 29);
        assert_eq!(pictures.get(1).abs().max().double_value(&[]), 0.0, "silence is black");
    }

    #[test]
    fn film_is_its_frames_and_pictures_are_themselves() {
        let film = Signal::Video { channels: 2, frames: 3, height: 4, width: 5 };
        let view = View::of(&film, 0).unwrap();
        let values = Tensor::arange(240, (Kind::Float, Device::Cpu)).view([2, 2, 3, 4, 5]);
        let pictures = view.pictures(&values);
        assert_eq!((pictures.size(), view.shape()), (vec![6, 2, 4, 5], [2, 4, 5]));
        assert_eq!((pictures.get(4), view.num_pictures()), (values.get(1).select(1, 1), 3));
        let image = Signal::Image { channels: 2, height: 4, width: 5 };
        let picture = values.select(2, 0);
        assert_eq!(View::of(&image, 0).unwrap().pictures(&picture), picture);
    }

    #[test]
    fn what_has_no_view_says_so() {
        let refused = View::of(&Signal::Audio { channels: 1, samples: 9 }, 0).unwrap_err();
        assert!(refused.contains("needs its sample rate"), "{refused}");
        assert!(View::of(&Signal::Tokens { positions: 1, levels: 1 }, 0).is_err());
    }
}
