//! What people look at and listen to: pictures on a sheet, sound in a file and as spectrograms, film that moves and as a
//! sheet by time.
//!
//! Knows raw samples only, as [`Signal::to_raw`] gives them, and what they are.

use std::io;

use tch::Tensor;
use tessera_model::media;
use tessera_nn::Signal;
use tessera_nn::spectrogram::Spectrogram;

use super::grid::{lay_out_parts, reconstruction_png, sample_png};
use crate::engine::metrics::picture::{
    EncodedFilm, EncodedWav, Exhibit, ImageShape, RECONSTRUCTIONS, SAMPLES,
};
use crate::error::TrainError;

/// Pictures side by side.
const COLUMNS: usize = 8;
/// Films that are shown.
const FILMS: usize = 4;
/// Silence between two sounds, in seconds.
const PAUSE: f64 = 0.25;

/// What raw samples are, beyond their signal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    pub(super) signal: Signal,
    /// Instants a second of sound; 0 for others.
    pub(super) sample_rate: u32,
}

impl Kind {
    /// Size of a picture of these samples; none where there is no picture of them, or one of other than 1 or 3 channels.
    fn picture(self) -> Option<ImageShape> {
        let (Signal::Image { channels, height, width }
        | Signal::Video { channels, height, width, .. }) = self.signal
        else {
            return None;
        };
        let [height, width, channels] = [height, width, channels].map(|size| size as usize);
        matches!(channels, 1 | 3).then_some(ImageShape { height, width, channels })
    }
}

/// Inputs beside what a model has made of them: raw samples of equal shape.
///
/// # Errors
///
/// [`TrainError`] where they cannot be encoded.
pub(super) fn reconstructions(
    kind: Kind,
    inputs: &Tensor,
    outputs: &Tensor,
) -> Result<Vec<Exhibit>, TrainError> {
    if inputs.size()[0] == 0 {
        return Ok(Vec::new());
    }
    match (kind.signal, kind.picture()) {
        (Signal::Image { .. }, Some(shape)) => {
            let [inputs, outputs] = [bytes(inputs)?, bytes(outputs)?];
            let sheet = reconstruction_png(&inputs, &outputs, shape, COLUMNS);
            Ok(vec![Exhibit::Picture(encoded(sheet))])
        }
        (Signal::Video { .. }, Some(shape)) => {
            let [inputs, outputs] = [inputs, outputs].map(|raw| first(raw, FILMS));
            let [still_in, still_out] = [bytes(&moments(&inputs))?, bytes(&moments(&outputs))?];
            let columns = moments(&inputs).size()[1] as usize;
            let sheet = reconstruction_png(&still_in, &still_out, shape, columns);
            let film = film(shape, &[&inputs, &outputs], RECONSTRUCTIONS)?;
            Ok(vec![Exhibit::Picture(encoded(sheet)), film])
        }
        (Signal::Audio { .. }, _) => {
            let both = Tensor::stack(&[inputs, outputs], 1).flatten(0, 1);
            let (inputs, shape) = spectrograms(kind, inputs)?;
            let (outputs, _) = spectrograms(kind, outputs)?;
            let sheet = reconstruction_png(&inputs, &outputs, shape, COLUMNS);
            Ok(vec![Exhibit::Picture(encoded(sheet)), sound(kind, &both, RECONSTRUCTIONS)?])
        }
        _ => Ok(Vec::new()),
    }
}

/// Raw samples alone.
///
/// # Errors
///
/// [`TrainError`] where they cannot be encoded.
pub(super) fn samples(kind: Kind, raw: &Tensor) -> Result<Vec<Exhibit>, TrainError> {
    match (kind.signal, kind.picture()) {
        (Signal::Image { .. }, Some(shape)) => {
            Ok(vec![Exhibit::Picture(encoded(sample_png(&bytes(raw)?, shape, COLUMNS)))])
        }
        (Signal::Video { .. }, Some(shape)) => {
            let still = moments(raw);
            let sheet = sample_png(&bytes(&still)?, shape, still.size()[1] as usize);
            Ok(vec![Exhibit::Picture(encoded(sheet)), film(shape, &[raw], SAMPLES)?])
        }
        (Signal::Audio { .. }, _) => {
            let (levels, shape) = spectrograms(kind, raw)?;
            let sheet = sample_png(&levels, shape, COLUMNS);
            Ok(vec![Exhibit::Picture(encoded(sheet)), sound(kind, raw, SAMPLES)?])
        }
        _ => Ok(Vec::new()),
    }
}

fn encoded<T>(picture: io::Result<T>) -> T {
    picture.expect("samples are of one size, which fits a picture")
}

/// Spectrograms of sounds `[N, T, C]` int16, one after the other, and the size of one.
fn spectrograms(kind: Kind, raw_ntc: &Tensor) -> Result<(Vec<u8>, ImageShape), TrainError> {
    let waves_nct = kind.signal.from_raw(raw_ntc, tch::Kind::Double);
    let drawn = Spectrogram::of_length(waves_nct.size()[2]);
    let pictures: Vec<Tensor> =
        waves_nct.unbind(0).iter().map(|waves_ct| drawn.draw(waves_ct)).collect();
    let size = pictures[0].size();
    let shape = ImageShape { height: size[0] as usize, width: size[1] as usize, channels: 1 };
    Ok((bytes(&Tensor::stack(&pictures, 0))?, shape))
}

