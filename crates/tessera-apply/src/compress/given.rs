//! What is compressed: files at their own size, read as samples by number.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use tessera_codec::{Media, Place};
use tessera_comm::{Communicator, broadcast_bytes};
use tessera_control::ExitCode;
use tessera_data::{
    DataConfig, DataError, Modality, Native, NativeFiles, NativeShape, Piped, PipedSound,
    SampleShape,
};
use tessera_model::OpenModel;

use super::grid::Grid;
use super::stream::Pieces;
use crate::agreement::agree_on;
use crate::encode::usual_data;
use crate::error::ApplyError;
use crate::watch::Watch;

/// Where something is read from, or written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stream {
    /// Standard input or output, written as `-`.
    Pipe,
    /// A file or a folder.
    Path(PathBuf),
}

impl From<PathBuf> for Stream {
    fn from(path: PathBuf) -> Self {
        if path == Path::new("-") { Self::Pipe } else { Self::Path(path) }
    }
}

impl Stream {
    /// The file or folder; none of a pipe.
    pub(super) fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Pipe => None,
            Self::Path(path) => Some(path.clone()),
        }
    }
}

/// What is compressed.
pub(super) struct Given {
    from: Origin,
    pub(super) files: Vec<GivenFile>,
    sample: SampleShape,
    /// Number of the first sample of each file, and at the end of all samples.
    starts: Vec<u64>,
    /// The file that was read last.
    open: Option<(usize, Native)>,
    /// The clip that was read last: of which file, and which of its.
    clip: Option<((usize, u64), Vec<u8>)>,
}

enum Origin {
    Files(Box<NativeFiles>),
    Pipe,
    /// A sound that is read as it comes, whose length nobody knows.
    Live(Box<PipedSound>),
}

/// A file that is compressed.
pub(super) struct GivenFile {
    /// Its number among those that are there.
    number: usize,
    pub(super) place: Place,
    grid: Grid,
}

impl Given {
    /// Finds what there is, to be cut into samples of the model or into pieces of streams. Collective: rank 0 looks into the files.
    pub(super) fn open(
        comm: &dyn Communicator,
        model: &OpenModel,
        (input, pieces): (&Stream, Option<Pieces>),
        skips: bool,
        watch: &Watch<'_>,
    ) -> Result<Self, ApplyError> {
        let mut data = agree_on(comm, usual_data(&model.file, true))?;
        let sample = pieces.map_or(model.file.autoencoder().shape, |pieces| pieces.shape(model));
        let path = match (input, pieces) {
            (Stream::Path(path), _) => path,
            (Stream::Pipe, None) => return agree_on(comm, Self::piped(&data, sample)),
            (Stream::Pipe, Some(_)) => return agree_on(comm, Self::live(&data, sample)),
        };
        data.path = path.clone();
        let files = NativeFiles::open(&data).map_err(|error| match error {
            DataError::Read { path, source } if source.kind() == io::ErrorKind::NotFound => {
                ApplyError::BadInput(format!("{} cannot be read ({source})", path.display()))
            }
            error => error.into(),
        });
        let files = agree_on(comm, files)?;
        let listed = match comm.rank() {
            0 => listed(&files, path.is_file(), sample, skips, watch),
            _ => Ok(Vec::new()),
        };
        let listed = serde_json::to_vec(&agree_on(comm, listed)?).expect("it is plain data");
        let listed: Vec<(usize, String, Place)> =
            serde_json::from_slice(&broadcast_bytes(comm, &listed)?).expect("rank 0 sends it");
        let is_same = |(number, name, _): &(usize, String, Place)| {
            *number < files.len() && files.name(*number) == *name
        };
        let is_same = match listed.iter().all(is_same) {
            true => Ok(()),
            false => Err(ApplyError::BadInput(format!(
                "rank {} finds other files in {} than rank 0: let nobody change the folder meanwhile, and put it where \
                 all hosts see the same files",
                comm.rank(),
                path.display()
            ))),
        };
        agree_on(comm, is_same)?;
        let given = listed.into_iter().map(|(number, _, place)| {
            let grid = Grid::new(shape_of(&place.media), sample);
            GivenFile { number, place, grid }
        });
        Ok(Self::of(Origin::Files(Box::new(files)), given.collect(), sample))
    }

