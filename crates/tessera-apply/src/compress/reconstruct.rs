//! Files of any size as a model reconstructs them.
//!
//! A file goes through encoder, quantiser and decoder in the samples that it is cut into ([`Grid`]). Tiles of pictures and film, and
//! windows of sound, can overlap and are [blended](super::blend) then; without overlap, what comes out is what
//! `tessera decompress` makes of the compressed file. Sound can also be one stream. The clips, pictures or windows of one tile of samples are in memory at a time.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;
use tessera_codec::Place;
use tessera_comm::{Communicator, all_gather_bytes};
use tessera_control::Phase;
use tessera_data::{Modality, SampleShape};
use tessera_model::OpenModel;

use super::blend::{Blend, Fade};
use super::expand::bytes_of;
use super::given::{Given, Stream, shape_of};
use super::grid::Grid;
use super::out::{Out, OutEntry, names};
use super::stream::{Pieces, SoundDecoder, SoundEncoder};
use super::{StreamOptions, refuse_pipes};
use crate::agreement::agree_on;
use crate::decode::shown_with;
use crate::error::ApplyError;
use crate::input::codes_of;
use crate::tile;
use crate::watch::Watch;

/// What is reconstructed, and into what.
#[derive(Debug, Clone, PartialEq)]
pub struct ReconstructOptions {
    /// A file, or all files of the model's kind below a folder.
    pub input: Stream,
    /// A file, where one is reconstructed; a folder, where one is.
    pub out: Stream,
    /// Pixels that tiles share, or instants that windows of sound share.
    pub overlap: u32,
    /// Levels of a residual quantiser that take part, from 1 on; none: all.
    pub levels: Option<usize>,
    /// Whether each sound is one stream.
    pub stream: Option<StreamOptions>,
    /// Whether files that cannot be read are left out.
    pub skips: bool,
    /// Whether what is there is replaced.
    pub force: bool,
}

/// What was reconstructed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Reconstructed {
    /// What was written; none where it went to standard output.
    pub path: Option<PathBuf>,
    /// Files.
    pub num_files: usize,
    /// Mean squared error over all values of all files, whose peak is 255, of sound 65,535.
    pub mse: f64,
    /// The same in decibels below the peak.
    pub psnr: f64,
    /// How far the error of a pixel is from that of its neighbour across the border of two tiles, in parts of what it is elsewhere:
    /// 1 is no seam. None where nothing has tiles beside one another.
    pub seam: Option<f64>,
    /// Seconds that the work took.
    pub seconds: f64,
}

/// Reconstructs files. Collective: ranks share the files.
///
/// # Errors
///
/// [`ApplyError`]; nothing is there then that was not there before.
pub fn reconstruct(
    comm: &dyn Communicator,
    model: &OpenModel,
    options: &ReconstructOptions,
    watch: &Watch<'_>,
) -> Result<Reconstructed, ApplyError> {
    let begun = Instant::now();
    let pieces = agree_on(comm, check(comm, model, options))?;
    watch.activity.enter(Phase::Evaluate);
    let mut given = Given::open(comm, model, (&options.input, pieces), options.skips, watch)?;
    let places: Vec<Place> = given.files.iter().map(|file| file.place.clone()).collect();
    let is_alone = matches!(places.as_slice(), [place] if place.name.is_empty());
    let out = Out::of(&options.out, is_alone.then(|| places[0].media), options.force);
    let out = agree_on(comm, out)?;
    let prepared = if comm.rank() == 0 { out.prepare() } else { Ok(()) };
    agree_on(comm, prepared)?;
    let sample = model.file.autoencoder().shape;
    let work = Work {
        model,
        options,
        sample,
        out: &out,
        places: &places,
        names: names(&places),
        sums: Sums::default(),
        samples: Vec::new(),
        waiting: VecDeque::new(),
        open: None,
    };
    let share = (comm.rank(), comm.world_size());
    let mine = match pieces {
        Some(pieces) => work.streams(pieces, &mut given, share, watch),
        None => work.files(&mut given, share, watch),
    };
    let done = agree_on(comm, mine).and_then(|sums| {
        let named = if comm.rank() == 0 { out.finish() } else { Ok(()) };
        agree_on(comm, named)?;
        Ok(sums)
    });
    if done.is_err() && comm.rank() == 0 {
        out.discard();
    }
    let sums = done?.of_all(comm)?;
    let mse = sums.squares / sums.values;
    Ok(Reconstructed {
        path: options.out.path(),
        num_files: places.len(),
        mse,
        psnr: psnr(sample.modality, mse),
        seam: (sums.num_seams > 0.0)
            .then(|| (sums.seams / sums.num_seams) / (sums.others / sums.num_others)),
        seconds: begun.elapsed().as_secs_f64(),
    })
}