/// Sounds `[N, T, C]` int16 one after the other, with a pause behind each.
fn sound(kind: Kind, raw_ntc: &Tensor, shows: &'static str) -> Result<Exhibit, TrainError> {
    let channels = kind.signal.channels();
    let pause = (f64::from(kind.sample_rate) * PAUSE) as i64;
    let with_pause_ntc = raw_ntc.constant_pad_nd([0, 0, 0, pause]);
    let numbers = Vec::<i16>::try_from(with_pause_ntc.flatten(0, -1))?;
    let wav = EncodedWav::encode(&numbers, channels as u16, kind.sample_rate, shows);
    Ok(Exhibit::Sound(wav.expect("some seconds of sound fit a file")))
}

/// Films of each part `[N, T, H, W, C]`, side by side, those of one part below those of the one before.
fn film(shape: ImageShape, parts: &[&Tensor], shows: &'static str) -> Result<Exhibit, TrainError> {
    let (mut pixels, mut size) = (Vec::new(), shape);
    for moment in 0..parts[0].size()[1] {
        let stills: Result<Vec<_>, _> =
            parts.iter().map(|part| bytes(&part.select(1, moment))).collect();
        let stills = stills?;
        let stills: Vec<&[u8]> = stills.iter().map(Vec::as_slice).collect();
        let (grid, of_moment) = lay_out_parts(&stills, shape, COLUMNS);
        size = grid;
        pixels.extend(of_moment);
    }
    let png = encoded(media::animated_png(&pixels, size, media::FRAMES_PER_SECOND));
    Ok(Exhibit::Film(EncodedFilm { png, shows }))
}

/// Pictures of films `[N, T, H, W, C]` evenly over their time, the first and the last among them: `[N, M, H, W, C]`.
fn moments(raw: &Tensor) -> Tensor {
    raw.index_select(1, &Tensor::from_slice(&media::moments(raw.size()[1])))
}

fn first(raw: &Tensor, most: usize) -> Tensor {
    raw.narrow(0, 0, raw.size()[0].min(most as i64))
}

fn bytes(raw: &Tensor) -> Result<Vec<u8>, TrainError> {
    Ok(Vec::<u8>::try_from(raw.contiguous().flatten(0, -1))?)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tch::Device;

    use super::*;

    fn numbers(shape: &[i64], kind: tch::Kind) -> Tensor {
        Tensor::arange(shape.iter().product::<i64>(), (tch::Kind::Int64, Device::Cpu))
            .remainder(251)
            .to_kind(kind)
            .view(shape)
    }

    /// By hand: two inputs and outputs of 100 instants, a pause of 2 behind each: 4 times 102 instants of 2 bytes, and
    /// 44 bytes before them.
    #[test]
    fn an_output_is_heard_behind_its_input() {
        let signal = Signal::Audio { channels: 1, samples: 100 };
        let kind = Kind { signal, sample_rate: 8 };
        let inputs = numbers(&[2, 100, 1], tch::Kind::Int16);
        let shown = reconstructions(kind, &inputs, &(&inputs + 1)).unwrap();
        let [Exhibit::Picture(sheet), Exhibit::Sound(sound)] = shown.as_slice() else {
            panic!("{shown:?}")
        };
        // A window of 32 has 17 bins, and 100 instants are 13 steps of 8: six times as large, so that a side has 96.
        assert_eq!(
            (sheet.shape.width, sheet.shape.height),
            (2 * (13 * 6 + 2) + 2, 3 * (17 * 6 + 2) + 2)
        );
        assert_eq!((sound.len, sound.wav.len()), (408, 44 + 816));
        let word =
            |at: usize| i16::from_le_bytes(sound.wav[44 + 2 * at..][..2].try_into().unwrap());
        assert_eq!([word(0), word(99), word(100), word(101), word(102)], [0, 99, 0, 0, 1]);
        assert_eq!(word(204), 100, "the second input");
    }

    /// By hand: five moments of two films, which are 2 x 3 pixels: sheets of five columns, three rows a film; a film of
    /// five pictures.
    #[test]
    fn film_moves_and_lies_on_a_sheet_by_time() {
        let signal = Signal::Video { channels: 3, frames: 5, height: 2, width: 3 };
        let kind = Kind { signal, sample_rate: 0 };
        let inputs = numbers(&[2, 5, 2, 3, 3], tch::Kind::Uint8);
        let shown = reconstructions(kind, &inputs, &inputs).unwrap();
        let [Exhibit::Picture(sheet), Exhibit::Film(film)] = shown.as_slice() else {
            panic!("{shown:?}")
        };
        // Each pixel becomes 32 x 32.
        assert_eq!((sheet.shape.width, sheet.shape.height), (5 * 98 + 2, 2 * (3 * 66 + 2)));
        let reader = png::Decoder::new(Cursor::new(&film.png)).read_info().unwrap();
        let info = reader.info();
        assert_eq!(info.animation_control.unwrap().num_frames, 5);
        assert_eq!((info.width, info.height), (2 * 98 + 2, 2 * 66 + 2));
        let alone = samples(kind, &inputs).unwrap();
        assert_eq!(alone.len(), 2);
    }

    #[test]
    fn what_cannot_be_shown_is_not() {
        let signal = Signal::Image { channels: 2, height: 2, width: 2 };
        let raw = numbers(&[1, 2, 2, 2], tch::Kind::Uint8);
        let kind = Kind { signal, sample_rate: 0 };
        assert!(reconstructions(kind, &raw, &raw).unwrap().is_empty());
        assert!(samples(kind, &raw).unwrap().is_empty());
    }
}
