//! Sound as one stream: every piece is coded with what the network remembers of those before it.
//!
//! A causal network hears no border between pieces, so what comes out is what it makes of the whole sound, but for the order of
//! sums; nothing but the last piece is filled with silence, and a sound of any length takes the memory of one piece. Encoder and
//! decoder see the same pieces whoever asks, so a decompressed file is, bit for bit, what a reconstruction is.

mod decode;
mod encode;

use tch::{Device, Kind, Tensor};
use tessera_codec::{Header, LevelShape};
use tessera_data::{Modality, SampleShape};
use tessera_model::{OpenModel, raw_samples};
use tessera_nn::backbone::conv1d;
use tessera_nn::{Signal, from_vectors, to_device, to_vectors};

pub(super) use self::decode::streams as decode_streams;
pub(super) use self::encode::streams as encode_streams;
use crate::error::ApplyError;

/// Pieces of a window of the model that a stream has, where nobody asks for a latency.
const OF_A_WINDOW: u32 = 16;

/// What a stream is cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pieces {
    /// Positions of codes.
    pub(super) positions: u32,
    /// Frames of sound.
    pub(super) frames: u32,
}

impl Pieces {
    /// Pieces of so many seconds, or of a part of the model's window, and at least as long as the network needs to begin.
    ///
    /// # Errors
    ///
    /// [`ApplyError::BadInput`] where the model has no stream.
    pub(super) fn of(model: &OpenModel, latency: Option<f64>) -> Result<Self, ApplyError> {
        let (hop, least, most) = hop_and_bounds(model)?;
        let shape = model.file.autoencoder().shape;
        let wanted = match latency {
            None => (shape.frames / hop).div_ceil(OF_A_WINDOW),
            // A number that is none, or too large a one, ends at an end of the range.
            Some(seconds) => (seconds * f64::from(shape.sample_rate) / f64::from(hop)) as u32,
        };
        let positions = wanted.clamp(least, most);
        Ok(Self { positions, frames: positions * hop })
    }

    /// Those of a file.
    ///
    /// # Errors
    ///
    /// What is wrong, in words that complete "the header of this compressed file ..".
    pub(super) fn of_header(model: &OpenModel, header: &Header) -> Result<Self, String> {
        let (hop, least, most) = hop_and_bounds(model).map_err(|error| error.to_string())?;
        let own = model.file.autoencoder().code_levels();
        let positions = header.levels[0].positions;
        let is_alike = |(told, own): (&LevelShape, &LevelShape)| {
            told.num_codes == own.num_codes && told.positions == positions
        };
        let levels = &header.levels;
        if levels.len() > own.len() || !levels.iter().zip(&own).all(is_alike) {
            return Err("tells of other levels of codes than its model has".to_owned());
        }
        // A piece is computed at once: what a header claims is bounded before memory is asked for.
        match (least..=most).contains(&positions) {
            true => Ok(Self { positions, frames: positions * hop }),
            false => Err(format!("tells of pieces of {positions} codes, not {least} to {most}")),
        }
    }

    /// Pieces that so many frames take.
    pub(super) fn num(self, frames: u64) -> u64 {
        frames.div_ceil(u64::from(self.frames))
    }

    /// What a piece is.
    pub(super) fn shape(self, model: &OpenModel) -> SampleShape {
        SampleShape { frames: self.frames, ..model.file.autoencoder().shape }
    }

    /// Levels of codes with the positions of a piece.
    pub(super) fn levels(self, levels: Vec<LevelShape>) -> Vec<LevelShape> {
        let of_a_piece = |level| LevelShape { positions: self.positions, ..level };
        levels.into_iter().map(of_a_piece).collect()
    }

    fn signal(self, model: &OpenModel) -> Signal {
        let channels = model.file.autoencoder().shape.channels;
        Signal::Audio { channels: i64::from(channels), samples: i64::from(self.frames) }
    }
}

/// Frames of a code, and positions that a piece of a stream has at least, so that the network can begin, and at most: a window.
fn hop_and_bounds(model: &OpenModel) -> Result<(u32, u32, u32), ApplyError> {
    let bad = |problem: String| ApplyError::BadInput(format!("--stream: {problem}"));
    let shape = model.file.autoencoder().shape;
    if shape.modality != Modality::Audio {
        return Err(bad("this model is of no sound: leave it out".to_owned()));
    }
    let encoder = conv1d::Stream::encoder(&model.vqvae).map_err(bad)?;
    let decoder = conv1d::Stream::decoder(&model.vqvae).map_err(bad)?;
    let positions = model.vqvae.num_positions()[0] as u32;
    let hop = shape.frames / positions;
    let least = (encoder.first_len() as u32).div_ceil(hop).max(decoder.first_len() as u32);
    Ok((hop, least, positions.max(least)))
}

