//! What a shell offers while somebody types a command: arguments, keys of the configuration and their values, shipped configurations.
//!
//! `tessera` asks by [`variables::COMPLETE`] for the commands whose arguments it does not know itself.

use std::ffi::OsStr;

use clap_complete::engine::{
    ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter,
};
use clap_complete::env::CompleteEnv;
use tessera_control::variables;
use tessera_train::reference::{Told, told};

/// Answers a shell, and ends this process, where one has asked.
pub(super) fn for_a_shell(command: impl Fn() -> clap::Command) {
    CompleteEnv::with_factory(command).var(variables::COMPLETE).complete();
}

/// Offers keys of the configuration, and behind a key its values.
pub(super) fn settings() -> ArgValueCompleter {
    ArgValueCompleter::new(|given: &OsStr| {
        given.to_str().map(|given| offers(given, &told())).unwrap_or_default()
    })
}

/// Offers files, and the configurations that the program brings.
pub(super) fn configurations() -> ArgValueCompleter {
    ArgValueCompleter::new(|given: &OsStr| {
        let names = tessera_train::shipped_names();
        let names = names.map(CompletionCandidate::new);
        let begins = |name: &CompletionCandidate| {
            name.get_value().as_encoded_bytes().starts_with(given.as_encoded_bytes())
        };
        names.filter(begins).chain(PathCompleter::file().complete(given)).collect()
    })
}

/// What may follow in the place of what was given.
fn offers(given: &str, keys: &[Told]) -> Vec<CompletionCandidate> {
    let Some((key, value)) = given.split_once('=') else {
        let begins = keys.iter().filter(|told| told.key.starts_with(given));
        let offer = |told: &Told| {
            let meaning = told.meaning.split_inclusive(". ").next().unwrap_or_default().trim();
            let meaning = (!meaning.is_empty()).then(|| meaning.to_owned().into());
            CompletionCandidate::new(format!("{}=", told.key)).help(meaning)
        };
        return begins.map(offer).collect();
    };
    let values = keys.iter().filter(|told| told.key == key).flat_map(|told| &told.values);
    let values = values.filter(|known| known.starts_with(value));
    values.map(|value| CompletionCandidate::new(format!("{key}={value}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(given: &str) -> Vec<String> {
        let offers = offers(given, &told());
        offers.iter().map(|offer| offer.get_value().to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn keys_are_offered_and_behind_one_its_values() {
        assert_eq!(offered("optimizer.learning_r"), ["optimizer.learning_rate="]);
        assert_eq!(offered("loss.balanced="), ["loss.balanced=true", "loss.balanced=false"]);
        assert_eq!(offered("eval.weights=a"), ["eval.weights=average"]);
        assert_eq!(offered("no.such.key="), [""; 0]);
        assert!(offered("").len() > 130);
    }
}
