//! Which start of which run's workers something belongs to: its identity.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use crate::variables;

/// Hexadecimal digits that a launch draws for itself.
const DIGITS: usize = 12;

/// One start of a run's workers, by a name that no other one has: `LAUNCH-NUMBER`, such as
/// `9f3a07c2b1d4-0`.
///
/// A launch draws its part once and counts its restarts from 0. What one attempt has made is refused by
/// another, however late it comes: parts of a checkpoint, reports, hellos.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// Twelve hexadecimal digits, drawn by the launch.
    launch: String,
    /// How often the launch had started its workers before.
    number: u32,
}

impl Attempt {
    /// The first attempt of a new launch, drawn from the system's randomness.
    ///
    /// # Errors
    ///
    /// Those of reading `/dev/urandom`.
    pub fn draw() -> io::Result<Self> {
        let mut bytes = [0u8; DIGITS / 2];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        let launch = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { launch, number: 0 })
    }

    /// The attempt that the launcher has told this worker; `None` without a launcher.
    ///
    /// # Errors
    ///
    /// If the variable holds no attempt.
    pub fn from_env() -> Result<Option<Self>, String> {
        match std::env::var(variables::ATTEMPT) {
            Ok(text) => match text.parse() {
                Ok(attempt) => Ok(Some(attempt)),
                Err(NotAnAttempt) => Err(format!(
                    "environment variable {} is {text:?}, which no launcher of this version sets",
                    variables::ATTEMPT
                )),
            },
            Err(_) => Ok(None),
        }
    }

    /// That of the same launch when its workers were started again so often.
    #[must_use]
    pub fn restarted(&self, number: u32) -> Self {
        Self { launch: self.launch.clone(), number }
    }

    /// How often the launch had started its workers before.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Whether both are of one launch.
    pub fn is_of_same_launch(&self, other: &Self) -> bool {
        self.launch == other.launch
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.launch, self.number)
    }
}

/// A text that is no attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("should be 12 hexadecimal digits, a dash and a number")]
pub struct NotAnAttempt;

impl FromStr for Attempt {
    type Err = NotAnAttempt;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (launch, number) = text.split_once('-').ok_or(NotAnAttempt)?;
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if launch.len() != DIGITS || !launch.bytes().all(is_hex) {
            return Err(NotAnAttempt);
        }
        let number = number.parse().map_err(|_| NotAnAttempt)?;
        Ok(Self { launch: launch.to_owned(), number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_its_launch_and_a_number() {
        let first = Attempt::draw().unwrap();
        let third = first.restarted(2);
        assert_eq!(third.to_string().parse(), Ok(third.clone()));
        assert!(third.is_of_same_launch(&first) && third != first);
        assert!(!Attempt::draw().unwrap().is_of_same_launch(&first), "48 random bits");
        assert_eq!(third.number(), 2);
        for text in ["", "9f3a07c2b1d4", "9f3a07c2b1d-0", "9F3A07C2B1D4-0", "9f3a07c2b1d4-x"] {
            assert_eq!(text.parse::<Attempt>(), Err(NotAnAttempt), "{text}");
        }
    }
}
