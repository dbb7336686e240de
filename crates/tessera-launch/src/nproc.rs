//! How many workers to start.

use std::path::Path;
use std::str::FromStr;

use crate::LaunchError;

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
    /// The number of workers on a host with `num_gpus`, or on the hosts of `hostfile`.
    ///
    /// # Errors
    ///
    /// [`LaunchError::Hostfile`] if the file cannot be read or names no slot.
    pub fn count(self, num_gpus: usize, hostfile: Option<&Path>) -> Result<usize, LaunchError> {
        let slots = hostfile.map(read_slots).transpose()?;
        Ok(match (self, slots) {
            (Self::Count(count), _) => count,
            (Self::Auto, Some(slots)) => slots,
            (Self::Auto, None) if num_gpus > 0 => num_gpus,
            (Self::Auto, None) => WITHOUT_GPU,
        })
    }
}

fn read_slots(path: &Path) -> Result<usize, LaunchError> {
    let wrong = |problem: String| LaunchError::Hostfile { path: path.to_owned(), problem };
    let text = std::fs::read_to_string(path)
        .map_err(|error| wrong(format!("cannot be read ({error}): name an existing file")))?;
    let slots = slots(&text)
        .map_err(|line| wrong(format!("has no number of slots in `{line}`: write HOST slots=N")))?;
    if slots == 0 {
        return Err(wrong("names no host: write one `HOST slots=N` a line".into()));
    }
    Ok(slots)
}

/// Sum of the slots: `host slots=4` (Open MPI), `host:4` (MPICH), `host` for one.
fn slots(text: &str) -> Result<usize, &str> {
    let mut sum = 0;
    for line in text.lines() {
        let host = line.split('#').next().unwrap_or_default().trim();
        if host.is_empty() {
            continue;
        }
        let given = host.split_once("slots=").map(|(_, rest)| rest);
        let given = given.or_else(|| host.split_once(':').map(|(_, rest)| rest));
        let number = given.map_or("1", |rest| rest.split_whitespace().next().unwrap_or_default());
        sum += number.parse::<usize>().map_err(|_| line)?;
    }
    Ok(sum)
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
        assert_eq!(Nproc::Auto.count(0, None).unwrap(), 2);
        assert_eq!(Nproc::Auto.count(1, None).unwrap(), 1);
        assert_eq!(Nproc::Auto.count(8, None).unwrap(), 8);
        assert_eq!(Nproc::Count(3).count(8, None).unwrap(), 3);
    }

    #[test]
    fn slots_are_summed_over_hosts() {
        // 4 by Open MPI's spelling, 2 by MPICH's, 1 where nothing is said.
        assert_eq!(slots("# cluster\na slots=4 max_slots=8\nb:2\n\nc\n"), Ok(7));
        assert_eq!(slots("a slots=many\n"), Err("a slots=many"));
    }
}
