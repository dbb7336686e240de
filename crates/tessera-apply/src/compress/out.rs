//! Files that come out of compressed ones: PNG of pictures, WAV of sound, animated PNG of film, all of them without loss.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;
use tessera_codec::{Media, Place};
use tessera_model::media::{self, FilmWriter, ImageShape, SoundWriter};

use super::given::Stream;
use super::writer::{check_free, partial_of};
use super::{sound_samples, unwritable};
use crate::error::ApplyError;

/// Where files go.
pub(super) enum Out {
    Pipe,
    /// One file: in the making, and its name.
    File(PathBuf, PathBuf),
    /// A folder of them.
    Folder(PathBuf, PathBuf),
}

impl Out {
    pub(super) fn of(out: &Stream, alone: Option<Media>, force: bool) -> Result<Self, ApplyError> {
        let bad = |problem: String| Err(ApplyError::BadInput(problem));
        let path = match (out, alone) {
            (Stream::Pipe, Some(_)) => return Ok(Self::Pipe),
            (Stream::Pipe, None) => {
                return bad(
                    "standard output has room for one file, a folder was compressed: name a folder"
                        .to_owned(),
                );
            }
            (Stream::Path(path), _) => path,
        };
        let partial = partial_of(path);
        let Some(media) = alone else {
            if path.exists() && !(path.is_dir() && (force || is_empty(path))) {
                return bad(format!(
                    "{} is there already: name a folder that is not, or give --force to replace files of the same names",
                    path.display()
                ));
            }
            return Ok(Self::Folder(partial, path.clone()));
        };
        check_free(path, force)?;
        let end = extension(&media);
        let has_end = path.extension().is_some_and(|found| found.eq_ignore_ascii_case(end));
        // An animated PNG is a PNG file, and may be called one.
        let is_png = end == "apng"
            && path.extension().is_some_and(|found| found.eq_ignore_ascii_case("png"));
        match has_end || is_png {
            true => Ok(Self::File(partial, path.clone())),
            false => bad(format!(
                "{} would hold a {} file: let its name end with .{end}",
                path.display(),
                end.to_uppercase()
            )),
        }
    }

    /// Makes what files are written into.
    pub(super) fn prepare(&self) -> Result<(), ApplyError> {
        self.discard();
        let (made, path) = match self {
            Self::Pipe => return Ok(()),
            Self::File(partial, path) => (File::create(partial).map(drop), path),
            Self::Folder(partial, path) => (fs::create_dir_all(partial), path),
        };
        made.map_err(|error| unwritable(path, &error))
    }

    /// Where the file of this name is written.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        match self {
            Self::Pipe => None,
            Self::File(partial, _) => Some(partial.clone()),
            Self::Folder(partial, _) => Some(partial.join(name)),
        }
    }

    /// Gives what was written its name.
    pub(super) fn finish(&self) -> Result<(), ApplyError> {
        let (partial, path) = match self {
            Self::Pipe => return Ok(()),
            Self::File(partial, path) | Self::Folder(partial, path) => (partial, path),
        };
        if path.is_dir() && !is_empty(path) {
            // Files of these names are replaced; what else is there stays.
            move_into(partial, path)?;
            return fs::remove_dir_all(partial).map_err(ApplyError::file("remove", partial));
        }
        if path.is_dir() {
            fs::remove_dir(path).map_err(ApplyError::file("remove", path))?;
        }
        fs::rename(partial, path).map_err(ApplyError::file("rename", partial))
    }

    /// Removes what is not whole. The error that led here is the one to report.
    pub(super) fn discard(&self) {
        let _ = match self {
            Self::Pipe => Ok(()),
            Self::File(partial, _) => fs::remove_file(partial),
            Self::Folder(partial, _) => fs::remove_dir_all(partial),
        };
    }
}

/// Moves all files of a folder into another, below which they have the same names.
fn move_into(from: &Path, to: &Path) -> Result<(), ApplyError> {
    fs::create_dir_all(to).map_err(ApplyError::file("make", to))?;
    for entry in fs::read_dir(from).map_err(ApplyError::file("read", from))? {
        let path = entry.map_err(ApplyError::file("read", from))?.path();
        let target = to.join(path.file_name().unwrap_or_default());
        match path.is_dir() {
            true => move_into(&path, &target)?,
            false => fs::rename(&path, &target).map_err(ApplyError::file("rename", &path))?,
        }
    }
    Ok(())
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// How names of files of a medium end.
fn extension(media: &Media) -> &'static str {
    match media {
        Media::Image { .. } => "png",
        Media::Audio { .. } => "wav",
        Media::Video { .. } => "apng",
    }
}

/// Names of the files that come out, below a folder: those that went in with the ending of what is written. Where two would
/// have one name, both keep their old ending before the new one.
pub(super) fn names(entries: &[Place]) -> Vec<String> {
    let short = |entry: &Place| {
        let end = extension(&entry.media);
        match entry.name.rsplit_once('.') {
            Some((stem, old)) if !old.contains('/') && !stem.is_empty() && !stem.ends_with('/') => {
                format!("{stem}.{end}")
            }
            _ => format!("{}.{end}", entry.name),
        }
    };
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    entries.iter().for_each(|entry| *times.entry(short(entry)).or_default() += 1);
    let name = |entry: &Place| match short(entry) {
        name if times[&name] == 1 => name,
        _ => format!("{}.{}", entry.name, extension(&entry.media)),
    };
    entries.iter().map(name).collect()
}

