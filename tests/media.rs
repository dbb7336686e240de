//! Small sounds and films, written by hand.

use std::path::Path;

/// A sound of one channel, 16 bits and 8,000 instants a second, with `value` at each instant.
pub(crate) fn write_wav(path: &Path, instants: u32, value: impl FnMut(u32) -> i16) {
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + 2 * instants).to_le_bytes());
    bytes.extend(b"WAVEfmt ");
    bytes.extend(16u32.to_le_bytes());
    bytes.extend([1u16, 1].map(u16::to_le_bytes).concat());
    bytes.extend([8000u32, 16_000].map(u32::to_le_bytes).concat());
    bytes.extend([2u16, 16].map(u16::to_le_bytes).concat());
    bytes.extend(b"data");
    bytes.extend((2 * instants).to_le_bytes());
    bytes.extend((0..instants).map(value).flat_map(i16::to_le_bytes));
    std::fs::write(path, bytes).unwrap();
}

/// A film of so many pictures, a folder of them: squares in color, `value` at each frame and byte.
pub(crate) fn write_film(folder: &Path, frames: u32, side: u32, value: impl Fn(u32, u32) -> u8) {
    std::fs::create_dir_all(folder).unwrap();
    for frame in 0..frames {
        let mut bytes = format!("P6 {side} {side} 255\n").into_bytes();
        bytes.extend((0..3 * side * side).map(|at| value(frame, at)));
        std::fs::write(folder.join(format!("{frame:03}.ppm")), bytes).unwrap();
    }
}