/// PSNR in dB of a mean squared error in raw values, whose range is the peak: 8 bits, of sound 16.
pub(crate) fn psnr(modality: Modality, mse: f64) -> f64 {
    let peak: f64 = if modality == Modality::Audio { 65_535.0 } else { 255.0 };
    10.0 * (peak * peak / mse).log10()
}

fn check(
    comm: &dyn Communicator,
    model: &OpenModel,
    options: &ReconstructOptions,
) -> Result<Option<Pieces>, ApplyError> {
    refuse_pipes(comm, &options.input, &options.out)?;
    model.vqvae.check_levels(options.levels).map_err(ApplyError::BadInput)?;
    if let Some(stream) = options.stream {
        return match options.overlap {
            0 => Pieces::of(model, stream.latency).map(Some),
            _ => Err(ApplyError::BadInput(
                "a stream has no windows that could overlap: leave out --stream, or --overlap"
                    .to_owned(),
            )),
        };
    }
    let SampleShape { modality, frames, height, width, .. } = model.file.autoencoder().shape;
    let most = if modality == Modality::Audio { frames } else { height.min(width) };
    match 2 * u64::from(options.overlap) <= u64::from(most) {
        true => Ok(None),
        false => Err(ApplyError::BadInput(format!(
            "--overlap {} is more than half of what the model takes at a time, {most}: lower it to {} at most",
            options.overlap,
            most / 2
        ))),
    }
}

/// Sums over values, from which figures are made.
#[derive(Debug, Default, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
struct Sums {
    squares: f64,
    values: f64,
    /// Of differences of the error between neighbours: across borders, and elsewhere.
    seams: f64,
    num_seams: f64,
    others: f64,
    num_others: f64,
}

impl Sums {
    /// Those of all ranks. Collective.
    fn of_all(&self, comm: &dyn Communicator) -> Result<Self, ApplyError> {
        let mine = serde_json::to_vec(self).expect("it is plain data");
        let mut all = Self::default();
        for theirs in all_gather_bytes(comm, &mine)? {
            let theirs: Self = serde_json::from_slice(&theirs).expect("every rank sends its own");
            all.squares += theirs.squares;
            all.values += theirs.values;
            all.seams += theirs.seams;
            all.num_seams += theirs.num_seams;
            all.others += theirs.others;
            all.num_others += theirs.num_others;
        }
        Ok(all)
    }

    /// Counts frames `[T, H, W, C]`: their errors, and how these differ between neighbours in a row or a column, where `borders` of
    /// tiles are and elsewhere.
    fn add_frames(&mut self, input: &[u8], output: &[u8], shape: SampleShape, borders: &Borders) {
        let error = |at: usize| f64::from(output[at]) - f64::from(input[at]);
        let [height, width, channels] =
            [shape.height, shape.width, shape.channels].map(|size| size as usize);
        for at in 0..input.len() {
            let own = error(at);
            self.squares += own * own;
            let (x, y) = (at / channels % width, at / channels / width % height);
            let neighbours = [
                (x, at.wrapping_sub(channels), &borders.columns),
                (y, at.wrapping_sub(width * channels), &borders.rows),
            ];
            for (place, before, borders) in neighbours.into_iter().filter(|(place, ..)| *place > 0)
            {
                let step = (own - error(before)).abs();
                match borders.contains(&place) {
                    true => {
                        (self.seams, self.num_seams) = (self.seams + step, self.num_seams + 1.0)
                    }
                    false => {
                        (self.others, self.num_others) = (self.others + step, self.num_others + 1.0)
                    }
                }
            }
        }
        self.values += input.len() as f64;
    }

