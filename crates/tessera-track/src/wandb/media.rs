//! Pictures and sounds in a run folder of W&B: a copy of the file, and the object in the row that names it.

use std::fs::{self, File};
use std::path::Path;

use serde_json::{Value, json};
use tessera_checkpoint::sha256_hex;

use crate::TrackError;
use crate::source::{Exhibit, Kind};

/// An exhibit that lies in the run folder.
#[derive(Debug)]
pub(super) struct Media {
    /// The key of the row that has it.
    pub(super) key: String,
    /// What stands there.
    pub(super) value: Value,
    /// Its path below `files/`.
    pub(super) path: String,
}

/// Copies an exhibit below `files`; `None` where it is gone, or is not what its name says.
pub(super) fn copy(files: &Path, exhibit: &Exhibit) -> Result<Option<Media>, TrackError> {
    let Ok(bytes) = fs::read(&exhibit.path) else {
        tracing::warn!(file = %exhibit.path.display(), "a picture is gone, and is left out");
        return Ok(None);
    };
    let sha256 = sha256_hex(&bytes);
    let (shows, step) = (exhibit.shows, exhibit.step);
    // An animated PNG is shown as a picture; W&B's films are of other formats.
    let (folder, extension, key) = match exhibit.kind {
        Kind::Picture => ("images", "png", shows.to_owned()),
        Kind::Film => ("images", "png", format!("{shows}_film")),
        Kind::Sound => ("audio", "wav", format!("{shows}_sound")),
    };
    let path = format!("media/{folder}/{key}_{step}_{}.{extension}", &sha256[..20]);
    let size = bytes.len();
    let value = match exhibit.kind {
        Kind::Sound => json!({
            "_type": "audio-file", "path": path, "sha256": sha256, "size": size,
        }),
        Kind::Picture | Kind::Film => {
            let Some((width, height)) = png_size(&bytes) else {
                tracing::warn!(file = %exhibit.path.display(), "this is no PNG, and is left out");
                return Ok(None);
            };
            json!({
                "_type": "image-file", "path": path, "sha256": sha256, "size": size,
                "width": width, "height": height, "format": extension,
            })
        }
    };
    let target = files.join(&path);
    let folder = target.parent().expect("it has a folder");
    fs::create_dir_all(folder).map_err(TrackError::file("make", folder))?;
    let write = || {
        fs::write(&target, &bytes)?;
        File::open(&target)?.sync_all()
    };
    write().map_err(TrackError::file("write", &target))?;
    Ok(Some(Media { key, value, path }))
}

/// Width and height, which stand at the start of every PNG file.
fn png_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let head = bytes.first_chunk::<24>()?;
    if head[..8] != *b"\x89PNG\r\n\x1a\n" || head[12..16] != *b"IHDR" {
        return None;
    }
    let number =
        |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    Some((number(16), number(20)))
}
