//! Samples as files that people look at and listen to: a picture or a sheet of many as PNG, sound as WAV, film as animated PNG.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tch::{Device, Kind, Tensor};
use tessera_model::OpenModel;
use tessera_model::media::{self, ImageShape};
use tessera_nn::Signal;
use tessera_nn::spectrogram::Spectrogram;

use crate::error::ApplyError;

/// Pixels between pictures of a sheet, and their gray.
const GAP: i64 = 2;
const BACKGROUND: i64 = 128;

/// Refuses samples that no picture shows.
pub(crate) fn check(signal: Signal) -> Result<(), String> {
    match signal {
        Signal::Image { channels: 1 | 3, .. } | Signal::Video { channels: 1 | 3, .. } => Ok(()),
        other => Err(format!(
            "a PNG file shows pictures and film of 1 or 3 channels, these samples are {other} of {}: leave out --grid, or \
             use --format npy",
            other.channels()
        )),
    }
}

/// Refuses samples that nothing shows: they have no file of their own.
pub(crate) fn check_alone(signal: Signal) -> Result<(), String> {
    match signal {
        Signal::Audio { .. } => Ok(()),
        other => check(other),
    }
}

/// The folder that samples go to where nobody names one, and how the names of their files end.
pub(crate) fn names(signal: Signal) -> (&'static str, &'static str) {
    match signal {
        Signal::Audio { .. } => ("sounds", "wav"),
        Signal::Video { .. } => ("films", "apng"),
        Signal::Image { .. } | Signal::Tokens { .. } => ("pictures", "png"),
    }
}

/// Writes a raw sample to a file of its own in `folder`: a picture as PNG, sound as WAV, film as animated PNG.
pub(crate) fn write_alone(
    folder: &Path,
    stem: &str,
    raw: &Tensor,
    model: &OpenModel,
) -> Result<(), ApplyError> {
    let signal = model.signal();
    let path: PathBuf = folder.join(format!("{stem}.{}", names(signal).1));
    let rate = model.file.autoencoder().shape.sample_rate;
    let encoded = encoded_alone(raw, signal, rate);
    encoded.and_then(|bytes| fs::write(&path, bytes)).map_err(ApplyError::file("write", &path))
}

fn encoded_alone(raw: &Tensor, signal: Signal, sample_rate: u32) -> io::Result<Vec<u8>> {
    match signal {
        Signal::Audio { channels, .. } => {
            let numbers = Vec::<i16>::try_from(raw.contiguous().view([-1]));
            media::wav(&numbers.map_err(io::Error::other)?, channels as u16, sample_rate)
        }
        Signal::Video { .. } => {
            let shape = shape_of(&raw.get(0));
            media::animated_png(&bytes_of(raw)?, shape, media::FRAMES_PER_SECOND)
        }
        Signal::Image { .. } | Signal::Tokens { .. } => media::png(&bytes_of(raw)?, shape_of(raw)),
    }
}

fn shape_of(picture_hwc: &Tensor) -> ImageShape {
    let size = picture_hwc.size();
    let [height, width, channels] = [0, 1, 2].map(|axis: usize| size[axis] as usize);
    ImageShape { height, width, channels }
}

fn bytes_of(raw: &Tensor) -> io::Result<Vec<u8>> {
    Vec::<u8>::try_from(raw.contiguous().view([-1])).map_err(io::Error::other)
}

/// Writes raw pictures `[H, W, C]` (of film `[T, H, W, C]`, its pictures side by side) to one file, in rows that make a
/// square of them.
pub(crate) fn write(path: &Path, raw: &[Tensor], signal: Signal) -> Result<(), ApplyError> {
    write_rows(path, raw, (raw.len() as f64).sqrt().ceil() as i64, signal)
}

/// Writes raw pictures, as [`write`] does, in rows of so many.
pub(crate) fn write_rows(
    path: &Path,
    raw: &[Tensor],
    columns: i64,
    signal: Signal,
) -> Result<(), ApplyError> {
    let pictures: Vec<Tensor> = raw.iter().map(|raw| strip(raw, signal)).collect();
    let sheet_hwc = sheet(&pictures, columns);
    encode(path, &sheet_hwc).map_err(ApplyError::file("write", path))
}

/// Writes raw samples to one file in rows of so many: pictures as they are, of sound (or its bytes) the spectrogram, of film
/// moments side by side.
pub(crate) fn write_looks(
    path: &Path,
    raw: &[Tensor],
    columns: i64,
    signal: Signal,
) -> Result<(), ApplyError> {
    let pictures: Vec<Tensor> = raw.iter().map(|raw| look(raw, signal)).collect();
    encode(path, &sheet(&pictures, columns)).map_err(ApplyError::file("write", path))
}

