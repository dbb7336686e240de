//! Pictures as PNG files: one alone, or many on a sheet.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::Path;

use tch::{Device, Kind, Tensor};
use tessera_nn::Signal;

use crate::error::ApplyError;

/// Pixels between pictures of a sheet, and their gray.
const GAP: i64 = 2;
const BACKGROUND: i64 = 128;

/// Refuses samples that no picture shows.
pub(crate) fn check(signal: Signal) -> Result<(), String> {
    match signal {
        Signal::Image { channels: 1 | 3, .. } | Signal::Video { channels: 1 | 3, .. } => Ok(()),
        other => Err(format!(
            "a PNG file shows pictures and film of 1 or 3 channels, these samples are {other} of {}: use --format npy",
            other.channels()
        )),
    }
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
    let size = picture_hwc.size();
    let side = |axis: usize| {
        u32::try_from(size[axis])
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a side over 2^32 pixels"))
    };
    let pixels =
        Vec::<u8>::try_from(&picture_hwc.contiguous().view([-1])).map_err(io::Error::other)?;
    let mut encoder = png::Encoder::new(BufWriter::new(File::create(path)?), side(1)?, side(0)?);
    encoder.set_color(match size[2] {
        1 => png::ColorType::Grayscale,
        _ => png::ColorType::Rgb,
    });
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels)?;
    Ok(writer.finish()?)
}