    fn add_sound(&mut self, input: &[u8], output: &[u8]) {
        let number = |pair: &[u8; 2]| f64::from(i16::from_le_bytes(*pair));
        let pairs = input.as_chunks::<2>().0.iter().zip(output.as_chunks::<2>().0);
        for (ours, theirs) in pairs {
            self.squares += (number(ours) - number(theirs)).powi(2);
            self.values += 1.0;
        }
    }
}

/// The first pixels of tiles, and of what is one tile's alone again.
struct Borders {
    columns: Vec<usize>,
    rows: Vec<usize>,
}

impl Borders {
    fn of(grid: &Grid, overlap: u32) -> Self {
        let corners: Vec<(usize, usize)> =
            (0..grid.per_clip()).map(|tile| grid.corner(tile)).collect();
        let both = |at: usize| [at, at + overlap as usize];
        let inner =
            |places: Vec<usize>| places.into_iter().filter(|at| *at > 0).flat_map(both).collect();
        Self {
            columns: inner(corners.iter().map(|(_, left)| *left).collect()),
            rows: inner(corners.iter().map(|(top, _)| *top).collect()),
        }
    }
}

/// A rank's work: samples of many small files, or parts of a large one, are a tile together.
struct Work<'a> {
    model: &'a OpenModel,
    options: &'a ReconstructOptions,
    sample: SampleShape,
    out: &'a Out,
    places: &'a [Place],
    names: Vec<String>,
    sums: Sums,
    /// Samples of the next tile.
    samples: Vec<u8>,
    /// The clips that they are of, in order.
    waiting: VecDeque<Clip>,
    /// The file that is being written.
    open: Option<(OutEntry, Fade)>,
}

/// A clip whose samples are on their way.
struct Clip {
    file: usize,
    number: u64,
    grid: Grid,
    input: Vec<u8>,
    /// Tiles that came back.
    num_back: u64,
    blend: Blend,
    /// Of sound the window.
    window: Vec<u8>,
}

