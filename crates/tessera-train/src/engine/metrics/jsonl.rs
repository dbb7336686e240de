//! Metrics as JSON lines: one object a row, each with the `step` it belongs to.
//!
//! A row is one `write` call on a file opened for appending, so a reader that follows the
//! file (`tail -f`, pandas) sees whole rows, and a killed process leaves at most one torn row
//! at the end. A row that could only be written in part is cut back. A resumed run cuts the rows past
//! its checkpoint and so ends with the rows of a run that was never stopped. Rows are not synced one
//! by one: those before a checkpoint are synced before it becomes visible, and the rows after it are
//! written again.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;
use tessera_checkpoint::Storage;

use super::append::Appended;
use super::replace_file::replace_file;

/// An append-only file of JSON rows.
#[derive(Debug)]
pub struct JsonLines {
    file: Appended,
}

/// What decides whether a row stays. The other fields are only checked to be JSON.
#[derive(serde::Deserialize)]
struct RowStep {
    step: u64,
}

impl JsonLines {
    /// Opens `path` for appending, and creates it where it is missing.
    ///
    /// With `keep_through_step`, rows whose `step` is greater are cut; without it all rows stay.
    /// A torn row, or one that is no JSON object with a `step`, is cut in either case. What is cut
    /// is first written to a file of the same name in the folder `aside`, if one is given. The cut
    /// file replaces the old one as a whole; a file with nothing to cut is not touched.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub fn open(
        path: &Path,
        keep_through_step: Option<u64>,
        aside: Option<&Path>,
    ) -> io::Result<Self> {
        let last_step = keep_through_step.unwrap_or(u64::MAX);
        match fs::read(path) {
            Ok(bytes) => {
                let (kept, cut) = rows_through(&bytes, last_step);
                if !cut.is_empty() {
                    let cut_bytes = cut.len();
                    tracing::info!(file = %path.display(), cut_bytes, last_step, "rows cut");
                    if let (Some(aside), Some(name)) = (aside, path.file_name()) {
                        fs::create_dir_all(aside)?;
                        replace_file(&aside.join(name), &cut)?;
                    }
                    replace_file(path, &kept)?;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        Ok(Self { file: Appended::open(path)? })
    }

    /// The same rows on a storage that a test may let fail.
    pub(crate) fn on(self, storage: Storage) -> Self {
        Self { file: self.file.on(storage) }
    }

    /// The file's name.
    pub(crate) fn path(&self) -> &Path {
        self.file.path()
    }

    /// Appends one row, whole or not at all. Readers of the file see it when this returns.
    ///
    /// `row` must serialize to an object with an integer `step`: without one, the next
    /// [`JsonLines::open`] cuts it. Floats that are not finite become `null`.
    ///
    /// # Errors
    ///
    /// Those of the file system, and `InvalidData` if `row` cannot be expressed as JSON.
    pub fn write(&mut self, row: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(row)?;
        line.push(b'\n');
        self.file.append(&line)
    }

    /// Sees to it that the rows survive a loss of power.
    ///
    /// # Errors
    ///
    /// Those of the file system.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync()
    }
}

/// The whole rows of `bytes` whose step is at most `last_step`, and all else.
fn rows_through(bytes: &[u8], last_step: u64) -> (Vec<u8>, Vec<u8>) {
    let (mut kept, mut cut) = (Vec::with_capacity(bytes.len()), Vec::new());
    for line in bytes.split_inclusive(|&byte| byte == b'\n') {
        let step = serde_json::from_slice::<RowStep>(line).map(|row| row.step);
        let stays = line.ends_with(b"\n") && step.is_ok_and(|step| step <= last_step);
        if stays { &mut kept } else { &mut cut }.extend_from_slice(line);
    }
    (kept, cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Row {
        step: u64,
        loss: f64,
    }

    fn file_with(content: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("metrics.jsonl");
        fs::write(&path, content).expect("writable");
        (dir, path)
    }

    #[test]
    fn rows_past_the_checkpoint_are_cut_and_new_ones_follow() {
        let (dir, path) =
            file_with("{\"step\":10,\"loss\":1.0}\n{\"loss\":0.5,\"step\":20}\n{\"step\":30}\n");
        let aside = dir.path().join("superseded/here");
        let mut lines = JsonLines::open(&path, Some(20), Some(&aside)).expect("opens");
        let cut = fs::read_to_string(aside.join("metrics.jsonl")).expect("moved aside");
        assert_eq!(cut, "{\"step\":30}\n");
        lines.write(&Row { step: 21, loss: 0.25 }).expect("writes");
        let text = fs::read_to_string(&path).expect("readable");
        let expected =
            "{\"step\":10,\"loss\":1.0}\n{\"loss\":0.5,\"step\":20}\n{\"step\":21,\"loss\":0.25}\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_torn_last_row_is_cut_even_when_all_steps_stay() {
        // The second one is whole JSON, but its newline is missing: more might have followed.
        for torn in ["{\"step\":2", "{\"step\":2}", "{\"step\":2,\"loss\":0.\n", "\0\0\0"] {
            let (_dir, path) = file_with(&format!("{{\"step\":1}}\n{torn}"));
            drop(JsonLines::open(&path, None, None).expect("opens"));
            let text = fs::read_to_string(&path).expect("readable");
            assert_eq!(text, "{\"step\":1}\n", "after {torn:?}");
        }
    }

    #[test]
    fn a_file_with_nothing_to_cut_is_not_rewritten() {
        use std::os::unix::fs::MetadataExt;
        let (_dir, path) = file_with("{\"step\":1,\"nested\":{\"a\":[1,null]}}\n");
        let inode = fs::metadata(&path).expect("exists").ino();
        drop(JsonLines::open(&path, Some(1), None).expect("opens"));
        assert_eq!(fs::metadata(&path).expect("exists").ino(), inode);
    }

    #[test]
    fn a_missing_file_is_created_and_not_a_number_becomes_null() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("metrics.jsonl");
        let mut lines = JsonLines::open(&path, Some(0), None).expect("creates");
        lines.write(&Row { step: 0, loss: f64::NAN }).expect("writes");
        assert_eq!(fs::read_to_string(&path).expect("readable"), "{\"step\":0,\"loss\":null}\n");
    }
}
