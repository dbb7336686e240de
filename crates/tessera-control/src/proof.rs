//! Showing that one knows the secret of a launch without saying it: HMAC-SHA256 (RFC 2104) over the
//! launcher's challenge, so that whoever reads the network learns nothing that another connection would
//! take. Names nobody but ranks and attempts; what a hello is worth beyond that is the launcher's to say.

use std::io::{self, Read};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// Bytes of a secret and of a challenge.
const BYTES: usize = 16;

/// 128 bits from the system's randomness, in hexadecimal: a secret, or a challenge.
///
/// # Errors
///
/// Those of reading `/dev/urandom`.
pub fn draw_secret() -> io::Result<String> {
    let mut bytes = [0u8; BYTES];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(hex(&bytes))
}

/// The proof of `rank` of `attempt` that it knows `secret`, in hexadecimal.
pub fn proof(secret: &str, challenge: &str, attempt: &str, rank: usize) -> String {
    hex(&mac(secret, &words(challenge, attempt, rank)).finalize().into_bytes())
}

/// Whether `told` is that proof; takes as long whatever is told.
pub fn is_proof(told: &str, secret: &str, challenge: &str, attempt: &str, rank: usize) -> bool {
    let Some(told) = bytes(told) else { return false };
    mac(secret, &words(challenge, attempt, rank)).verify_slice(&told).is_ok()
}

/// Whether `told` is the secret itself; takes as long wherever the two differ.
pub fn is_secret(told: &str, secret: &str) -> bool {
    let expected = mac(secret, secret).finalize().into_bytes();
    mac(secret, told).verify_slice(&expected).is_ok()
}

/// None of the three holds a space, so that no other three read the same.
fn words(challenge: &str, attempt: &str, rank: usize) -> String {
    format!("{challenge} {attempt} {rank}")
}

fn mac(secret: &str, text: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key of any length");
    mac.update(text.as_bytes());
    mac
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        hex.chars().map(|digit| u8::try_from(digit.to_digit(16)?).ok()).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2.
    #[test]
    fn the_code_is_that_of_the_standard() {
        let code = mac("Jefe", "what do ya want for nothing?").finalize().into_bytes();
        assert_eq!(hex(&code), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn a_proof_holds_for_its_challenge_attempt_and_rank_alone() {
        let told = proof("secret", "c0ffee", "9f3a07c2b1d4-1", 23);
        assert!(is_proof(&told, "secret", "c0ffee", "9f3a07c2b1d4-1", 23));
        for (secret, challenge, attempt, rank) in [
            ("other", "c0ffee", "9f3a07c2b1d4-1", 23),
            ("secret", "c0ffed", "9f3a07c2b1d4-1", 23),
            ("secret", "c0ffee", "9f3a07c2b1d4-12", 3),
            ("secret", "c0ffee", "9f3a07c2b1d4-1", 2),
        ] {
            assert!(!is_proof(&told, secret, challenge, attempt, rank), "{attempt} {rank}");
        }
        for told in ["", "0", "zz", &told[2..], "é"] {
            assert!(!is_proof(told, "secret", "c0ffee", "9f3a07c2b1d4-1", 23), "{told}");
        }
        assert!(is_secret("secret", "secret") && !is_secret("secre", "secret"));
        assert_ne!(draw_secret().unwrap(), draw_secret().unwrap());
    }
}
