//! The ways in which ranks can be connected, and the choice between them.

mod monitor;
mod mpi;
mod nccl;
mod solo;
mod threads;

use std::sync::Arc;
use std::time::Duration;

use tch::{Device, Kind, Tensor};

pub use self::mpi::Mpi;
pub use self::nccl::Nccl;
pub use self::solo::Solo;
pub use self::threads::Threads;
use crate::device::{self, DeviceConfig, RankDevice};
use crate::{Backend, Calls, CommConfig, CommError, Environment, Hang, Watchdog, bytes};

/// The ranks of a run, seen from one of them.
///
/// Every rank makes the same calls in the same order with the same sizes; nothing here may stand
/// in an `if` that ranks could answer differently. Tensors are contiguous, of kind f32, f64, i64
/// or u8, on the rank's device or on the host.
pub trait Communicator: Send {
    /// This rank, from 0.
    fn rank(&self) -> usize;

    /// Number of ranks.
    fn world_size(&self) -> usize;

    /// Sums `tensor` over all ranks, in place. The result is bitwise the same on every rank.
    ///
    /// # Errors
    ///
    /// [`CommError`]; the communicator is unusable then.
    fn all_reduce(&self, tensor: Tensor) -> Result<InFlight, CommError>;

    /// What carries the tensors, for logs and reports.
    fn carrier(&self) -> String;

    /// Whether a reduction makes progress while the rank computes, so that it pays to begin early.
    fn overlaps(&self) -> bool {
        false
    }

    /// As [`Self::all_reduce`], for several tensors at once.
    ///
    /// # Errors
    ///
    /// [`CommError`]; the communicator is unusable then.
    fn all_reduce_group(&self, tensors: Vec<Tensor>) -> Result<Vec<InFlight>, CommError> {
        tensors.into_iter().map(|tensor| self.all_reduce(tensor)).collect()
    }

    /// Overwrites `tensor` with that of rank `root`.
    ///
    /// # Errors
    ///
    /// [`CommError`]; the communicator is unusable then.
    fn broadcast(&self, tensor: Tensor, root: usize) -> Result<InFlight, CommError>;

    /// The tensors of all ranks, `[world_size, ...]`, in order of ranks.
    ///
    /// # Errors
    ///
    /// [`CommError`]; the communicator is unusable then.
    fn all_gather(&self, tensor: &Tensor) -> Result<Tensor, CommError>;

    /// Returns when every rank has come here.
    ///
    /// # Errors
    ///
    /// [`CommError`]; the communicator is unusable then.
    fn barrier(&self) -> Result<(), CommError>;

    /// Collectives called so far: equal on every rank of a correct program.
    fn num_collectives(&self) -> u64;

    /// The last collective called, where others may have to be told of it.
    fn calls(&self) -> Option<Arc<Calls>> {
        None
    }

    /// Leaves in good order. On a failure path, leave the process without it: it may wait for
    /// peers.
    ///
    /// # Errors
    ///
    /// [`CommError`] if the library objects.
    fn finish(self: Box<Self>) -> Result<(), CommError>;
}

/// A tensor that a collective may still be writing to; nobody can name it before [`wait`].
///
/// [`wait`]: InFlight::wait
#[derive(Debug)]
#[must_use = "the tensor is lost unless it is waited for"]
pub struct InFlight {
    tensor: Option<Tensor>,
    pending: Option<nccl::Pending>,
}

impl InFlight {
    /// A collective that had ended when its call returned.
    fn done(tensor: Tensor) -> Self {
        Self { tensor: Some(tensor), pending: None }
    }

    /// A collective that NCCL's stream has yet to pass.
    fn pending(tensor: Tensor, pending: nccl::Pending) -> Self {
        Self { tensor: Some(tensor), pending: Some(pending) }
    }

    /// The tensor, for whatever comes after the collective on the rank's device; the host does
    /// not wait for the device.
    ///
    /// # Errors
    ///
    /// [`CommError`] if the collective failed.
    pub fn wait(mut self) -> Result<Tensor, CommError> {
        self.arrive()?;
        Ok(self.tensor.take().expect("only this function takes it"))
    }

    fn arrive(&mut self) -> Result<(), CommError> {
        let Some(pending) = self.pending.take() else { return Ok(()) };
        pending.wait().inspect_err(|_| {
            // The device may still write to it: its memory must not be used for anything else.
            std::mem::forget(self.tensor.take());
        })
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        // libtorch uses memory again in the order of its stream, which now waits for NCCL's.
        let _ = self.arrive();
    }
}

/// A process connected with its peers, and its device.
pub struct Connection {
    /// The peers.
    pub comm: Box<dyn Communicator>,
    /// Where this rank computes.
    pub device: RankDevice,
    /// Who has started it.
    pub environment: Environment,
}

