//! From the bytes of a published file to samples of one shape.

pub(crate) mod audio;
pub(crate) mod ffmpeg;
pub(crate) mod image;
mod jpeg;
mod mix;
mod ogg;
pub(crate) mod pcm;
#[cfg(test)]
mod tests;
mod timeline;
pub(crate) mod video;
pub(crate) mod wav;
mod whole;

/// Why a file gives no sample; the words of either complete "sample ...".
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// It is damaged, or not what it should be.
    File(String),
    /// It is whole, and the key below `data` asks for what cannot be made of it.
    Key(&'static str, String),
}

impl From<String> for Problem {
    fn from(words: String) -> Self {
        Self::File(words)
    }
}

impl From<Problem> for String {
    fn from(problem: Problem) -> Self {
        match problem {
            Problem::File(words) | Problem::Key(_, words) => words,
        }
    }
}

/// Whether a name ends with a dot and one of these, in upper or lower case.
pub(crate) fn has_extension(name: &str, extensions: &[&str]) -> bool {
    let Some((_, extension)) = name.rsplit_once('.') else { return false };
    extensions.iter().any(|known| known.eq_ignore_ascii_case(extension))
}

/// Whether a system left this file beside those of a user.
pub(crate) fn is_litter(name: &str) -> bool {
    let (folders, file) = name.rsplit_once('/').unwrap_or(("", name));
    let names = [".DS_Store", "Thumbs.db", "desktop.ini"];
    file.starts_with("._")
        || names.iter().any(|litter| litter.eq_ignore_ascii_case(file))
        || folders.split('/').any(|folder| folder == "__MACOSX")
}
