//! Reading from storage that does not answer now.

use std::io;
use std::thread::sleep;
use std::time::Duration;

/// Pauses before the tries after the first: about eight seconds in all.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// Tries again what the storage refuses for reasons that pass: a server that is away or has forgotten us (EIO,
/// ESTALE, EACCES), too many open files, no memory. What says something of the file itself is answered at once.
///
/// # Errors
///
/// What the storage answered at last.
pub fn patiently<T>(read: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    with_pauses(&PAUSES, read)
}

fn with_pauses<T>(pauses: &[Duration], mut read: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for pause in pauses {
        match read() {
            Err(error) if may_pass(&error) => {
                tracing::warn!(%error, "storage does not answer; trying again");
                sleep(*pause);
            }
            read => return read,
        }
    }
    read()
}

fn may_pass(error: &io::Error) -> bool {
    !matches!(
        error.kind(),
        io::ErrorKind::NotFound
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::InvalidData
            | io::ErrorKind::IsADirectory
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::InvalidFilename
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: [Duration; 3] = [Duration::ZERO; 3];

    #[test]
    fn storage_that_answers_again_is_believed_and_one_that_does_not_is_told() {
        for (eio, estale) in [(5, 116), (13, 24)] {
            let mut answers = vec![Ok(7), Err(eio), Err(estale)];
            let mut read = || answers.pop().unwrap().map_err(io::Error::from_raw_os_error);
            assert_eq!(with_pauses(&AT_ONCE, &mut read).unwrap(), 7);
        }
        let mut tries = 0;
        let refused = with_pauses(&AT_ONCE, || {
            tries += 1;
            Err::<(), _>(io::Error::from_raw_os_error(5))
        });
        assert_eq!((refused.unwrap_err().raw_os_error(), tries), (Some(5), 4));
    }

    #[test]
    fn a_file_that_is_not_there_is_not_waited_for() {
        let mut tries = 0;
        let missing = with_pauses(&AT_ONCE, || {
            tries += 1;
            std::fs::read("/nowhere/at/all")
        });
        assert_eq!((missing.unwrap_err().kind(), tries), (io::ErrorKind::NotFound, 1));
    }
}
