//! How many GPUs this host has, without a CUDA library.

use std::path::Path;
use std::process::Command;

/// The GPUs of this host that a worker could use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpus {
    /// One line a GPU.
    pub names: Vec<String>,
    /// Where the number comes from.
    pub source: &'static str,
}

/// Finds the GPUs: `CUDA_VISIBLE_DEVICES` goes first, then `nvidia-smi -L`, then `/dev/nvidia*`.
pub fn find_gpus() -> Gpus {
    if let Ok(visible) = std::env::var("CUDA_VISIBLE_DEVICES") {
        return Gpus { names: visible_devices(&visible), source: "CUDA_VISIBLE_DEVICES" };
    }
    match Command::new("nvidia-smi").arg("-L").output() {
        Ok(output) if output.status.success() => {
            let listing = String::from_utf8_lossy(&output.stdout);
            Gpus { names: listed_gpus(&listing), source: "nvidia-smi -L" }
        }
        _ => Gpus { names: device_files(Path::new("/dev")), source: "/dev/nvidia*" },
    }
}

/// The devices in a `CUDA_VISIBLE_DEVICES`; CUDA stops reading at the first invalid one.
fn visible_devices(value: &str) -> Vec<String> {
    let devices = value.split(',').map(str::trim);
    devices.take_while(|device| !device.is_empty() && *device != "-1").map(str::to_owned).collect()
}

fn listed_gpus(listing: &str) -> Vec<String> {
    listing.lines().filter(|line| line.starts_with("GPU ")).map(str::to_owned).collect()
}

fn device_files(dev: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(dev) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| {
            let digits = name.strip_prefix("nvidia").unwrap_or_default();
            !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
        })
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn visible_devices_end_at_the_first_invalid_one() {
        assert_eq!(visible_devices("0,2"), ["0", "2"]);
        assert_eq!(visible_devices(""), [""; 0]);
        assert_eq!(visible_devices("-1"), [""; 0]);
        assert_eq!(visible_devices("1,-1,2"), ["1"]);
    }

    #[test]
    fn slices_of_a_gpu_are_not_counted_as_gpus() {
        let listing = "GPU 0: NVIDIA H200 (UUID: GPU-1)\n  MIG 1g.18gb Device 0: (UUID: MIG-1)\n";
        assert_eq!(listed_gpus(listing).len(), 1);
    }
}
