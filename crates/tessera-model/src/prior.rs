//! A prior: a model of the codes of an autoencoder.
//!
//! Its folder may hold, as `tokenizer/`, the model folder of that autoencoder, so that it is complete for whoever
//! generates.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Device, Tensor};
use tessera_nn::parameters::Stage;
use tessera_nn::prior::Prior;

use crate::error::ModelError;
use crate::file::{CodesFile, ModelFile};
use crate::folder::{self, Stored};
use crate::opened::fill;
use crate::run;
use crate::tensors::{self, Values};
use crate::words::Weights;

/// Name of the autoencoder's folder in that of a prior, or of a token set.
pub const TOKENIZER: &str = "tokenizer";

/// A prior that is open: frozen, so that nothing it computes makes a graph.
#[derive(Debug)]
pub struct OpenPrior {
    /// What there is to know of it.
    pub file: ModelFile,
    /// Its network.
    pub prior: Prior,
}

/// Opens the prior in a model folder.
///
/// # Errors
///
/// As [`crate::open`].
pub fn open_prior(path: &Path, device: Device) -> Result<OpenPrior, ModelError> {
    let (file, values) = folder::read(path)?;
    OpenPrior::build(file, path, device, |_| Ok(values))
}

/// Opens the prior in a checkpoint, as [`crate::open_checkpoint`] opens an autoencoder.
///
/// # Errors
///
/// As [`crate::open_checkpoint`].
pub fn open_prior_checkpoint(
    path: &Path,
    weights: Option<Weights>,
    device: Device,
) -> Result<OpenPrior, ModelError> {
    let (file, chosen) = run::read_prior(path, weights)?;
    OpenPrior::build(file, path, device, chosen)
}

impl OpenPrior {
    /// What its codes are.
    ///
    /// # Panics
    ///
    /// Never: it was built as a prior.
    pub fn codes(&self) -> &CodesFile {
        &self.file.prior().expect("it was built as a prior").codes
    }

    fn build(
        mut file: ModelFile,
        path: &Path,
        device: Device,
        choose: impl FnOnce(&[String]) -> Result<BTreeMap<String, Values>, String>,
    ) -> Result<Self, ModelError> {
        let refuse =
            |problem: String| ModelError::not_one(path, format!("cannot be used: {problem}"));
        let Some(of_prior) = file.prior() else {
            let problem = "is an autoencoder, and a prior is wanted here: name the run or model of a training with \
                           task = \"prior\"";
            return Err(ModelError::not_one(path, problem));
        };
        let (config, codes) = (of_prior.config().map_err(refuse)?, of_prior.codes.of_prior());
        let mut prior = Prior::new(&config, &codes, 0, file.precision.kinds(), device);
        prior.parameters.freeze(&[Stage::Prior]);
        fill(&mut file, named(&prior), choose).map_err(refuse)?;
        prior.parameters.refresh();
        Ok(Self { file, prior })
    }
}

impl Stored for OpenPrior {
    fn file(&self) -> &ModelFile {
        &self.file
    }

    fn values(&self) -> BTreeMap<String, Values> {
        tensors::values(named(&self.prior))
    }
}

/// Every tensor of a prior, with views that can be written to.
fn named(prior: &Prior) -> Vec<(String, Tensor)> {
    prior.parameters.named_views().map(|(name, tensor)| (name.to_owned(), tensor)).collect()
}
