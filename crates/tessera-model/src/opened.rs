//! A model that is open, whatever it was opened from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use tch::{Device, Tensor};
use tessera_nn::parameters::Stage;
use tessera_nn::{Signal, VqVae};

use crate::error::ModelError;
use crate::file::{Level, ModelFile, ModelKind};
use crate::folder::Stored;
use crate::hash::hashes;
use crate::prior::OpenPrior;
use crate::samples::signal_of;
use crate::tensors::{self, Values};
use crate::words::{Weights, Which};
use crate::{folder, prior, run};

/// Where a model is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelPath {
    /// In a run folder: a checkpoint of it, and which of its weights; none: those that its `eval.weights` names.
    Run {
        /// The run folder.
        folder: PathBuf,
        /// Which checkpoint.
        which: Which,
        /// Which weights.
        weights: Option<Weights>,
    },
    /// In a model folder.
    Model(PathBuf),
}

impl ModelPath {
    /// Opens the model.
    ///
    /// # Errors
    ///
    /// [`ModelError`].
    pub fn open(&self, device: Device) -> Result<OpenModel, ModelError> {
        match self {
            Self::Run { folder, which, weights } => run::open_run(folder, *which, *weights, device),
            Self::Model(path) => folder::open(path, device),
        }
    }

    /// Opens whatever model is there.
    ///
    /// # Errors
    ///
    /// [`ModelError`].
    pub fn open_any(&self, device: Device) -> Result<Box<dyn Stored>, ModelError> {
        let is_prior = match self {
            Self::Run { folder, which, .. } => {
                run::is_prior(&run::find_checkpoint(folder, *which)?)?
            }
            Self::Model(path) => folder::read_file(path)?.prior().is_some(),
        };
        Ok(match is_prior {
            true => Box::new(self.open_prior(device)?),
            false => Box::new(self.open(device)?),
        })
    }

    /// Opens the prior that is there.
    ///
    /// # Errors
    ///
    /// [`ModelError`].
    pub fn open_prior(&self, device: Device) -> Result<OpenPrior, ModelError> {
        match self {
            Self::Run { folder, which, weights } => prior::open_prior_checkpoint(
                &run::find_checkpoint(folder, *which)?,
                *weights,
                device,
            ),
            Self::Model(path) => prior::open_prior(path, device),
        }
    }
}

/// A model that is open: frozen, so that nothing it computes makes a graph.
#[derive(Debug)]
pub struct OpenModel {
    /// What there is to know of it.
    pub file: ModelFile,
    /// Its networks.
    pub vqvae: VqVae,
}

impl OpenModel {
    /// What its samples are.
    pub fn signal(&self) -> Signal {
        self.vqvae.signal
    }

    /// Every tensor that decides what it computes, by name.
    pub fn named(&self) -> BTreeMap<String, Tensor> {
        named(&self.vqvae).into_iter().collect()
    }

    /// The same with the hash of what it is now, for whoever made it otherwise than by opening it.
    #[must_use]
    pub fn hashed(mut self) -> Self {
        self.file.hash = self.file.hash_with(&hashes(&self.values()));
        self
    }

    /// Builds what `file` describes; `choose` gives the values of the tensors of these names. The hash is set, and what
    /// the file says of levels is made anew.
    pub(crate) fn build(
        mut file: ModelFile,
        path: &Path,
        device: Device,
        choose: impl FnOnce(&[String]) -> Result<BTreeMap<String, Values>, String>,
    ) -> Result<Self, ModelError> {
        let refuse =
            |problem: String| ModelError::not_one(path, format!("cannot be used: {problem}"));
        if file.prior().is_some() {
            let problem = "is a prior, and an autoencoder is wanted here: name the model that makes its codes";
            return Err(ModelError::not_one(path, problem));
        }
        let autoencoder = file.autoencoder();
        let (config, signal) =
            (autoencoder.config().map_err(refuse)?, signal_of(autoencoder.shape));
        let mut vqvae = VqVae::new(&config, &signal, 0, file.precision.kinds(), device);
        vqvae.parameters.freeze(&[Stage::Quantizer, Stage::Encoder, Stage::Decoder]);
        fill(&mut file, named(&vqvae), choose).map_err(refuse)?;
        vqvae.parameters.refresh();
        Ok(Self { file, vqvae })
    }
}

/// An autoencoder of these tensors by name, on the CPU: hashed, and with its levels. `from` is for messages.
///
/// # Errors
///
/// [`ModelError::NotOne`] where `file` describes no model of this version, or the tensors are not those of its model.
pub fn assemble(
    file: ModelFile,
    tensors: BTreeMap<String, Tensor>,
    from: &Path,
) -> Result<OpenModel, ModelError> {
    let values = tensors::values(tensors.into_iter().collect());
    let mut model = OpenModel::build(file, from, Device::Cpu, |names| {
        match values.keys().find(|name| !names.contains(name)) {
            Some(name) => Err(format!("{name}, as it is called here, has no place in its model")),
            None => Ok(values),
        }
    })?;
    let levels = Level::of(&model.vqvae);
    if let ModelKind::Autoencoder(file) = &mut model.file.kind {
        file.levels = levels;
    }
    Ok(model)
}

/// Writes what is chosen of these tensors, by name, into them, and sets the hash.
pub(crate) fn fill(
    file: &mut ModelFile,
    named: Vec<(String, Tensor)>,
    choose: impl FnOnce(&[String]) -> Result<BTreeMap<String, Values>, String>,
) -> Result<(), String> {
    let names: Vec<String> = named.iter().map(|(name, _)| name.clone()).collect();
    let values = choose(&names)?;
    tensors::fill(named, &values)?;
    file.hash = file.hash_with(&hashes(&values));
    Ok(())
}

impl Stored for OpenModel {
    fn file(&self) -> &ModelFile {
        &self.file
    }

    fn values(&self) -> BTreeMap<String, Values> {
        tensors::values(named(&self.vqvae))
    }
}

/// Every tensor of a model that decides what it computes, with views that can be written to: parameters, and what
/// quantisers have besides.
fn named(vqvae: &VqVae) -> Vec<(String, Tensor)> {
    let parameters = vqvae.parameters.named_views().map(|(name, tensor)| (name.to_owned(), tensor));
    let state = vqvae.quantizers.iter().flat_map(|quantizer| quantizer.state());
    parameters.chain(state).collect()
}
