//! Whose hello is taken. Pure: no socket, no clock.

use std::collections::BTreeMap;

use tessera_control::{Message, is_proof, is_secret};

/// A rank that has said hello.
#[derive(Debug)]
struct Known {
    host: String,
    pid: u32,
    /// The highest number of its messages.
    heard: u64,
    /// The connection over which it speaks, by its number.
    connection: Option<usize>,
}

/// Who may speak in one attempt.
#[derive(Debug)]
pub(super) struct Admission {
    token: String,
    attempt: String,
    known: BTreeMap<usize, Known>,
}

/// A hello that was taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Admitted {
    pub(super) rank: usize,
    /// The highest number of its messages that were heard before.
    pub(super) heard: u64,
    /// The connection that this one is in place of.
    pub(super) replaces: Option<usize>,
}

/// Why a hello was not taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It does not know the secret: nobody who belongs to the run.
    Stranger,
    /// It knows the secret and does not fit.
    Misfit(String),
}

impl Admission {
    pub(super) fn new(token: String, attempt: String) -> Self {
        Self { token, attempt, known: BTreeMap::new() }
    }

    /// Takes the hello that answers `challenge` on `connection`, or says why not.
    ///
    /// The secret itself is taken from this host alone, where it crosses no network.
    pub(super) fn admit(
        &mut self,
        hello: &Message,
        challenge: &str,
        is_from_here: bool,
        connection: usize,
    ) -> Result<Admitted, Refusal> {
        let Message::Hello { token, proof, attempt, rank, host, pid, .. } = hello else {
            return Err(Refusal::Stranger);
        };
        let (rank, pid) = (*rank, *pid);
        let of = attempt.as_deref().unwrap_or_default();
        let knows = is_proof(proof, &self.token, challenge, of, rank)
            || (is_from_here && is_secret(token, &self.token));
        if !knows {
            return Err(Refusal::Stranger);
        }
        if attempt.as_ref().is_some_and(|attempt| *attempt != self.attempt) {
            let problem = format!("it is of attempt {of}, this one is {}", self.attempt);
            return Err(Refusal::Misfit(format!(
                "rank {rank} on host {host}, pid {pid}: {problem}"
            )));
        }
        let known = self.known.entry(rank).or_insert_with(|| Known {
            host: host.clone(),
            pid,
            heard: 0,
            connection: None,
        });
        if (&known.host, known.pid) != (host, pid) {
            return Err(Refusal::Misfit(format!(
                "a second process says that it is rank {rank}: pid {pid} on host {host}, where pid {} on host {} \
                 is",
                known.pid, known.host
            )));
        }
        let replaces = known.connection.replace(connection);
        Ok(Admitted { rank, heard: known.heard, replaces })
    }

    /// Whether the message of this number is new, and not one that is said again; from now on it is not.
    pub(super) fn is_new(&mut self, rank: usize, number: u64) -> bool {
        let Some(known) = self.known.get_mut(&rank) else { return false };
        let is_new = number > known.heard;
        known.heard = known.heard.max(number);
        is_new
    }

    /// The highest number of the rank's messages.
    pub(super) fn heard(&self, rank: usize) -> u64 {
        self.known.get(&rank).map_or(0, |known| known.heard)
    }

    /// The connection of `rank` has ended.
    pub(super) fn close(&mut self, rank: usize) {
        if let Some(known) = self.known.get_mut(&rank) {
            known.connection = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use tessera_control::proof;

    use super::*;

    const ATTEMPT: &str = "9f3a07c2b1d4-1";

    fn admission() -> Admission {
        Admission::new("secret".into(), ATTEMPT.into())
    }

    fn hello(proof: String, attempt: &str, rank: usize, pid: u32) -> Message {
        let (token, attempt, host) = (String::new(), Some(attempt.to_owned()), "h".into());
        Message::Hello { token, proof, attempt, rank, world_size: 4, host, pid }
    }

    /// A worker that answers the challenge `c0`.
    fn worker(attempt: &str, rank: usize, pid: u32) -> Message {
        hello(proof("secret", "c0", attempt, rank), attempt, rank, pid)
    }

    fn plain(token: &str) -> Message {
        let (token, proof, host) = (token.to_owned(), String::new(), "h".into());
        Message::Hello { token, proof, attempt: None, rank: 1, world_size: 4, host, pid: 3 }
    }

    #[test]
    fn a_hello_has_to_answer_its_own_challenge() {
        let mut admission = admission();
        let taken = Admitted { rank: 1, heard: 0, replaces: None };
        assert_eq!(admission.admit(&worker(ATTEMPT, 1, 3), "c0", false, 7), Ok(taken));
        // The same words on another connection, whose challenge is another one.
        let replayed = admission.admit(&worker(ATTEMPT, 2, 3), "c1", false, 8);
        assert_eq!(replayed, Err(Refusal::Stranger));
        let heartbeat = Message::Notice { text: "no hello".into() };
        assert_eq!(admission.admit(&heartbeat, "c0", true, 9), Err(Refusal::Stranger));
    }

    #[test]
    fn the_secret_itself_is_taken_from_this_host_alone() {
        assert!(admission().admit(&plain("secret"), "c0", true, 7).is_ok());
        assert_eq!(admission().admit(&plain("secret"), "c0", false, 7), Err(Refusal::Stranger));
        assert_eq!(admission().admit(&plain("guess"), "c0", true, 7), Err(Refusal::Stranger));
        assert_eq!(admission().admit(&plain(""), "c0", true, 7), Err(Refusal::Stranger));
    }

    #[test]
    fn a_worker_of_another_attempt_and_a_second_one_of_a_rank_are_refused() {
        let mut admission = admission();
        assert!(admission.admit(&worker(ATTEMPT, 1, 3), "c0", false, 7).is_ok());
        let Err(Refusal::Misfit(why)) =
            admission.admit(&worker("9f3a07c2b1d4-0", 2, 3), "c0", false, 8)
        else {
            panic!("taken");
        };
        assert!(why.contains("it is of attempt 9f3a07c2b1d4-0, this one is 9f3a07c2b1d4-1"));
        let Err(Refusal::Misfit(why)) = admission.admit(&worker(ATTEMPT, 1, 4), "c0", false, 9)
        else {
            panic!("taken");
        };
        assert!(why.ends_with("rank 1: pid 4 on host h, where pid 3 on host h is"), "{why}");
    }

    #[test]
    fn a_worker_that_comes_back_takes_the_place_of_its_own_connection() {
        let mut admission = admission();
        assert!(admission.admit(&worker(ATTEMPT, 1, 3), "c0", false, 7).is_ok());
        assert!(admission.is_new(1, 1) && admission.is_new(1, 2) && !admission.is_new(1, 2));
        let back = Admitted { rank: 1, heard: 2, replaces: Some(7) };
        assert_eq!(admission.admit(&worker(ATTEMPT, 1, 3), "c0", false, 8), Ok(back));
        assert!(!admission.is_new(1, 2), "said again");
        admission.close(1);
        let back = Admitted { rank: 1, heard: 2, replaces: None };
        assert_eq!(admission.admit(&worker(ATTEMPT, 1, 3), "c0", false, 9), Ok(back));
    }
}
