//! The device a rank computes on, and points in its work.
//!
//! The worker is linked against libtorch's CPU half alone; [`load_cuda`] adds the CUDA half to the
//! process where there is one. libtorch's work goes to the device's default stream, which is what
//! a [`Mark`] is set in; nothing in this workspace changes libtorch's current stream.

use std::ffi::CStr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tch::Device;

use crate::CommError;

/// The `train.device` key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeviceConfig {
    /// A GPU for each rank where there is one, the CPU otherwise.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A GPU for each rank.
    Cuda,
}

impl std::str::FromStr for DeviceConfig {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            _ => Err(format!("expected auto, cuda or cpu, found '{text}'")),
        }
    }
}

/// Adds libtorch's CUDA half to the process, where the loader finds it beside the CPU half. To be
/// called before anything else of libtorch, and before there is a second thread; without it
/// libtorch sees no GPU.
///
/// Turns TF32 off in NVIDIA's libraries: libtorch lets cuDNN compute float32 convolutions with 10
/// bits of mantissa, and tch has no call that forbids it. A value that the environment has stays.
pub fn load_cuda() {
    const NAME: &CStr = c"libtorch_cuda.so";
    if std::env::var_os(TF32).is_none() {
        // SAFETY: no other thread reads the environment meanwhile, since there is none: this is
        // called first in `main`, before anything that starts one.
        unsafe { std::env::set_var(TF32, "0") };
    }
    // SAFETY: loading runs the library's constructors, which register CUDA with the libtorch_cpu
    // that the loader finds for both; the name ends with a zero. Null means that it was not
    // loaded, and dlerror then gives text that lives until this thread's next call to the loader.
    unsafe {
        if libc::dlopen(NAME.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL).is_null() {
            let reason = libc::dlerror();
            if !reason.is_null() {
                let _ = NOT_LOADED.set(CStr::from_ptr(reason).to_string_lossy().into_owned());
            }
        }
    }
}

/// The variable that NVIDIA's libraries ask, when they start, whether they may compute in TF32.
const TF32: &str = "NVIDIA_TF32_OVERRIDE";

/// What the loader said when libtorch's CUDA half could not be loaded.
static NOT_LOADED: OnceLock<String> = OnceLock::new();

fn no_gpu() -> CommError {
    CommError::NoGpu { loader: NOT_LOADED.get().cloned() }
}

/// Which device the rank numbered `local_rank` on its node takes, whose process sees `num_gpus`.
///
/// With fewer GPUs than ranks several ranks land on one; [`refuse_shared_gpus`] finds that, since
/// a process may be shown its own GPU alone.
pub(crate) fn choose(
    config: DeviceConfig,
    local_rank: usize,
    num_gpus: usize,
) -> Result<Device, CommError> {
    match (config, num_gpus) {
        (DeviceConfig::Cpu, _) | (DeviceConfig::Auto, 0) => Ok(Device::Cpu),
        (DeviceConfig::Cuda, 0) => Err(no_gpu()),
        (DeviceConfig::Auto | DeviceConfig::Cuda, _) => Ok(Device::Cuda(local_rank % num_gpus)),
    }
}

/// Fails if two ranks have the same GPU. `gpus` has a rank's host and GPU for each rank, empty
/// for a rank on the CPU.
pub(crate) fn refuse_shared_gpus(gpus: &[String]) -> Result<(), CommError> {
    for (rank, gpu) in gpus.iter().enumerate() {
        if let Some(first) = gpus[..rank].iter().position(|other| other == gpu)
            && !gpu.is_empty()
        {
            return Err(CommError::SharedGpu { first, second: rank, gpu: gpu.clone() });
        }
    }
    Ok(())
}

/// The GPUs that this process sees.
pub(crate) fn num_gpus() -> usize {
    if tch::Cuda::is_available() { tch::Cuda::device_count().max(0) as usize } else { 0 }
}

/// A rank's device.
#[derive(Debug, Clone)]
pub struct RankDevice {
    /// libtorch's name for it.
    pub device: Device,
    pub(crate) gpu: Option<Gpu>,
}

/// A GPU, through CUDA's driver: the same context as libtorch's.
#[derive(Debug, Clone)]
pub(crate) struct Gpu {
    pub(crate) context: Arc<CudaContext>,
    /// The stream that libtorch works on.
    pub(crate) torch: Arc<CudaStream>,
}

impl RankDevice {
    /// The CPU.
    pub fn cpu() -> Self {
        Self { device: Device::Cpu, gpu: None }
    }

    /// Bytes in use on the GPU, also by other processes; none on a CPU, or where the driver does not say.
    pub fn gpu_bytes(&self) -> Option<u64> {
        let (free, all) = self.gpu.as_ref()?.context.mem_get_info().ok()?;
        Some((all - free) as u64)
    }

    /// Whether it is the CPU.
    pub fn is_cpu(&self) -> bool {
        self.device == Device::Cpu
    }