    /// What comes through standard input.
    fn piped(data: &DataConfig, sample: SampleShape) -> Result<Self, ApplyError> {
        let native = Native::piped(&mut io::stdin().lock(), data);
        Ok(Self::of_native(native.map_err(|problem| unreadable(&problem))?, sample))
    }

    /// The same of a sound that is read as it comes, where it can be.
    fn live(data: &DataConfig, sample: SampleShape) -> Result<Self, ApplyError> {
        let piped = Piped::open(Box::new(io::stdin()), data);
        let sound = match piped.map_err(|problem| unreadable(&problem))? {
            Piped::Whole(native) => return Ok(Self::of_native(native, sample)),
            Piped::Sound(sound) => sound,
        };
        let SampleShape { channels, sample_rate, .. } = sound.shape();
        let media = Media::Audio { channels, sample_rate, frames: None };
        let grid = Grid::new(sound.shape(), sample);
        let place = Place { name: String::new(), media, samples: None };
        let files = vec![GivenFile { number: 0, place, grid }];
        Ok(Self::of(Origin::Live(Box::new(sound)), files, sample))
    }

    fn of_native(native: Native, sample: SampleShape) -> Self {
        let grid = Grid::new(native.shape().shape, sample);
        let place = placed(String::new(), native.shape(), grid);
        let mut given = Self::of(Origin::Pipe, vec![GivenFile { number: 0, place, grid }], sample);
        given.open = Some((0, native));
        given
    }

    /// Whether it is a sound whose length nobody knows yet.
    pub(super) fn is_live(&self) -> bool {
        matches!(self.from, Origin::Live(_))
    }

    /// The next frames of a sound from `start` on, in order: fewer at its end.
    pub(super) fn next_frames(
        &mut self,
        file: usize,
        start: u64,
        num: u32,
    ) -> Result<Vec<u8>, ApplyError> {
        if let Origin::Live(sound) = &mut self.from {
            return sound.next(num as usize).map_err(|problem| unreadable(&problem));
        }
        let frames = match self.files[file].place.media {
            Media::Audio { frames: Some(frames), .. } => frames,
            _ => unreachable!("streams are of sound"),
        };
        let end = frames.min(start + u64::from(num));
        if start < end { self.frames(file, start..end) } else { Ok(Vec::new()) }
    }

    fn of(from: Origin, files: Vec<GivenFile>, sample: SampleShape) -> Self {
        let mut starts = vec![0];
        for file in &files {
            starts.push(starts[starts.len() - 1] + file.grid.num_samples());
        }
        Self { from, files, sample, starts, open: None, clip: None }
    }

    /// Frames of a file as they lie in memory, with the file opened once where it is asked for in order.
    pub(super) fn frames(
        &mut self,
        file: usize,
        frames: std::ops::Range<u64>,
    ) -> Result<Vec<u8>, ApplyError> {
        self.clip_of(file, frames)
    }

    /// Samples of all files.
    pub(super) fn num_samples(&self) -> u64 {
        self.starts[self.starts.len() - 1]
    }

    /// Bytes of all files once they are decoded.
    pub(super) fn num_bytes(&self) -> u64 {
        let of_file = |file: &GivenFile| file.place.media.num_bytes();
        self.files.iter().map(of_file).sum()
    }

    /// Bytes of all files as they are; none of what came through a pipe.
    pub(super) fn num_stored(&self) -> Option<u64> {
        let Origin::Files(files) = &self.from else { return None };
        let of_file = |file: &GivenFile| {
            let path = files.path(file.number)?;
            let about = path.metadata().ok()?;
            about.is_file().then_some(about.len())
        };
        self.files.iter().map(of_file).sum()
    }

    /// The bytes of these samples, one after another. Who asks in order has each file opened once.
    pub(super) fn read(&mut self, samples: std::ops::Range<u64>) -> Result<Vec<u8>, ApplyError> {
        let bytes = self.sample.num_bytes();
        let mut out = vec![0; (samples.end - samples.start) as usize * bytes];
        for (id, out) in samples.zip(out.chunks_exact_mut(bytes)) {
            let file = self.starts.partition_point(|&start| start <= id) - 1;
            let (grid, in_file) = (self.files[file].grid, id - self.starts[file]);
            let (clip, tile) = (in_file / grid.per_clip(), in_file % grid.per_clip());
            if self.clip.as_ref().is_none_or(|(of, _)| *of != (file, clip)) {
                let bytes = self.clip_of(file, grid.frames(clip))?;
                self.clip = Some(((file, clip), bytes));
            }
            let (_, clip) = self.clip.as_ref().expect("it was read");
            grid.cut(clip, tile, out);
        }
        Ok(out)
    }

