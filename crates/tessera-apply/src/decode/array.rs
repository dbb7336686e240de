//! A NumPy array that is written sample by sample.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use tch::{Kind, Tensor};
use tessera_nn::Signal;

use crate::error::ApplyError;

/// Bytes of the header, a multiple of 64: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.
const HEADER: usize = 128;

/// An array in the making, under a name that is not yet its own.
pub(super) struct Array {
    path: PathBuf,
    partial: PathBuf,
    file: BufWriter<File>,
}

impl Array {
    /// Begins an array of so many raw samples.
    pub(super) fn create(path: &Path, num: usize, signal: Signal) -> Result<Self, ApplyError> {
        let partial = path.with_extension("npy.partial");
        let file = File::create(&partial).map_err(ApplyError::file("make", &partial))?;
        let mut array = Self { path: path.to_owned(), partial, file: BufWriter::new(file) };
        array.write(&header(num, signal))?;
        Ok(array)
    }

    /// Adds a sample.
    pub(super) fn add(&mut self, raw: &Tensor) -> Result<(), ApplyError> {
        let bytes = raw.contiguous().view([-1]).view_dtype(Kind::Uint8);
        self.write(&Vec::<u8>::try_from(&bytes)?)
    }

    /// Gives the array its name.
    pub(super) fn finish(mut self) -> Result<(), ApplyError> {
        self.file.flush().map_err(ApplyError::file("write", &self.partial))?;
        fs::rename(&self.partial, &self.path).map_err(ApplyError::file("rename", &self.partial))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ApplyError> {
        self.file.write_all(bytes).map_err(ApplyError::file("write", &self.partial))
    }
}

/// The header of version 1.0 of raw samples.
fn header(num: usize, signal: Signal) -> Vec<u8> {
    let kind = match signal {
        Signal::Audio { .. } => "<i2",
        _ => "|u1",
    };
    let axes: Vec<i64> =
        [num as i64].into_iter().chain(signal.axes()).chain([signal.channels()]).collect();
    npy_header(kind, &axes)
}

/// The header of version 1.0 of an array of this kind, such as `<f4`.
pub(crate) fn npy_header(kind: &str, axes: &[i64]) -> Vec<u8> {
    let mut shape: Vec<String> = axes.iter().map(ToString::to_string).collect();
    if let [alone] = shape.as_mut_slice() {
        alone.push(','); // a tuple of one
    }
    let shape = shape.join(", ");
    let words = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}");
    let len = HEADER - 10;
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend_from_slice(&(len as u16).to_le_bytes());
    header.extend_from_slice(format!("{words:<width$}\n", width = len - 1).as_bytes());
    header
}
