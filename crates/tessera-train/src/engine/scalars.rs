//! The numbers of a step that ranks sum beside gradients and statistics: losses, the stop flag,
//! and the check that ranks still agree.

use std::time::Duration;

use tch::{Device, Kind, Tensor};
use tessera_comm::{Mark, RankDevice, desync};
use tessera_nn::to_device;
use xxhash_rust::xxh3::Xxh3;

use crate::engine::average::Average;
use crate::error::TrainError;
use crate::task::{Loss, Task};

/// Scalars behind the losses and before the desync numbers: stop flag, samples skipped, how far ranks are with a save.
const FLAGS: usize = 2 + SAVES;
/// Numbers that tell how far a rank is with a save.
pub(crate) const SAVES: usize = 4;

/// Scalars of a step with so many losses.
pub(crate) fn len(num_losses: usize) -> i64 {
    (num_losses + FLAGS + desync::NUMBERS) as i64
}

/// What differs from step to step, apart from the batch.
#[derive(Debug, Clone, Copy)]
pub struct StepInput {
    /// The step, from 0.
    pub step: u64,
    /// Whether this rank was asked to stop.
    pub stop: bool,
    /// Whether ranks compare their whole state in this step.
    pub compare_state: bool,
    /// Samples of this rank's part that could not be read.
    pub num_skipped: u64,
    /// Whether to look, before anything is changed, if loss and gradient are finite.
    pub check_finite: bool,
    /// How far this rank is with the save on its way.
    pub saves: [f64; SAVES],
}

/// The reduced scalars of a step, the same on every rank.
#[derive(Debug, Clone, PartialEq)]
pub struct Reduced {
    /// The step they belong to, from 0.
    pub step: u64,
    /// The task's losses over the global batch.
    pub losses: Vec<f64>,
    /// Whether any rank asked to stop.
    pub stop: bool,
    /// How many ranks are done with the save on its way, or failed.
    pub(crate) saves: [f64; SAVES],
}

/// Writes this rank's scalars: losses already divided by global counts, the stop flag, and a
/// hash of step, layout and, where ranks compare their state, that of parameters and all other state.
pub(crate) fn write(
    scalars: &mut Tensor,
    (task, average): (&dyn Task, Option<&Average>),
    input: StepInput,
    layout_hash: u64,
    losses: &[Tensor],
) {
    let mut hash = Xxh3::new();
    hash.update(&[input.step, layout_hash].map(u64::to_le_bytes).concat());
    if input.compare_state {
        hash_state(task, average, &mut hash);
    }
    let flags = [f64::from(u8::from(input.stop)), input.num_skipped as f64];
    let host: Vec<f64> = losses
        .iter()
        .map(|_| 0.0)
        .chain(flags)
        .chain(input.saves)
        .chain(desync::encode(hash.digest()))
        .collect();
    scalars.copy_(&to_device(Tensor::from_slice(&host), scalars.device()));
    for (at, loss) in (0..).zip(losses) {
        scalars.get(at).copy_(loss);
    }
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
    pub fn read(
        self,
        losses: &[Loss],
        world_size: usize,
        deadline: Duration,
    ) -> Result<Reduced, TrainError> {
        self.mark.wait(deadline)?;
        read_scalars(self.step, &self.host, losses, world_size)
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
    task: &dyn Task,
) -> Option<NotFinite> {
    let losses =
        (0..).zip(task.losses()).map(|(at, loss)| (loss.words, scalars.double_value(&[at])));
    let mut numbers = losses.chain([("gradient norm", norm.double_value(&[]))]);
    let (what, value) = numbers.find(|(_, value)| !value.is_finite())?;
    let is_bad = |tensor: &Tensor| tensor.isfinite().all().int64_value(&[]) == 0;
    let mut named = task.parameters().trained_views(gradients);
    let tensor = named.find(|(_, tensor)| is_bad(tensor)).map(|(name, _)| name.to_owned());
    Some(NotFinite { what, value, tensor })
}

/// Reads the scalars that [`Training::step`](crate::Training::step) returned for `step`.
///
/// # Errors
///
/// [`TrainError::Mismatch`] if ranks do not agree on step, layout or state, and
/// [`TrainError::NotFinite`] if the loss is not a number. All ranks return the same.
pub fn read_scalars(
    step: u64,
    scalars: &Tensor,
    losses: &[Loss],
    world_size: usize,
) -> Result<Reduced, TrainError> {
    let host: Vec<f64> = Vec::try_from(scalars)?;
    let (values, rest) = host.split_at(losses.len());
    let (flags, rest) = rest.split_at(FLAGS);
    let (hashes, norm) = rest.split_at(desync::NUMBERS);
    if !desync::agree(hashes, world_size) {
        return Err(TrainError::Mismatch(format!(
            "ranks disagree in step {}: their parameters, other state or step count are no longer the \
             same; different kinds of processors, or different builds, in one run can cause this",
            step + 1
        )));
    }
    let named = losses.iter().map(|loss| loss.words).chain(["gradient norm"]);
    for (what, &value) in named.zip(values.iter().chain(norm)) {
        if !value.is_finite() {
            return Err(NotFinite { what, value, tensor: None }.in_step(step + 1));
        }
    }
    let saves = flags[2..].try_into().expect("so many numbers");
    Ok(Reduced { step, losses: values.to_vec(), stop: flags[0] > 0.0, saves })
}

/// A hash of parameters, their average and all other state of the task.
pub(crate) fn state_hash(task: &dyn Task, average: Option<&Average>) -> u64 {
    let mut hash = Xxh3::new();
    hash_state(task, average, &mut hash);
    hash.digest()
}

/// Hashes them, bit for bit.
fn hash_state(task: &dyn Task, average: Option<&Average>, hash: &mut Xxh3) {
    let state = task.state().into_iter().map(|(_, tensor)| tensor);
    let average = average.map(|average| average.weights.shallow_clone());
    for tensor in state.chain([task.parameters().flat().shallow_clone()]).chain(average) {
        let tensor = tensor.to_device(Device::Cpu).contiguous();
        let mut bytes = vec![0u8; tensor.numel() * tensor.kind().elt_size_in_bytes()];
        tensor.copy_data_u8(&mut bytes, tensor.numel());
        hash.update(&bytes);
    }
}
