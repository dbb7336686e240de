//! A tensor in memory, as it is written and read.

use std::borrow::Cow;

use safetensors::tensor::{Dtype, View};

/// A tensor's values on the host, contiguous, little endian.
#[derive(Debug, Clone)]
pub struct HostTensor<'a> {
    /// Kind of the values.
    pub dtype: Dtype,
    /// Sizes of the axes.
    pub shape: Vec<usize>,
    /// The values.
    pub bytes: &'a [u8],
}

impl View for HostTensor<'_> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(self.bytes)
    }
    fn data_len(&self) -> usize {
        self.bytes.len()
    }
}
