//! What goes into a model and comes out of it: pictures, sound, film, or tokens.
//!
//! | signal | tensor | raw samples in memory | values |
//! |---|---|---|---|
//! | picture | `[N, C, H, W]` | uint8 `[N, H, W, C]` | [0, 1]: byte / 255 |
//! | sound | `[N, C, T]` | int16 `[N, T, C]`, or its bytes | [-1, 1): number / 32768 |
//! | film | `[N, C, T, H, W]` | uint8 `[N, T, H, W, C]` | [0, 1]: byte / 255 |
//! | tokens | `[N, P, L]` | whole numbers `[N, P, L]`, or the bytes of int32 | int64 |
//!
//! Channels come first in the shape and last in memory, as the samples lie on disk: nothing is
//! reordered on the way in. This module knows no files and no decoding, and resizes nothing.

use std::fmt;
use std::ops::RangeInclusive;

use tch::{Kind, Tensor};

/// What a sample is, with its sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// A picture, `[C, H, W]`.
    Image {
        /// Channels of color.
        channels: i64,
        /// Height in pixels.
        height: i64,
        /// Width in pixels.
        width: i64,
    },
    /// A window of sound, `[C, T]`.
    Audio {
        /// Channels of sound.
        channels: i64,
        /// Instants.
        samples: i64,
    },
    /// A clip of film, `[C, T, H, W]`.
    Video {
        /// Channels of color.
        channels: i64,
        /// Pictures.
        frames: i64,
        /// Height in pixels.
        height: i64,
        /// Width in pixels.
        width: i64,
    },
    /// Indices of codes, `[P, L]`.
    Tokens {
        /// Positions, in row-major order where they had several axes.
        positions: i64,
        /// Indices of each position.
        levels: i64,
    },
}

/// The plural that a sentence calls these samples by.
impl fmt::Display for Signal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Image { .. } => "pictures",
            Self::Audio { .. } => "sound",
            Self::Video { .. } => "film",
            Self::Tokens { .. } => "tokens",
        })
    }
}

impl Signal {
    /// Channels of a sample; levels of tokens.
    pub fn channels(&self) -> i64 {
        match *self {
            Self::Image { channels, .. }
            | Self::Audio { channels, .. }
            | Self::Video { channels, .. } => channels,
            Self::Tokens { levels, .. } => levels,
        }
    }

    /// Sizes of the positional axes: height and width, instants, frames with height and width, or
    /// positions.
    pub fn axes(&self) -> Vec<i64> {
        match *self {
            Self::Image { height, width, .. } => vec![height, width],
            Self::Audio { samples, .. } => vec![samples],
            Self::Video { frames, height, width, .. } => vec![frames, height, width],
            Self::Tokens { positions, .. } => vec![positions],
        }
    }

    /// Shape of a batch of `num` samples.
    pub fn shape(&self, num: i64) -> Vec<i64> {
        match *self {
            Self::Tokens { positions, levels } => vec![num, positions, levels],
            _ => [vec![num, self.channels()], self.axes()].concat(),
        }
    }

    /// Values of one sample.
    pub fn num_values(&self) -> i64 {
        self.shape(1).iter().product()
    }

    /// The range that values lie in; none of tokens, whose range is that of their codebook.
    pub fn range(&self) -> Option<RangeInclusive<f64>> {
        match self {
            Self::Image { .. } | Self::Video { .. } => Some(0.0..=1.0),
            Self::Audio { .. } => Some(-1.0..=1.0),
            Self::Tokens { .. } => None,
        }
    }

    /// Raw samples as they lie in memory to the signal, of `kind` and on the same device. Sound is
    /// int16 `[N, T, C]`, or uint8 `[N, ..]` with its bytes in the machine's order. Tokens are whole
    /// numbers, or uint8 with the bytes of int32; they become int64 whatever `kind` is.
    ///
    /// # Panics
    ///
    /// If `raw` is not of the shape or kind that the module's table gives.
    pub fn from_raw(&self, raw: &Tensor, kind: Kind) -> Tensor {
        let num = raw.size()[0];
        match self {
            Self::Image { .. } | Self::Video { .. } => {
                assert_eq!((raw.kind(), raw.size()), (Kind::Uint8, self.raw_shape(num)));
                channels_first(&(raw.to_kind(kind) / 255.0))
            }
            Self::Audio { channels, samples } => {
                let words_ntc = match raw.kind() {
                    Kind::Uint8 => {
                        let bytes = raw.reshape([num, samples * channels * 2]);
                        bytes.view_dtype(Kind::Int16).view([num, *samples, *channels])
                    }
                    _ => raw.shallow_clone(),
                };
                assert_eq!(words_ntc.kind(), Kind::Int16, "sound is of int16, or bytes");
                assert_eq!(words_ntc.size(), self.raw_shape(num));
                channels_first(&(words_ntc.to_kind(kind) / 32768.0))
            }
            Self::Tokens { positions, levels } => {
                let codes_npl = match raw.kind() {
                    Kind::Uint8 => {
                        let bytes = raw.reshape([num, positions * levels * 4]);
                        bytes.view_dtype(Kind::Int).view([num, *positions, *levels])
                    }
                    _ => raw.shallow_clone(),
                };
                assert_eq!(codes_npl.size(), self.raw_shape(num));
                codes_npl.to_kind(Kind::Int64)
            }
        }
    }

