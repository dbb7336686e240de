//! How many workers to start.

use std::str::FromStr;

use crate::{Host, LaunchError};

/// Workers on a machine without a GPU: the smallest number that is distributed.
const WITHOUT_GPU: usize = 2;

/// The number of workers asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nproc {
    /// One worker a GPU; without a GPU, two on CPU; with a host file, as many as it has slots.
    Auto,
    /// This many, at least one.
    Count(usize),
}

impl FromStr for Nproc {
    type Err = LaunchError;

    fn from_str(text: &str) -> Result<Self, LaunchError> {
        if text == "auto" {
            return Ok(Self::Auto);
        }
        match text.parse() {
            Ok(count) if count > 0 => Ok(Self::Count(count)),
            _ => Err(LaunchError::Nproc { given: text.to_owned() }),
        }
    }
}

impl Nproc {
    /// The number of workers on a host with `num_gpus`, or on `hosts` where there are some.
    pub fn count(self, num_gpus: usize, hosts: &[Host]) -> usize {
        let slots = hosts.iter().map(|host| host.slots).sum();
        match self {
            Self::Count(count) => count,
            Self::Auto if slots > 0 => slots,
            Self::Auto if num_gpus > 0 => num_gpus,
            Self::Auto => WITHOUT_GPU,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_words_are_refused() {
        assert_eq!("auto".parse::<Nproc>().unwrap(), Nproc::Auto);
        assert_eq!("3".parse::<Nproc>().unwrap(), Nproc::Count(3));
        for text in ["0", "-1", "two", ""] {
            let error = text.parse::<Nproc>().unwrap_err();
            assert_eq!(error.exit_code(), tessera_control::ExitCode::BadInput);
        }
    }

    #[test]
    fn auto_is_one_worker_a_gpu_and_two_without() {
        assert_eq!(Nproc::Auto.count(0, &[]), 2);
        assert_eq!(Nproc::Auto.count(1, &[]), 1);
        assert_eq!(Nproc::Auto.count(8, &[]), 8);
        assert_eq!(Nproc::Count(3).count(8, &[]), 3);
        let hosts = [4, 2].map(|slots| Host::new(slots.to_string(), slots));
        assert_eq!(Nproc::Auto.count(8, &hosts), 6);
    }
}