    fn clip_of(
        &mut self,
        file: usize,
        frames: std::ops::Range<u64>,
    ) -> Result<Vec<u8>, ApplyError> {
        let number = self.files[file].number;
        if self.open.as_ref().is_none_or(|(open, _)| *open != file) {
            self.open = None;
            let Origin::Files(files) = &self.from else { unreachable!("a pipe is one file") };
            let native = files.read(number)?;
            let (told, found) = (shape_of(&self.files[file].place.media), native.shape().shape);
            // A header can say more than is there of sound whose rate is changed.
            if (SampleShape { frames: 1, ..told }) != (SampleShape { frames: 1, ..found }) {
                let name = files.name(number);
                let problem =
                    format!("{name} has changed while it was compressed: {found}, was {told}");
                return Err(ApplyError::BadInput(problem));
            }
            self.open = Some((file, native));
        }
        let (_, native) = self.open.as_ref().expect("it was opened");
        match &self.from {
            Origin::Files(files) => Ok(files.frames(number, native, frames)?),
            _ => native.frames(frames).map_err(|problem| unreadable(&problem)),
        }
    }
}

/// What is said of standard input that is no sound, picture or film.
pub(super) fn unreadable(problem: &str) -> ApplyError {
    ApplyError::Opened {
        code: ExitCode::DataCorrupt,
        message: format!("what comes through standard input {problem}"),
    }
}

/// The files that are there: number, name, and what becomes of them.
fn listed(
    files: &NativeFiles,
    is_alone: bool,
    sample: SampleShape,
    skips: bool,
    watch: &Watch<'_>,
) -> Result<Vec<(usize, String, Place)>, ApplyError> {
    let (mut listed, mut names) = (Vec::new(), BTreeSet::new());
    for number in 0..files.len() {
        watch.activity.part_done();
        // What is to be left out must be known before the first byte is written.
        let shape = match skips {
            true => files.read(number).map(|native| native.shape()),
            false => files.shape(number),
        };
        let shape = match shape {
            Err(error @ DataError::CorruptFile { .. }) if skips => {
                (watch.say)(format!("left out: {error}"));
                continue;
            }
            shape => shape?,
        };
        let name = if is_alone { String::new() } else { plain(&files.name(number)) };
        if !names.insert(name.clone()) {
            let problem = format!(
                "two files would be named {name} where they are decompressed: rename one of them"
            );
            return Err(ApplyError::BadInput(problem));
        }
        listed.push((
            number,
            files.name(number),
            placed(name, shape, Grid::new(shape.shape, sample)),
        ));
    }
    Ok(listed)
}

/// A name that leads below a folder on every system.
fn plain(name: &str) -> String {
    name.replace(['\\', ':', '\0'], "_")
}

pub(crate) fn placed(name: String, native: NativeShape, grid: Grid) -> Place {
    let NativeShape { shape, film_rate } = native;
    let SampleShape { modality, frames, channels, height, width, sample_rate } = shape;
    let media = match modality {
        Modality::Image => Media::Image { channels, height, width },
        Modality::Audio => Media::Audio { channels, sample_rate, frames: Some(u64::from(frames)) },
        Modality::Video => {
            Media::Video { channels, frames: u64::from(frames), height, width, rate: film_rate }
        }
        Modality::Tokens => unreachable!("no file is of tokens"),
    };
    Place { name, media, samples: Some(grid.num_samples()) }
}

/// The shape that the frames of a medium have; of sound of unknown length that of one frame.
pub(crate) fn shape_of(media: &Media) -> SampleShape {
    let count = |frames: u64| u32::try_from(frames).unwrap_or(u32::MAX);
    match *media {
        Media::Image { channels, height, width } => SampleShape::image(channels, height, width),
        Media::Audio { channels, sample_rate, frames } => {
            SampleShape::audio(channels, count(frames.unwrap_or(1)), sample_rate)
        }
        Media::Video { channels, frames, height, width, .. } => {
            SampleShape::video(channels, count(frames), height, width)
        }
    }
}