    /// The signal to raw samples: clamped to what they can hold, rounded to the nearest. The way
    /// back of [`Self::from_raw`], bit for bit in float32 and float64.
    ///
    /// # Panics
    ///
    /// If `signal` is not of this shape.
    pub fn to_raw(&self, signal: &Tensor) -> Tensor {
        assert_eq!(signal.size(), self.shape(signal.size()[0]));
        match self {
            Self::Image { .. } | Self::Video { .. } => {
                (channels_last(signal).clamp(0.0, 1.0) * 255.0).round().to_kind(Kind::Uint8)
            }
            Self::Audio { .. } => {
                let words_ntc = (channels_last(signal) * 32768.0).round();
                words_ntc.clamp(-32768.0, 32767.0).to_kind(Kind::Int16)
            }
            Self::Tokens { .. } => signal.shallow_clone(),
        }
        .contiguous()
    }

    /// Shape of `num` raw samples.
    fn raw_shape(&self, num: i64) -> Vec<i64> {
        match self {
            Self::Tokens { .. } => self.shape(num),
            _ => [vec![num], self.axes(), vec![self.channels()]].concat(),
        }
    }
}

/// Latents `[N, D, ..]` to vectors `[N positions, D]`, for any number of positional axes: tokens
/// in row-major order. No copy where channels are last in memory.
pub fn to_vectors(latents_nd: &Tensor) -> Tensor {
    let dim = latents_nd.size()[1];
    channels_last(latents_nd).reshape([-1, dim])
}

/// Vectors `[N positions, D]` to the shape of `like`, `[N, D, ..]`, channels-last in memory.
///
/// # Panics
///
/// If the vectors are not as many as `like` has positions.
pub fn from_vectors(vectors_nd: &Tensor, like: &Tensor) -> Tensor {
    let mut shape = like.size();
    let dim = shape.remove(1);
    shape.push(dim);
    channels_first(&vectors_nd.view(shape.as_slice()))
}

/// `[N, C, ..]` to rows `[N, positions, C]`, a view where channels are last in memory.
pub(crate) fn rows(tensor: &Tensor) -> Tensor {
    tensor.flatten(2, -1).transpose(1, 2)
}

/// Film `[N, C, T, H, W]` to its frames `[N T, C, H, W]`, a view where channels are last in memory.
pub fn to_frames(film_ncthw: &Tensor) -> Tensor {
    film_ncthw.transpose(1, 2).flatten(0, 1)
}

/// Frames `[N T, C, H, W]` to film of T frames each, `[N, C, T, H, W]`: a view.
pub fn from_frames(frames_mchw: &Tensor, num_frames: i64) -> Tensor {
    let num = frames_mchw.size()[0] / num_frames.max(1);
    frames_mchw.unflatten(0, [num, num_frames]).transpose(1, 2)
}

/// `[N, C, ..]` to `[N, .., C]`, a view.
pub(crate) fn channels_last(tensor: &Tensor) -> Tensor {
    let axes: Vec<i64> = [0].into_iter().chain(2..tensor.dim() as i64).chain([1]).collect();
    tensor.permute(axes)
}