/// One sample as a picture `[H, W, C]` that shows what people can see of it.
fn look(raw: &Tensor, signal: Signal) -> Tensor {
    match signal {
        Signal::Audio { samples, .. } => {
            let waves_nct = signal.from_raw(&raw.unsqueeze(0), Kind::Double);
            Spectrogram::of_length(samples).draw(&waves_nct.get(0)).unsqueeze(-1)
        }
        Signal::Video { frames, .. } => {
            strip(&raw.index_select(0, &Tensor::from_slice(&media::moments(frames))), signal)
        }
        Signal::Image { .. } | Signal::Tokens { .. } => raw.shallow_clone(),
    }
}

/// One sample as a picture `[H, W, C]`.
fn strip(raw: &Tensor, signal: Signal) -> Tensor {
    match signal {
        Signal::Video { .. } => Tensor::cat(&raw.unbind(0), 1),
        _ => raw.shallow_clone(),
    }
}

/// Pictures of one size in rows of so many; one alone as it is.
fn sheet(pictures: &[Tensor], columns: i64) -> Tensor {
    let first = match pictures {
        [] => return Tensor::full([1, 1, 1], BACKGROUND, (Kind::Uint8, Device::Cpu)),
        [alone] => return alone.shallow_clone(),
        [first, ..] => first,
    };
    let (size, num) = (first.size(), pictures.len() as i64);
    let rows = (num + columns - 1) / columns;
    let along = |count: i64, side: i64| count * (side + GAP) + GAP;
    let shape = [along(rows, size[0]), along(columns, size[1]), size[2]];
    let sheet = Tensor::full(shape, BACKGROUND, (Kind::Uint8, Device::Cpu));
    for (at, picture) in (0..).zip(pictures) {
        let (row, column) = (at / columns, at % columns);
        let rows = sheet.narrow(0, along(row, size[0]), size[0]);
        rows.narrow(1, along(column, size[1]), size[1]).copy_(picture);
    }
    sheet
}

fn encode(path: &Path, picture_hwc: &Tensor) -> io::Result<()> {
    fs::write(path, media::png(&bytes_of(picture_hwc)?, shape_of(picture_hwc))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(shape: &[i64], kind: Kind) -> Tensor {
        Tensor::arange(shape.iter().product::<i64>(), (kind, Device::Cpu)).view(shape)
    }

    /// By hand: 44 bytes before three instants of two numbers; a PNG file with and without animation.
    #[test]
    fn each_kind_of_sample_has_a_file_that_shows_it() {
        let sound = Signal::Audio { channels: 2, samples: 3 };
        let wav = encoded_alone(&count(&[3, 2], Kind::Int16), sound, 8000).unwrap();
        assert_eq!((&wav[..4], wav.len()), (&b"RIFF"[..], 44 + 12));
        assert_eq!(wav[44..48], [0, 0, 1, 0]);
        let film = Signal::Video { channels: 3, frames: 4, height: 2, width: 5 };
        let moving = encoded_alone(&count(&[4, 2, 5, 3], Kind::Uint8), film, 0).unwrap();
        let image = Signal::Image { channels: 3, height: 2, width: 5 };
        let still = encoded_alone(&count(&[2, 5, 3], Kind::Uint8), image, 0).unwrap();
        let has = |file: &[u8], chunk: &[u8]| file.windows(4).any(|four| four == chunk);
        assert!(has(&moving, b"acTL") && has(&moving, b"fdAT") && !has(&still, b"acTL"));
        assert_eq!(
            [names(sound), names(film), names(image)].map(|(_, end)| end),
            ["wav", "apng", "png"]
        );
        assert!(check_alone(sound).is_ok() && check(sound).is_err());
    }
    /// By hand: a window of 32 instants has 17 bins, 100 instants are 13 columns; of 17 frames of 5 pixels 8 are shown.
    #[test]
    fn sound_looks_like_its_spectrogram_and_film_like_its_moments() {
        let sound = Signal::Audio { channels: 2, samples: 100 };
        let words = count(&[100, 2], Kind::Int16) * 100;
        let drawn = look(&words, sound);
        assert_eq!((drawn.size(), drawn.kind()), (vec![17, 13, 1], Kind::Uint8));
        assert_eq!(look(&words.view([-1]).view_dtype(Kind::Uint8), sound), drawn, "or its bytes");
        let film = Signal::Video { channels: 3, frames: 17, height: 2, width: 5 };
        let raw = count(&[17, 2, 5, 3], Kind::Uint8);
        let drawn = look(&raw, film);
        assert_eq!(drawn.size(), [2, 40, 3]);
        assert_eq!(drawn.narrow(1, 20, 5), raw.get(9), "0, 2, 4, 6, 9");
    }
}
