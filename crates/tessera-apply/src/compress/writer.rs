//! Codes on their way into a compressed file, and the file in the making.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use tessera_codec::{FileWriter, Header, Tables};

use super::given::Stream;
use super::{CODES_OF_A_BLOCK, unwritable};
use crate::error::ApplyError;

/// What was written; the same on every rank.
#[derive(Debug, Default, serde::Serialize, serde::Deserialize)]
pub(super) struct Written {
    pub(super) samples: u64,
    /// Of a sound whose length nobody knew before.
    pub(super) frames: Option<u64>,
    pub(super) bytes: u64,
    pub(super) payload: u64,
    pub(super) coding_seconds: f64,
}

/// Codes on their way into blocks.
pub(super) struct BlockWriter<'a> {
    writer: FileWriter<'a, &'a mut BufWriter<Box<dyn Write>>>,
    waiting: Vec<u32>,
    /// Codes of a block.
    block: usize,
    /// Whether each block is handed on at once.
    is_live: bool,
    seconds: f64,
}

impl<'a> BlockWriter<'a> {
    /// Begins a file; `is_live`: each sample is a block, which is handed on at once.
    pub(super) fn begin(
        out: &'a mut OutFile,
        header: Header,
        tables: &'a Tables,
        is_live: bool,
    ) -> Result<Self, ApplyError> {
        let of_a_sample = header.codes_of_a_sample();
        let mut writer = FileWriter::new(&mut out.to, header, tables)?;
        let samples = match is_live {
            true => 1,
            false => CODES_OF_A_BLOCK.div_ceil(of_a_sample).min(writer.most_samples() as u64),
        };
        if is_live {
            writer.flush()?;
        }
        let block = (samples * of_a_sample) as usize;
        Ok(Self { writer, waiting: Vec::new(), block, is_live, seconds: 0.0 })
    }

    pub(super) fn add(&mut self, codes: &[u32]) -> Result<(), ApplyError> {
        let begun = Instant::now();
        self.waiting.extend(codes);
        let whole = self.waiting.len() / self.block * self.block;
        for block in self.waiting[..whole].chunks_exact(self.block) {
            self.writer.block(block)?;
            if self.is_live {
                self.writer.flush()?;
            }
        }
        self.waiting.drain(..whole);
        self.seconds += begun.elapsed().as_secs_f64();
        Ok(())
    }

    /// Adds a block that is coded already; none where it has no samples.
    pub(super) fn add_coded(&mut self, codes: &[u32], payload: &[u8]) -> Result<(), ApplyError> {
        match codes.is_empty() {
            true => Ok(()),
            false => Ok(self.writer.coded_block(codes, payload)?),
        }
    }

    /// Writes the end; with the frames of a sound whose length nobody knew before.
    pub(super) fn finish(mut self, frames: Option<u64>) -> Result<Written, ApplyError> {
        let begun = Instant::now();
        if !self.waiting.is_empty() {
            self.writer.block(&self.waiting)?;
        }
        let written = match frames {
            Some(frames) => self.writer.finish_with(frames)?,
            None => self.writer.finish()?,
        };
        Ok(Written {
            samples: written.samples,
            frames,
            bytes: written.bytes,
            payload: written.payload,
            coding_seconds: self.seconds + begun.elapsed().as_secs_f64(),
        })
    }
}

/// A file in the making: it has its name when it is whole, and is gone when it never is.
pub(super) struct OutFile {
    to: BufWriter<Box<dyn Write>>,
    /// The name that it has, and the one that it gets; none of standard output.
    names: Option<(PathBuf, PathBuf)>,
}

impl OutFile {
    pub(super) fn create(out: &Stream, force: bool) -> Result<Self, ApplyError> {
        let Stream::Path(path) = out else {
            return Ok(Self { to: BufWriter::new(Box::new(io::stdout())), names: None });
        };
        check_free(path, force)?;
        let partial = partial_of(path);
        let file = File::create(&partial).map_err(|error| unwritable(path, &error))?;
        let names = Some((partial, path.clone()));
        Ok(Self { to: BufWriter::new(Box::new(file)), names })
    }

    pub(super) fn finish(mut self) -> Result<(), ApplyError> {
        let told = self.names.as_ref().map_or(Path::new("standard output"), |(_, path)| path);
        self.to.flush().map_err(ApplyError::file("write", told))?;
        match self.names.take() {
            Some((partial, path)) => {
                fs::rename(&partial, &path).map_err(ApplyError::file("rename", &partial))
            }
            None => Ok(()),
        }
    }
}

impl Drop for OutFile {
    fn drop(&mut self) {
        if let Some((partial, _)) = &self.names {
            // What cannot be removed is what an error has told of already.
            let _ = fs::remove_file(partial);
        }
    }
}

/// Refuses to write over what is there.
pub(super) fn check_free(path: &Path, force: bool) -> Result<(), ApplyError> {
    if path.is_dir() {
        let problem = format!("{} is a folder: name a file that is to be written", path.display());
        return Err(ApplyError::BadInput(problem));
    }
    match path.exists() && !force {
        true => Err(ApplyError::BadInput(format!(
            "{} is there already: name another file, or give --force to replace it",
            path.display()
        ))),
        false => Ok(()),
    }
}

/// A name beside a path for what is not whole yet.
pub(crate) fn partial_of(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".partial");
    path.with_file_name(name)
}