/// Connects this process with its peers and chooses its device. [`Solo`] (and no call to MPI) if
/// it was not started as one of several ranks and NCCL is not asked for; otherwise [`Nccl`]
/// between GPUs and [`Mpi`] between processors, unless `comm.backend` says otherwise.
///
/// `on_hang` reports a collective that outlasted `comm.timeout_seconds`, or a peer that is lost;
/// the process ends after it.
///
/// # Errors
///
/// As [`Environment::detect`]; [`CommError::World`] if the variables speak of several ranks and MPI of another number: never
/// N worlds of one that write into one folder. [`CommError::NoGpu`], [`CommError::SharedGpu`],
/// [`CommError::NcclOnCpu`] if the devices are not as the configuration has them.
pub fn connect(
    config: &CommConfig,
    device: DeviceConfig,
    on_hang: impl Fn(&Hang) + Send + Sync + 'static,
) -> Result<Connection, CommError> {
    let timeout = Duration::from_secs_f64(config.timeout_seconds);
    let environment = Environment::detect()?;
    if !environment.is_several() {
        let device = RankDevice::open(device::choose(device, 0, device::num_gpus())?)?;
        let solo = Solo::default();
        if choose_backend(config.backend, device.device, 1)? != Backend::Nccl {
            return Ok(Connection { comm: Box::new(solo), device, environment });
        }
        let library = nccl_rs::Library::load();
        let nccl = Nccl::init(&solo, library, &device, timeout, on_hang)?;
        return Ok(Connection { comm: Box::new(nccl), device, environment });
    }
    if config.share_gpu {
        let_nccl_share_a_gpu();
    }
    let on_hang = Arc::new(on_hang);
    let of_mpi = Arc::clone(&on_hang);
    let mpi = Mpi::init(Watchdog::start(timeout, move |hang| of_mpi(hang)))?;
    let actual = mpi.world_size();
    environment.check(actual)?;
    let device = agree_on_devices(&mpi, config, device)?;
    match choose_backend(config.backend, device.device, actual)? {
        Backend::Nccl => {
            let library = nccl_rs::Library::load();
            let nccl = Nccl::init(&mpi, library, &device, timeout, move |hang| on_hang(hang))?;
            Ok(Connection { comm: Box::new(nccl.over(mpi)), device, environment })
        }
        _ => Ok(Connection { comm: Box::new(mpi), device, environment }),
    }
}

/// Opens this rank's device. All ranks fail together, before any of them waits for another.
fn agree_on_devices(
    mpi: &Mpi,
    config: &CommConfig,
    device: DeviceConfig,
) -> Result<RankDevice, CommError> {
    let opened = mpi
        .local_rank()
        .and_then(|local| RankDevice::open(device::choose(device, local, device::num_gpus())?));
    let gpu = opened.as_ref().map_or(Ok(String::new()), RankDevice::identity);
    let is_gpu = gpu.as_ref().is_ok_and(|gpu| !gpu.is_empty());
    let said = match (&opened, &gpu) {
        (Ok(_), Ok(gpu)) => format!("+{gpu}"),
        _ => "-".to_owned(),
    };
    let all = bytes::all_gather_bytes(mpi, said.as_bytes())?;
    let opened = opened?;
    gpu?;
    let mut gpus = Vec::with_capacity(all.len());
    for (rank, said) in all.iter().enumerate() {
        match said.split_first() {
            Some((b'+', gpu)) => gpus.push(String::from_utf8_lossy(gpu).into_owned()),
            _ => return Err(CommError::PeerDevice { rank }),
        }
    }
    if let Some(rank) = gpus.iter().position(|gpu| gpu.is_empty() == is_gpu) {
        return Err(CommError::MixedDevices { rank });
    }
    if !config.share_gpu {
        device::refuse_shared_gpus(&gpus)?;
    }
    Ok(opened)
}

/// What carries tensors between ranks on such devices.
fn choose_backend(
    backend: Backend,
    device: Device,
    world_size: usize,
) -> Result<Backend, CommError> {
    match (backend, device) {
        (Backend::Auto, Device::Cuda(_)) if world_size > 1 => Ok(Backend::Nccl),
        (Backend::Auto, _) => Ok(Backend::Mpi),
        (Backend::Nccl, Device::Cpu) if std::env::var_os(ON_HOST).is_none() => {
            Err(CommError::NcclOnCpu)
        }
        (backend, _) => Ok(backend),
    }
}

/// Variables that tell a process its rank before MPI does: Open MPI's, MPICH's, that of PMIx (Open MPI 5 started by
/// another one than its mpirun), and Slurm's. A daemon through which mpirun starts ranks has the last one too, with
/// its own number.
const RANK_VARIABLES: [&str; 4] = ["OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "SLURM_PROCID"];

/// The rank that whoever started this process has told it, for what comes before [`connect`].
pub fn rank_from_env() -> Option<usize> {
    RANK_VARIABLES.into_iter().find_map(|name| std::env::var(name).ok()?.parse().ok())
}

/// Before 2.30.3, NCCL takes two ranks on one GPU only if it believes that they are on two hosts.
fn let_nccl_share_a_gpu() {
    const HOST: &str = "NCCL_HOSTID";
    if let (None, Some(rank)) = (std::env::var_os(HOST), rank_from_env()) {
        // SAFETY: MPI and NCCL start after this, and the one other thread of the process, which
        // waits for signals, does not look at the environment.
        unsafe { std::env::set_var(HOST, format!("tessera-rank-{rank}")) };
    }
}

/// Set for tests with nccl-rs' stand-in for NCCL, which works on the host's memory.
const ON_HOST: &str = "TESSERA_NCCL_ON_HOST";

/// Runs a collective in place, for a tensor that lies elsewhere, on a copy on `device`.
fn on_copy(
    mut tensor: Tensor,
    device: Device,
    collective: impl FnOnce(Tensor) -> Result<InFlight, CommError>,
) -> Result<InFlight, CommError> {
    let answer = collective(tensor.to_device(device))?.wait()?;
    tensor.copy_(&answer);
    Ok(InFlight::done(tensor))
}

/// Refuses what a collective cannot send.
fn check_layout(op: &'static str, tensor: &Tensor) -> Result<(), CommError> {
    let kind = tensor.kind();
    let sendable = matches!(kind, Kind::Float | Kind::Double | Kind::Int64 | Kind::Uint8);
    if !sendable || !tensor.is_contiguous() {
        return Err(CommError::Layout { op, kind });
    }
    Ok(())
}