/// Sound to codes.
pub(super) struct SoundEncoder<'a> {
    model: &'a OpenModel,
    pieces: Pieces,
    stream: conv1d::Stream<'a>,
    /// Pieces that came.
    num: u64,
}

impl<'a> SoundEncoder<'a> {
    /// Before the first piece.
    pub(super) fn new(model: &'a OpenModel, pieces: Pieces) -> Self {
        let stream = conv1d::Stream::encoder(&model.vqvae).expect("pieces are of a stream");
        Self { model, pieces, stream, num: 0 }
    }

    /// The codes of the next piece, level after level; a short piece is the last one, and ends in silence.
    ///
    /// # Errors
    ///
    /// [`ApplyError::NotFinite`].
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<u32>, ApplyError> {
        let _no_grad = tch::no_grad_guard();
        let vqvae = &self.model.vqvae;
        let shape = self.pieces.shape(self.model);
        let mut whole = bytes.to_vec();
        whole.resize(shape.num_bytes(), 0);
        let raw = to_device(raw_samples(&whole, shape), vqvae.device());
        let values = self.pieces.signal(self.model).from_raw(&raw, vqvae.kind());
        let latents = self.stream.push(&vqvae.seen(&values)).expect("a piece is whole");
        let latents_nd = to_vectors(&latents);
        if latents_nd.isfinite().all().int64_value(&[]) == 0 {
            return Err(ApplyError::NotFinite { sample: self.num });
        }
        self.num += 1;
        let indices_nl = vqvae.quantizers[0].tokenize(&vqvae.parameters, &latents_nd);
        let by_level = indices_nl.tr().contiguous().view([-1]).to_device(Device::Cpu);
        let codes = Vec::<i64>::try_from(by_level.to_kind(Kind::Int64))?;
        Ok(codes.into_iter().map(|code| code as u32).collect())
    }
}

/// Codes to sound.
pub(super) struct SoundDecoder<'a> {
    model: &'a OpenModel,
    pieces: Pieces,
    stream: conv1d::Stream<'a>,
    /// Levels that take part; none: all.
    num_levels: Option<usize>,
}

impl<'a> SoundDecoder<'a> {
    /// Before the first piece.
    pub(super) fn new(model: &'a OpenModel, pieces: Pieces, num_levels: Option<usize>) -> Self {
        let stream = conv1d::Stream::decoder(&model.vqvae).expect("pieces are of a stream");
        Self { model, pieces, stream, num_levels }
    }

    /// The bytes of the next piece, of its codes level after level; levels that are missing take no part.
    pub(super) fn push(&mut self, codes: &[u32]) -> Result<Vec<u8>, ApplyError> {
        let _no_grad = tch::no_grad_guard();
        let vqvae = &self.model.vqvae;
        let (quantizer, positions) = (&vqvae.quantizers[0], self.pieces.positions as usize);
        let all = self.model.file.autoencoder().code_levels().len();
        let kept = (codes.len() / positions).min(self.num_levels.unwrap_or(all));
        let mut flat: Vec<i64> = codes.iter().map(|&code| i64::from(code)).collect();
        flat.resize(all * positions, 0);
        let indices_ln = Tensor::from_slice(&flat).view([all as i64, positions as i64]);
        let mut indices_nl = to_device(indices_ln.tr().contiguous(), vqvae.device());
        if kept < all {
            indices_nl = quantizer.leave_out(&indices_nl, kept);
        }
        let codes_nd = quantizer.look_up(&vqvae.parameters, &indices_nl);
        let like = Tensor::zeros([1], (vqvae.kind(), vqvae.device()));
        let like = like.expand([1, quantizer.dim(), positions as i64], false);
        let output = self.stream.push(&from_vectors(&codes_nd, &like)).expect("a piece is whole");
        let range = vqvae.signal.range().expect("sound has one");
        let values = vqvae.values(&output).clamp(*range.start(), *range.end());
        let raw = self.pieces.signal(self.model).to_raw(&values).to_device(Device::Cpu);
        super::expand::bytes_of(&raw)
    }
}