/// A file in the making, clip by clip.
pub(super) struct OutEntry {
    path: PathBuf,
    writer: Writer,
    /// What goes to standard output when it is whole: some formats say their length at their beginning.
    piped: Option<NamedTempFile>,
}

enum Writer {
    /// A picture is one clip.
    Picture(Sink, ImageShape),
    Sound(Box<SoundWriter<Sink>>),
    /// Bytes as they come.
    Live(io::Stdout),
    Film(Box<FilmWriter<Sink>>, usize),
}

type Sink = BufWriter<File>;

impl OutEntry {
    /// Begins a file; none: standard output.
    pub(super) fn create(path: Option<&Path>, media: &Media) -> Result<Self, ApplyError> {
        let told = path.unwrap_or(Path::new("standard output")).to_owned();
        let piped = match path {
            None => Some(NamedTempFile::new().map_err(ApplyError::file("make a file for", &told))?),
            Some(_) => None,
        };
        let path = piped.as_ref().map_or(told.as_path(), NamedTempFile::path);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(ApplyError::file("make", folder))?;
        }
        let file = File::create(path).map_err(ApplyError::file("make", path))?;
        let writer = Writer::of(BufWriter::new(file), media);
        let writer = writer.map_err(ApplyError::file("write", &told))?;
        Ok(Self { path: told, writer, piped })
    }

    /// Begins a sound that goes to standard output as it comes; with a path, as [`Self::create`].
    pub(super) fn live(path: Option<&Path>, media: &Media) -> Result<Self, ApplyError> {
        let (None, Media::Audio { channels, sample_rate, frames }) = (path, *media) else {
            return Self::create(path, media);
        };
        let path = Path::new("standard output").to_owned();
        let head = media::wav_head(channels as u16, sample_rate, frames);
        let mut live = Self { path, writer: Writer::Live(io::stdout()), piped: None };
        live.add(&head).map(|()| live)
    }

    /// Adds the next clip.
    pub(super) fn add(&mut self, clip: &[u8]) -> Result<(), ApplyError> {
        self.writer.add(clip).map_err(ApplyError::file("write", &self.path))
    }

    /// Writes what is left to write.
    pub(super) fn finish(self) -> Result<(), ApplyError> {
        let written = self.writer.finish();
        let piped = written.and_then(|()| match self.piped {
            Some(file) => io::copy(&mut file.reopen()?, &mut io::stdout().lock()).map(|_| ()),
            None => Ok(()),
        });
        piped.map_err(ApplyError::file("write", &self.path))
    }
}

impl Writer {
    fn of(sink: Sink, media: &Media) -> io::Result<Self> {
        let shape = |channels: u32, height: u32, width: u32| {
            let [channels, height, width] = [channels, height, width].map(|size| size as usize);
            ImageShape { height, width, channels }
        };
        Ok(match *media {
            Media::Image { channels, height, width } => {
                Self::Picture(sink, shape(channels, height, width))
            }
            Media::Audio { channels, sample_rate, .. } => {
                Self::Sound(Box::new(SoundWriter::new(sink, channels as u16, sample_rate)?))
            }
            Media::Video { channels, frames, height, width, rate } => {
                let shape = shape(channels, height, width);
                let rate = rate.unwrap_or(u32::from(media::FRAMES_PER_SECOND) * 1000);
                let writer = FilmWriter::new(sink, shape, frames as usize, rate)?;
                Self::Film(Box::new(writer), shape.num_bytes())
            }
        })
    }

    fn add(&mut self, clip: &[u8]) -> io::Result<()> {
        match self {
            Self::Picture(sink, shape) => sink.write_all(&media::png(clip, *shape)?),
            Self::Film(writer, frame_bytes) => {
                clip.chunks_exact(*frame_bytes).try_for_each(|frame| writer.frame(frame))
            }
            Self::Sound(writer) => writer.add(&sound_samples(clip)),
            Self::Live(to) => to.write_all(clip).and_then(|()| to.flush()),
        }
    }

    fn finish(self) -> io::Result<()> {
        match self {
            Self::Picture(mut sink, _) => sink.flush(),
            Self::Film(writer, _) => writer.finish(),
            Self::Sound(writer) => writer.finish(),
            Self::Live(mut to) => to.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_end_as_what_is_in_them_and_are_all_different() {
        let media = Media::Image { channels: 3, height: 1, width: 1 };
        let entries = ["a.jpg", "b/c.d.png", "b/e", "f.jpg", "f.png", "b.x/.hidden"];
        let entries = entries.map(|name| Place { name: name.to_owned(), media, samples: Some(1) });
        assert_eq!(
            names(&entries),
            ["a.png", "b/c.d.png", "b/e.png", "f.jpg.png", "f.png.png", "b.x/.hidden.png"]
        );
    }
}
