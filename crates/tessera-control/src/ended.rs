//! Waiting for a process of ours, but not for ever.

use std::io;
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// How a process has ended; none where it has not by then. The standard library waits for ever, or not at all.
///
/// # Errors
///
/// Those of the system, where it is no child of ours any more.
pub fn ended_by(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        let status = child.try_wait()?;
        if status.is_some() || Instant::now() >= deadline {
            return Ok(status);
        }
        std::thread::sleep(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn one_that_ends_is_waited_for_and_one_that_does_not_is_let_alone() {
        let mut short = Command::new("sh").args(["-c", "exit 7"]).spawn().expect("starts");
        let late = Instant::now() + Duration::from_secs(60);
        let status = ended_by(&mut short, late).expect("it is ours").expect("it ends");
        assert_eq!(status.code(), Some(7));
        let mut long = Command::new("sleep").arg("60").spawn().expect("starts");
        assert_eq!(ended_by(&mut long, Instant::now()).expect("it is ours"), None);
        long.kill().expect("it lives");
        assert!(ended_by(&mut long, late).expect("it is ours").is_some());
    }
}