impl Work<'_> {
    /// Every so many'th file is a rank's.
    fn files(
        mut self,
        given: &mut Given,
        (rank, world_size): (usize, usize),
        watch: &Watch<'_>,
    ) -> Result<Sums, ApplyError> {
        let most = tile::size(&self.model.signal()) * self.sample.num_bytes();
        for file in (rank..self.places.len()).step_by(world_size) {
            let native = shape_of(&self.places[file].media);
            let grid = Grid::overlapping(native, self.sample, self.options.overlap);
            for number in 0..grid.num_clips() {
                watch.check()?;
                let frames = grid.frames(number);
                let input = given.frames(file, frames.clone())?;
                let frames = (frames.end - frames.start) as u32;
                let blend = match self.is_sound() {
                    true => Blend::new(SampleShape::image(1, 0, 0)),
                    false => Blend::new(SampleShape { frames, ..native }),
                };
                let window = Vec::new();
                self.waiting.push_back(Clip {
                    file,
                    number,
                    grid,
                    input,
                    num_back: 0,
                    blend,
                    window,
                });
                for tile in 0..grid.per_clip() {
                    let start = self.samples.len();
                    self.samples.resize(start + self.sample.num_bytes(), 0);
                    let clip = self.waiting.back().expect("it was pushed");
                    grid.cut(&clip.input, tile, &mut self.samples[start..]);
                    if self.samples.len() == most {
                        self.flush()?;
                        watch.activity.part_done();
                    }
                }
            }
        }
        self.flush()?;
        Ok(self.sums)
    }

    /// The same of sounds, each as one stream.
    fn streams(
        mut self,
        pieces: Pieces,
        given: &mut Given,
        (rank, world_size): (usize, usize),
        watch: &Watch<'_>,
    ) -> Result<Sums, ApplyError> {
        let frame_bytes = 2 * self.sample.channels as usize;
        for file in (rank..self.places.len()).step_by(world_size) {
            let path = self.out.path(&self.names[file]);
            let mut entry = OutEntry::live(path.as_deref(), &self.places[file].media)?;
            let mut encoder = SoundEncoder::new(self.model, pieces);
            let mut decoder = SoundDecoder::new(self.model, pieces, self.options.levels);
            let mut at = 0;
            loop {
                watch.check()?;
                let input = given.next_frames(file, at, pieces.frames)?;
                if input.is_empty() {
                    break;
                }
                let output = decoder.push(&encoder.push(&input)?)?;
                self.sums.add_sound(&input, &output[..input.len()]);
                entry.add(&output[..input.len()])?;
                at += (input.len() / frame_bytes) as u64;
                watch.activity.part_done();
            }
            entry.finish()?;
        }
        Ok(self.sums)
    }

    fn is_sound(&self) -> bool {
        self.sample.modality == Modality::Audio
    }

    /// Lets the model make what it makes of the samples that wait, and writes the clips that are whole.
    fn flush(&mut self) -> Result<(), ApplyError> {
        if self.samples.is_empty() {
            return Ok(());
        }
        let codes = codes_of(self.model, &self.samples, 0)?;
        let raw = shown_with(self.model, &codes, self.options.levels);
        let made = bytes_of(&raw.narrow(0, 0, codes.len() as i64))?;
        self.samples.clear();
        for made in made.chunks_exact(self.sample.num_bytes()) {
            let is_sound = self.is_sound();
            let clip = self.waiting.front_mut().expect("each sample is a clip's");
            match is_sound {
                true => clip.window.extend_from_slice(&made[..clip.input.len()]),
                false => {
                    let corner = clip.grid.corner(clip.num_back);
                    clip.blend.add(made, self.sample, corner, self.options.overlap);
                }
            }
            clip.num_back += 1;
            if clip.num_back == clip.grid.per_clip() {
                let clip = self.waiting.pop_front().expect("it is there");
                self.write(clip)?;
            }
        }
        Ok(())
    }

    /// Writes a clip that is whole; clips come in order.
    fn write(&mut self, clip: Clip) -> Result<(), ApplyError> {
        let overlap = self.options.overlap;
        let (entry, fade) = match &mut self.open {
            Some(open) => open,
            none => {
                let path = self.out.path(&self.names[clip.file]);
                let entry = OutEntry::create(path.as_deref(), &self.places[clip.file].media)?;
                none.insert((entry, Fade::new(self.sample.channels, overlap)))
            }
        };
        let is_last = clip.number + 1 == clip.grid.num_clips();
        let output = match self.sample.modality {
            Modality::Audio => {
                let whole = fade.add(&clip.window, is_last);
                self.sums.add_sound(&clip.input[..whole.len()], &whole);
                whole
            }
            _ => {
                let shape = clip.blend.shape();
                let output = clip.blend.finish();
                self.sums.add_frames(
                    &clip.input,
                    &output,
                    shape,
                    &Borders::of(&clip.grid, overlap),
                );
                output
            }
        };
        entry.add(&output)?;
        if is_last {
            self.open.take().expect("it is being written").0.finish()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: errors 0, 0, 3, 3 in a row of two tiles, of which the second begins at 2.
    #[test]
    fn a_seam_is_a_step_of_the_error() {
        let grid = Grid::new(SampleShape::image(1, 1, 4), SampleShape::image(1, 1, 2));
        let borders = Borders::of(&grid, 0);
        let mut sums = Sums::default();
        sums.add_frames(&[1, 2, 3, 4], &[1, 2, 6, 7], SampleShape::image(1, 1, 4), &borders);
        let expected = Sums {
            squares: 18.0,
            values: 4.0,
            seams: 3.0,
            num_seams: 1.0,
            others: 0.0,
            num_others: 2.0,
        };
        assert_eq!(sums, expected);
    }
}
