//! The numbers of a step that ranks sum beside gradients and statistics: losses, the stop flag,
//! and the check that ranks still agree.

use std::time::Duration;

use tch::{Device, Kind, Tensor};
use tessera_comm::{Mark, RankDevice, desync};
use tessera_nn::parameters::Parameters;
use tessera_nn::{VqVae, to_device};
use xxhash_rust::xxh3::Xxh3;

use crate::checkpoint::saver;
use crate::error::TrainError;
use crate::training::StepInput;

/// Scalars before the desync numbers: reconstruction, quantiser's losses, stop flag, samples
/// skipped, how far ranks are with a save.
const HEAD: usize = 4 + saver::NUMBERS;
/// Scalars of a step.
pub(crate) const LEN: i64 = (HEAD + desync::NUMBERS) as i64;

/// The reduced scalars of a step, the same on every rank.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reduced {
    /// The step they belong to, from 0.
    pub step: u64,
    /// Mean squared error over the global batch.
    pub recon_mse: f64,
    /// The quantiser's weighted losses over the global batch.
    pub quantizer_loss: f64,
    /// Whether any rank asked to stop.
    pub stop: bool,
    /// How many ranks are done with the save on its way, or failed.
    pub(crate) saves: [f64; saver::NUMBERS],
}

/// Writes this rank's scalars: losses already divided by global counts, the stop flag, and a
/// hash of step, layout and, where ranks compare their state, that of parameters and quantiser.
pub(crate) fn write(
    scalars: &mut Tensor,
    model: &VqVae,
    input: StepInput,
    layout_hash: u64,
    recon: &Tensor,
    quantizer_loss: &Tensor,
) {
    let mut hash = Xxh3::new();
    hash.update(&[input.step, layout_hash].map(u64::to_le_bytes).concat());
    if input.compare_state {
        hash_state(model, &mut hash);
    }
    let host: Vec<f64> = [0.0, 0.0, f64::from(u8::from(input.stop)), input.num_skipped as f64]
        .into_iter()
        .chain(input.saves)
        .chain(desync::encode(hash.digest()))
        .collect();
    scalars.copy_(&to_device(Tensor::from_slice(&host), scalars.device()));
    scalars.get(0).copy_(&recon.detach());
    scalars.get(1).copy_(&quantizer_loss.detach());
}

/// The reduced scalars and, behind them, the norm of the gradient, in fp64.
pub(crate) fn with_norm(scalars: &Tensor, norm: &Tensor) -> Tensor {
    Tensor::cat(&[scalars.to_kind(Kind::Double), norm.view([1])], 0)
}

/// Scalars of a step on their way to the host.
#[derive(Debug)]
pub struct Arriving {
    step: u64,
    host: Tensor,
    mark: Mark,
}

impl Arriving {
    /// Begins to copy what [`Training::step`](crate::Training::step) returned for `step`; the
    /// host does not wait for the device.
    ///
    /// # Errors
    ///
    /// [`TrainError::Comm`] if the device has failed.
    pub fn fetch(step: u64, scalars: &Tensor, device: &RankDevice) -> Result<Self, TrainError> {
        // libtorch takes page-locked memory for such a copy, and it ends before the mark.
        let host = scalars.to_device_(Device::Cpu, Kind::Double, true, false);
        Ok(Self { step, host, mark: device.mark()? })
    }

    /// Reads them, once the device has come that far.
    ///
    /// # Errors
    ///
    /// Those of [`read_scalars`], and [`TrainError::Comm`] after `deadline`.
    pub fn read(self, world_size: usize, deadline: Duration) -> Result<Reduced, TrainError> {
        self.mark.wait(deadline)?;
        read_scalars(self.step, &self.host, world_size)
    }
}

/// A number of a step that should be finite and is not.
#[derive(Debug, Clone, PartialEq)]
pub struct NotFinite {
    /// Which number.
    pub what: &'static str,
    /// What it is.
    pub value: f64,
    /// The first tensor whose gradient holds such a value.
    pub tensor: Option<String>,
}

impl NotFinite {
    /// The error of a run that ends for it.
    pub(crate) fn in_step(self, step: u64) -> TrainError {
        let Self { what, value, tensor } = self;
        let of = tensor.map_or(String::new(), |name| format!(" (first in the gradient of {name})"));
        TrainError::NotFinite { what, step, value, of }
    }
}

/// Looks whether reduced losses and gradient are finite; waits for the device.
pub(crate) fn not_finite(
    scalars: &Tensor,
    norm: &Tensor,
    gradients: &Tensor,
    parameters: &Parameters,
) -> Option<NotFinite> {
    let numbers = [
        ("reconstruction loss", scalars.double_value(&[0])),
        ("quantiser's loss", scalars.double_value(&[1])),
        ("gradient norm", norm.double_value(&[])),
    ];
    let (what, value) = numbers.into_iter().find(|(_, value)| !value.is_finite())?;
    let is_bad = |tensor: &Tensor| tensor.isfinite().all().int64_value(&[]) == 0;
    let mut named = parameters.named_views(gradients);
    let tensor = named.find(|(_, tensor)| is_bad(tensor)).map(|(name, _)| name.to_owned());
    Some(NotFinite { what, value, tensor })
}

/// Reads the scalars that [`Training::step`](crate::Training::step) returned for `step`.
///
/// # Errors
///
/// [`TrainError::Mismatch`] if ranks do not agree on step, layout or state, and
/// [`TrainError::NotFinite`] if the loss is not a number. All ranks return the same.
pub fn read_scalars(step: u64, scalars: &Tensor, world_size: usize) -> Result<Reduced, TrainError> {
    let host: Vec<f64> = Vec::try_from(scalars)?;
    let norm = host[HEAD + desync::NUMBERS];
    if !desync::agree(&host[HEAD..HEAD + desync::NUMBERS], world_size) {
        return Err(TrainError::Mismatch(format!(
            "ranks disagree in step {}: their parameters, codebook or step count are no longer the \
             same; different kinds of processors, or different builds, in one run can cause this",
            step + 1
        )));
    }
    let numbers =
        [("reconstruction loss", host[0]), ("quantiser's loss", host[1]), ("gradient norm", norm)];
    for (what, value) in numbers {
        if !value.is_finite() {
            return Err(NotFinite { what, value, tensor: None }.in_step(step + 1));
        }
    }
    let saves = host[4..HEAD].try_into().expect("so many numbers");
    Ok(Reduced { step, recon_mse: host[0], quantizer_loss: host[1], stop: host[2] > 0.0, saves })
}

/// A hash of parameters and the quantiser's state.
pub(crate) fn state_hash(model: &VqVae) -> u64 {
    let mut hash = Xxh3::new();
    hash_state(model, &mut hash);
    hash.digest()
}

/// Hashes parameters and the quantiser's state, bit for bit.
fn hash_state(model: &VqVae, hash: &mut Xxh3) {
    let state = model.quantizer.state().into_iter().map(|(_, tensor)| tensor);
    for tensor in state.chain([model.parameters.flat().shallow_clone()]) {
        let tensor = tensor.to_device(Device::Cpu).contiguous();
        let mut bytes = vec![0u8; tensor.numel() * tensor.kind().elt_size_in_bytes()];
        tensor.copy_data_u8(&mut bytes, tensor.numel());
        hash.update(&bytes);
    }
}
