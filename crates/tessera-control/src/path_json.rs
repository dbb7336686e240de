//! Paths in JSON, for `#[serde(with = "tessera_control::path_json")]`: a text where the name is UTF-8, and
//! otherwise its bytes as a list of numbers. Both are read.
//!
//! On Linux a name is any bytes but `/` and 0: a folder that was made under another encoding still has to be
//! found.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A path as JSON has it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Name {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<Name> for PathBuf {
    fn from(name: Name) -> Self {
        match name {
            Name::Text(text) => text.into(),
            Name::Bytes(bytes) => OsString::from_vec(bytes).into(),
        }
    }
}

/// Writes a path.
///
/// # Errors
///
/// The serializer's.
pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    match path.to_str() {
        Some(text) => serializer.serialize_str(text),
        None => path.as_os_str().as_bytes().serialize(serializer),
    }
}

/// Reads a path.
///
/// # Errors
///
/// The deserializer's, where it is neither a text nor a list of bytes.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
    Name::deserialize(deserializer).map(PathBuf::from)
}

/// The same for a path that may be missing.
pub mod option {
    use super::{Deserialize, Deserializer, Name, PathBuf, Serialize, Serializer};

    /// Writes a path, or `null`.
    ///
    /// # Errors
    ///
    /// The serializer's.
    pub fn serialize<S: Serializer>(
        path: &Option<PathBuf>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Known<'a>(#[serde(serialize_with = "super::serialize")] &'a PathBuf);
        path.as_ref().map(Known).serialize(serializer)
    }

    /// Reads a path, or `null`.
    ///
    /// # Errors
    ///
    /// The deserializer's, where it is none of these.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<PathBuf>, D::Error> {
        Option::<Name>::deserialize(deserializer).map(|name| name.map(PathBuf::from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Both {
        #[serde(with = "super")]
        folder: PathBuf,
        #[serde(with = "super::option")]
        other: Option<PathBuf>,
    }

    #[test]
    fn a_name_of_any_bytes_comes_back() {
        let latin = PathBuf::from(OsString::from_vec(b"r\xe9s".to_vec()));
        let both = Both { folder: latin.clone(), other: Some(latin) };
        let line = serde_json::to_string(&both).unwrap();
        assert_eq!(line, r#"{"folder":[114,233,115],"other":[114,233,115]}"#);
        assert_eq!(serde_json::from_str::<Both>(&line).unwrap(), both);
    }

    #[test]
    fn a_usual_name_is_a_text() {
        let both = Both { folder: "runs/a\nb".into(), other: None };
        let line = serde_json::to_string(&both).unwrap();
        assert_eq!(line, r#"{"folder":"runs/a\nb","other":null}"#);
        assert_eq!(serde_json::from_str::<Both>(&line).unwrap(), both);
    }
}