/// `[N, .., C]` to `[N, C, ..]`, a view.
pub(crate) fn channels_first(tensor: &Tensor) -> Tensor {
    let last = tensor.dim() as i64 - 1;
    let axes: Vec<i64> = [0, last].into_iter().chain(1..last).collect();
    tensor.permute(axes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    const IMAGE: Signal = Signal::Image { channels: 3, height: 2, width: 4 };
    const SOUND: Signal = Signal::Audio { channels: 2, samples: 5 };
    const FILM: Signal = Signal::Video { channels: 3, frames: 2, height: 2, width: 4 };

    fn count(shape: &[i64], kind: Kind) -> Tensor {
        Tensor::arange(shape.iter().product::<i64>(), (kind, Device::Cpu)).view(shape)
    }

    #[test]
    fn bytes_become_pictures_and_film_without_being_reordered() {
        let bytes_nhwc = count(&[2, 2, 4, 3], Kind::Uint8);
        let images_nchw = IMAGE.from_raw(&bytes_nhwc, Kind::Float);
        assert_eq!(images_nchw, (bytes_nhwc.to_kind(Kind::Float) / 255.0).permute([0, 3, 1, 2]));
        assert_eq!(images_nchw.stride(), [24, 1, 12, 3]);
        let film_ncthw = FILM.from_raw(&count(&[2, 2, 2, 4, 3], Kind::Uint8), Kind::Float);
        assert_eq!(film_ncthw.size(), FILM.shape(2));
        assert_eq!(film_ncthw.stride(), [48, 1, 24, 12, 3]);
    }

    /// By hand: the bytes 0x00 0x80 are -32768, which is -1; 0xff 0x7f are 32767.
    #[test]
    fn sound_comes_as_numbers_or_as_their_bytes() {
        let one = Signal::Audio { channels: 1, samples: 2 };
        let bytes = Tensor::from_slice(&[0u8, 0x80, 0xff, 0x7f]).view([1, 4]);
        let sound = one.from_raw(&bytes, Kind::Double).flatten(0, -1);
        assert_eq!(sound, Tensor::from_slice(&[-1.0, 32767.0 / 32768.0]));
        let words_ntc = count(&[3, 5, 2], Kind::Int16) - 15;
        let sound_nct = SOUND.from_raw(&words_ntc, Kind::Float);
        assert_eq!(sound_nct.size(), [3, 2, 5]);
        assert_eq!(sound_nct.double_value(&[1, 1, 2]), f64::from(10 + 4 + 1 - 15) / 32768.0);
        let bytes = words_ntc.view([3, 10]).view_dtype(Kind::Uint8);
        assert_eq!(SOUND.from_raw(&bytes, Kind::Float), sound_nct);
    }

    #[test]
    fn frames_of_film_lie_behind_one_another_in_memory() {
        for num in [0, 2] {
            let film_ncthw = FILM.from_raw(&count(&[num, 2, 2, 4, 3], Kind::Uint8), Kind::Float);
            let frames_mchw = to_frames(&film_ncthw);
            assert_eq!(frames_mchw.size(), [num * 2, 3, 2, 4]);
            assert_eq!(frames_mchw.data_ptr(), film_ncthw.data_ptr(), "nothing is copied");
            assert_eq!(from_frames(&frames_mchw, 2), film_ncthw);
            if num > 0 {
                assert_eq!(frames_mchw.get(3), film_ncthw.get(1).select(1, 1));
            }
        }
    }

    #[test]
    fn raw_samples_come_back_bit_for_bit_and_others_are_clamped() {
        for kind in [Kind::Float, Kind::Double] {
            let bytes = count(&[1, 16, 16, 1], Kind::Uint8);
            let image = Signal::Image { channels: 1, height: 16, width: 16 };
            assert_eq!(image.to_raw(&image.from_raw(&bytes, kind)), bytes);
            let words = Tensor::arange_start(-32768, 32768, (Kind::Int16, Device::Cpu));
            let words = words.view([1, 1 << 15, 2]);
            let sound = Signal::Audio { channels: 2, samples: 1 << 15 };
            assert_eq!(sound.to_raw(&sound.from_raw(&words, kind)), words);
        }
        let outside = Tensor::from_slice(&[-2.0, 2.0]).view([1, 2, 1]);
        let clamped = Signal::Audio { channels: 2, samples: 1 }.to_raw(&outside);
        assert_eq!(clamped.flatten(0, -1), Tensor::from_slice(&[-32768i16, 32767]));
        let outside = outside.view([1, 2, 1, 1]);
        let clamped = Signal::Image { channels: 2, height: 1, width: 1 }.to_raw(&outside);
        assert_eq!(clamped.flatten(0, -1), Tensor::from_slice(&[0u8, 255]));
    }

    #[test]
    fn tokens_are_whole_numbers_or_the_bytes_of_them() {
        let tokens = Signal::Tokens { positions: 4, levels: 2 };
        let raw = count(&[3, 4, 2], Kind::Int16);
        assert_eq!(tokens.from_raw(&raw, Kind::Float), raw.to_kind(Kind::Int64));
        let codes = count(&[3, 8], Kind::Int) * 70_000;
        let bytes = codes.view_dtype(Kind::Uint8);
        assert_eq!(bytes.size(), [3, 32]);
        let read = tokens.from_raw(&bytes, Kind::Float);
        assert_eq!(read, codes.view([3, 4, 2]).to_kind(Kind::Int64));
        assert_eq!((tokens.num_values(), tokens.range()), (8, None));
    }

    /// Row-major: the last axis is the fastest, the sample the slowest.
    #[test]
    fn vectors_keep_positions_in_order_for_any_number_of_axes() {
        for axes in [vec![5], vec![2, 3], vec![2, 3, 4], vec![0]] {
            let positions: i64 = axes.iter().product();
            let vectors_nd = count(&[2 * positions, 3], Kind::Float);
            let like = Tensor::zeros([vec![2, 3], axes].concat(), (Kind::Float, Device::Cpu));
            let latents = from_vectors(&vectors_nd, &like);
            assert_eq!(latents.size(), like.size());
            let back_nd = to_vectors(&latents);
            assert_eq!(back_nd, vectors_nd);
            assert_eq!(back_nd.data_ptr(), vectors_nd.data_ptr(), "nothing is copied");
        }
    }
}
