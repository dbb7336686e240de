//! Some of another source's samples.

use std::sync::Arc;

use crate::draw::Draw;
use crate::error::DataError;
use crate::file;
use crate::shape::SampleShape;
use crate::source::{Source, splits};

/// Samples of a source without splits of its own that belong to one split, by the hash of their
/// names.
pub(crate) struct Subset {
    inner: Arc<dyn Source>,
    ids: Vec<u64>,
    fingerprint: String,
}

impl Subset {
    /// The samples of `split`; none if there are none.
    pub(crate) fn by_hash(
        inner: Arc<dyn Source>,
        split: &str,
        holdout: f64,
    ) -> Result<Option<Self>, DataError> {
        let mut ids: Vec<u64> = (0..inner.num_samples()).collect();
        splits::keep(&mut ids, split, holdout, |_| None, |&id| inner.name(id))?;
        if ids.is_empty() {
            return Ok(None);
        }
        let described = format!("{} {split} {holdout}", inner.fingerprint());
        Ok(Some(Self { inner, ids, fingerprint: file::sha256_of(described.as_bytes()) }))
    }
}

impl Source for Subset {
    fn num_samples(&self) -> u64 {
        self.ids.len() as u64
    }

    fn shape(&self) -> SampleShape {
        self.inner.shape()
    }

    fn read(&self, id: u64, draw: Draw, out: &mut [u8]) -> Result<(), DataError> {
        self.inner.read(self.ids[id as usize], draw, out)
    }

    fn label(&self, id: u64) -> Result<Option<i64>, DataError> {
        self.inner.label(self.ids[id as usize])
    }

    fn name(&self, id: u64) -> String {
        self.inner.name(self.ids[id as usize])
    }

    fn origin(&self) -> Vec<String> {
        self.inner.origin()
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}