    /// Opens a device.
    ///
    /// # Errors
    ///
    /// [`CommError::Cuda`] if the driver refuses.
    pub(crate) fn open(device: Device) -> Result<Self, CommError> {
        let Device::Cuda(ordinal) = device else { return Ok(Self::cpu()) };
        // SAFETY: it only tries to open the library.
        if !unsafe { cudarc::driver::sys::is_culib_present() } {
            return Err(no_gpu());
        }
        let context = CudaContext::new(ordinal).map_err(cuda("open the GPU"))?;
        let torch = context.default_stream();
        Ok(Self { device, gpu: Some(Gpu { context, torch }) })
    }

    /// Host and identity of the GPU, the same for all processes that see it; empty for the CPU.
    pub(crate) fn identity(&self) -> Result<String, CommError> {
        let Some(gpu) = &self.gpu else { return Ok(String::new()) };
        let uuid = gpu.context.uuid().map_err(cuda("identify the GPU"))?;
        let digits: String = uuid.bytes.iter().map(|byte| format!("{:02x}", *byte as u8)).collect();
        Ok(format!("GPU-{digits}"))
    }

    /// A name for logs: "cpu", or that of the GPU.
    pub fn name(&self) -> String {
        let name = self.gpu.as_ref().map(|gpu| gpu.context.name());
        match (self.device, name) {
            (Device::Cuda(ordinal), Some(Ok(name))) => format!("cuda:{ordinal} ({name})"),
            (Device::Cuda(ordinal), _) => format!("cuda:{ordinal}"),
            _ => "cpu".to_owned(),
        }
    }

    /// Bytes of the GPU's memory that are taken, by whomever; none for the CPU.
    ///
    /// # Errors
    ///
    /// [`CommError::Cuda`].
    pub fn memory_in_use(&self) -> Result<Option<u64>, CommError> {
        let Some(gpu) = &self.gpu else { return Ok(None) };
        let (free, total) = gpu.context.mem_get_info().map_err(cuda("tell its memory"))?;
        Ok(Some((total - free) as u64))
    }

    /// A mark behind everything that this rank has asked of its device so far.
    ///
    /// # Errors
    ///
    /// [`CommError::Cuda`].
    pub fn mark(&self) -> Result<Mark, CommError> {
        let Some(gpu) = &self.gpu else { return Ok(Mark(None)) };
        gpu.torch.record_event(None).map(|event| Mark(Some(event))).map_err(cuda("set a mark"))
    }
}

/// A point in a device's work.
#[derive(Debug)]
pub struct Mark(Option<CudaEvent>);

impl Mark {
    /// A point that every device has passed.
    pub(crate) fn passed() -> Self {
        Self(None)
    }

    /// The point of an event.
    pub(crate) fn at(event: CudaEvent) -> Self {
        Self(Some(event))
    }

    /// Whether the device has come here.
    pub(crate) fn is_passed(&self) -> bool {
        self.0.as_ref().is_none_or(|event| event.try_is_complete().unwrap_or(false))
    }

    /// Waits until the device has come here; at once on the CPU, whose calls do not return before.
    ///
    /// # Errors
    ///
    /// [`CommError::DeviceDeadline`] if it takes longer than `deadline`, [`CommError::Cuda`] if
    /// the device has failed.
    pub fn wait(&self, deadline: Duration) -> Result<(), CommError> {
        let Some(event) = &self.0 else { return Ok(()) };
        let start = Instant::now();
        while !event.try_is_complete().map_err(cuda("carry out its work"))? {
            if start.elapsed() > deadline {
                return Err(CommError::DeviceDeadline { waited: deadline });
            }
            std::thread::sleep(Duration::from_micros(20));
        }
        Ok(())
    }
}

/// The driver's error, for `map_err`; `doing` continues "the GPU could not".
pub(crate) fn cuda(doing: &'static str) -> impl Fn(DriverError) -> CommError {
    move |error| CommError::Cuda { doing, text: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_a_node_take_its_gpus_in_turn_and_the_cpu_without() {
        let chosen = |config, rank, gpus| choose(config, rank, gpus).unwrap();
        assert_eq!(chosen(DeviceConfig::Auto, 3, 4), Device::Cuda(3));
        assert_eq!(chosen(DeviceConfig::Cuda, 3, 2), Device::Cuda(1));
        assert_eq!(chosen(DeviceConfig::Auto, 3, 0), Device::Cpu);
        assert_eq!(chosen(DeviceConfig::Cpu, 3, 4), Device::Cpu);
        assert!(matches!(choose(DeviceConfig::Cuda, 0, 0), Err(CommError::NoGpu { .. })));
    }

    #[test]
    fn two_ranks_with_one_gpu_are_named() {
        let gpus = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>();
        assert!(refuse_shared_gpus(&gpus(&["a", "b", "", ""])).is_ok());
        let refused = refuse_shared_gpus(&gpus(&["a", "b", "c", "b"]));
        assert!(matches!(refused, Err(CommError::SharedGpu { first: 1, second: 3, .. })));
    }
}
