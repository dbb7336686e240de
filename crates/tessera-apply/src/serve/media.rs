//! Files of a server: pictures, sound and film in the bytes of a request, as samples of the model and back.
//!
//! Files are cut as [`compress`](crate::compress()) cuts them, so a compressed file of the server is one of the command.

use tessera_baselines::{Baseline, Picture, PictureCodec};
use tessera_codec::{FileReader, FileWriter, Header, Media as Kind, Next, Tables, coder};
use tessera_data::{DataConfig, Modality, Native, NativeShape, SampleShape};
use tessera_model::ModelFile;
use tessera_model::media::{self, ImageShape};
use tessera_serve::{BadInput, Layout, Parsed, Rival};

use crate::compress::CODES_OF_A_BLOCK;
use crate::compress::given::{placed, shape_of};
use crate::compress::grid::Grid;
use crate::compress::{psnr, sound_samples};

/// Pixels of a picture that others code too, for comparison.
const MOST_COMPARED: usize = 1 << 20;
/// Keys of the limits that messages of decoders name.
const LIMITS: [&str; 2] = ["max_pixels", "max_seconds"];
/// Most bytes that are put together in memory.
const MOST_BYTES: u64 = 1 << 30;

/// What there is to know of a model to read and write its files.
pub(super) struct Media {
    pub(super) file: ModelFile,
    /// How files are decoded, with the limits of the server.
    pub(super) data: DataConfig,
    pub(super) tables: Tables,
    pub(super) uniform: Tables,
}

impl Media {
    fn sample(&self) -> SampleShape {
        self.file.autoencoder().shape
    }

    fn native(&self, layout: &Layout) -> Result<NativeShape, BadInput> {
        let sample = self.sample();
        let size: Option<Vec<u32>> = layout
            .size
            .iter()
            .map(|&size| u32::try_from(size).ok().filter(|&size| size > 0))
            .collect();
        let wrong = || {
            BadInput::Malformed(format!(
                "layout.size is {:?}: expected sizes above 0 and {} channels",
                layout.size, sample.channels
            ))
        };
        let size = size.ok_or_else(wrong)?;
        let shape = match (sample.modality, size.as_slice()) {
            (Modality::Image, &[height, width, channels]) => {
                SampleShape::image(channels, height, width)
            }
            (Modality::Audio, &[frames, channels]) => {
                SampleShape::audio(channels, frames, sample.sample_rate)
            }
            (Modality::Video, &[frames, height, width, channels]) => {
                SampleShape::video(channels, frames, height, width)
            }
            _ => return Err(wrong()),
        };
        if shape.channels != sample.channels {
            return Err(wrong());
        }
        let bytes: u128 = size.iter().map(|&size| u128::from(size)).fold(1, u128::saturating_mul);
        if bytes * shape.element_bytes() as u128 > u128::from(MOST_BYTES) {
            return Err(BadInput::TooLarge(format!(
                "layout.size is {:?}: more than {MOST_BYTES} bytes",
                layout.size
            )));
        }
        let film_rate = if sample.modality == Modality::Video { layout.rate } else { None };
        Ok(NativeShape { shape, film_rate })
    }

    fn grid(&self, layout: &Layout) -> Result<Grid, BadInput> {
        Ok(Grid::new(self.native(layout)?.shape, self.sample()))
    }

    fn layout(&self, NativeShape { shape, film_rate }: NativeShape) -> Layout {
        let SampleShape { frames, channels, height, width, sample_rate, .. } = shape;
        let [frames, channels, height, width] = [frames, channels, height, width].map(u64::from);
        match shape.modality {
            Modality::Audio => Layout { size: vec![frames, channels], rate: Some(sample_rate) },
            Modality::Video => {
                Layout { size: vec![frames, height, width, channels], rate: film_rate }
            }
            _ => Layout { size: vec![height, width, channels], rate: None },
        }
    }

    /// All frames of a file, put together of its samples.
    fn frames<B: AsRef<[u8]>>(&self, grid: &Grid, native: SampleShape, samples: &[B]) -> Vec<u8> {
        let mut all = vec![0; native.num_bytes()];
        let (frame, per_clip) = (grid.frame_bytes(), grid.per_clip());
        for clip in 0..grid.num_clips() {
            let range = grid.frames(clip);
            let bytes = &mut all[range.start as usize * frame..range.end as usize * frame];
            for tile in 0..per_clip {
                grid.put(samples[(clip * per_clip + tile) as usize].as_ref(), tile, bytes);
            }
        }
        all
    }
}

impl tessera_serve::Media for Media {
    fn parse(&self, file: &[u8]) -> Result<Parsed, BadInput> {
        let refuse = |problem: String| {
            let text = format!("the file {problem}");
            match LIMITS.iter().any(|limit| problem.contains(limit)) {
                true => BadInput::TooLarge(text),
                false => BadInput::Malformed(text),
            }
        };
        let native = Native::piped(&mut &file[..], &self.data).map_err(refuse)?;
        let layout = self.layout(native.shape());
        self.native(&layout)?;
        let grid = Grid::new(native.shape().shape, self.sample());
        let mut samples = Vec::new();
        for clip in 0..grid.num_clips() {
            let frames = native.frames(grid.frames(clip)).map_err(refuse)?;
            for tile in 0..grid.per_clip() {
                let mut sample = vec![0; self.sample().num_bytes()];
                grid.cut(&frames, tile, &mut sample);
                samples.push(sample);
            }
        }
        Ok(Parsed { layout, samples })
    }

    fn num_samples(&self, layout: &Layout) -> Result<usize, BadInput> {
        Ok(self.grid(layout)?.num_samples() as usize)
    }

    fn join(&self, layout: &Layout, samples: &[Vec<u8>]) -> Result<Vec<u8>, String> {
        let native = self.native(layout).map_err(|error| error.to_string())?;
        let shape = native.shape;
        let bytes = self.frames(&Grid::new(shape, self.sample()), shape, samples);
        let picture = ImageShape {
            height: shape.height as usize,
            width: shape.width as usize,
            channels: shape.channels as usize,
        };
        let written = match shape.modality {
            Modality::Image => media::png(&bytes, picture),
            Modality::Audio => {
                let words = sound_samples(&bytes);
                let channels = u16::try_from(shape.channels).unwrap_or(u16::MAX);
                media::wav(&words, channels, shape.sample_rate)
            }
            _ => film(&bytes, picture, native.film_rate),
        };
        written.map_err(|error| error.to_string())
    }

    fn compress(&self, layout: &Layout, tokens: &[Vec<u32>]) -> Result<Vec<u8>, String> {
        let said = |error: tessera_codec::CodecError| error.to_string();
        let native = self.native(layout).map_err(|error| error.to_string())?;
        let levels = self.file.autoencoder().code_levels();
        let grid = Grid::new(native.shape, self.sample());
        let header = Header {
            model: self.file.hash.clone(),
            tables: self.tables.id().to_owned(),
            prior: None,
            stream: false,
            levels,
            entries: vec![placed(String::new(), native, grid)],
        };
        let positions = header.positions();
        let of_a_sample = header.codes_of_a_sample();
        let mut bytes = Vec::new();
        let mut writer = FileWriter::new(&mut bytes, header, &self.tables).map_err(said)?;
        let most = writer.most_samples() as u64;
        let of_a_block = CODES_OF_A_BLOCK.div_ceil(of_a_sample).min(most) as usize;
        for block in tokens.chunks(of_a_block) {
            let codes: Vec<u32> =
                block.iter().flat_map(|codes| coder::interleaved(codes, &positions)).collect();
            writer.block(&codes).map_err(said)?;
        }
        writer.finish().map_err(said)?;
        Ok(bytes)
    }

    fn decompress(&self, file: &[u8]) -> Result<(Layout, Vec<Vec<u32>>), BadInput> {
        let malformed = |problem: String| BadInput::Malformed(problem);
        let mut reader = FileReader::open(file).map_err(|error| malformed(error.to_string()))?;
        let header = reader.header();
        let unsupported = |problem: &str| BadInput::Unsupported(problem.to_owned());
        if header.model != self.file.hash {
            return Err(malformed(format!(
                "it was compressed with the model {}, and this one is {}",
                header.model, self.file.hash
            )));
        }
        let [entry] = header.entries.as_slice() else {
            return Err(unsupported("it is a folder of files: one file a request is taken here"));
        };
        if header.prior.is_some() {
            return Err(unsupported(
                "it was coded by a prior: `tessera decompress --prior` reads it",
            ));
        }
        if header.stream {
            return Err(unsupported("it is one stream of sound: `tessera decompress` reads it"));
        }
        if header.levels != self.file.autoencoder().code_levels() {
            return Err(unsupported(
                "it keeps some of the model's levels alone: `tessera decompress` reads it",
            ));
        }
        let tables = [&self.tables, &self.uniform];
        let tables = tables.into_iter().find(|tables| tables.id() == header.tables);
        let tables = tables.ok_or_else(|| {
            malformed("it was coded with other tables than this model has".to_owned())
        })?;
        let (shape, samples) = (shape_of(&entry.media), entry.samples);
        let film_rate = match entry.media {
            Kind::Video { rate, .. } => rate,
            Kind::Image { .. } | Kind::Audio { .. } => None,
        };
        let layout = self.layout(NativeShape { shape, film_rate });
        let num = self.grid(&layout)?.num_samples();
        if samples != Some(num) {
            return Err(malformed(
                "its header tells of another number of samples than make it".to_owned(),
            ));
        }
        let positions = reader.header().positions();
        let of_a_sample = reader.header().codes_of_a_sample() as usize;
        let mut tokens = Vec::new();
        loop {
            match reader.next(tables).map_err(|error| malformed(error.to_string()))? {
                Next::Block { codes, .. } => {
                    let samples = codes.chunks_exact(of_a_sample);
                    tokens.extend(samples.map(|codes| coder::by_level(codes, &positions)));
                }
                Next::Lost { .. } => return Err(malformed("a block of it is damaged".to_owned())),
                Next::End => break,
            }
        }
        match tokens.len() as u64 == num {
            true => Ok((layout, tokens)),
            false => Err(malformed("it ends before its last sample".to_owned())),
        }
    }

    fn psnr(&self, layout: &Layout, original: &[&[u8]], reconstructed: &[Vec<u8>]) -> f64 {
        let Ok(native) = self.native(layout) else { return f64::NAN };
        let grid = Grid::new(native.shape, self.sample());
        let [theirs, ours] = [
            self.frames(&grid, native.shape, original),
            self.frames(&grid, native.shape, reconstructed),
        ];
        let (squares, num) = match native.shape.modality {
            Modality::Audio => {
                let pairs = sound_samples(&theirs).into_iter().zip(sound_samples(&ours));
                let squares: f64 =
                    pairs.map(|(one, other)| (f64::from(one) - f64::from(other)).powi(2)).sum();
                (squares, theirs.len() / 2)
            }
            _ => {
                let pairs = theirs.iter().zip(&ours);
                let squares: f64 =
                    pairs.map(|(&one, &other)| (f64::from(one) - f64::from(other)).powi(2)).sum();
                (squares, theirs.len())
            }
        };
        psnr(native.shape.modality, squares / num as f64)
    }

    fn rivals(&self, layout: &Layout, original: &[&[u8]], psnr: f64) -> Vec<Rival> {
        let Ok(native) = self.native(layout) else { return Vec::new() };
        let SampleShape { modality, height, width, channels, .. } = native.shape;
        if modality != Modality::Image || height as usize * width as usize > MOST_COMPARED {
            return Vec::new();
        }
        let grid = Grid::new(native.shape, self.sample());
        let bytes = self.frames(&grid, native.shape, original);
        let picture = Picture { height, width, channels, bytes };
        [PictureCodec::Jpeg, PictureCodec::Png]
            .into_iter()
            .filter_map(|codec| rival(codec, &picture, psnr))
            .collect()
    }
}

/// The picture by another codec: at the least quality that has this PSNR, or at its best.
fn rival(codec: PictureCodec, picture: &Picture, psnr: f64) -> Option<Rival> {
    let mut best = None;
    for &setting in codec.settings() {
        let coded = codec.code(picture, setting).ok()?;
        let error = tessera_baselines::squared_error(picture, &coded.decoded).ok()?;
        let found = tessera_baselines::psnr(error);
        let name = codec.name().to_owned();
        let psnr_of_it = found.is_finite().then_some(found);
        best = Some(Rival { name, bytes: coded.file_bytes, psnr: psnr_of_it });
        if found >= psnr {
            break;
        }
    }
    best
}

/// An animated PNG, as `tessera decompress` writes it.
fn film(bytes: &[u8], picture: ImageShape, rate: Option<u32>) -> std::io::Result<Vec<u8>> {
    let num = bytes.len() / picture.num_bytes();
    let rate = rate.unwrap_or(u32::from(media::FRAMES_PER_SECOND) * 1000);
    let mut file = Vec::new();
    let mut writer = media::FilmWriter::new(&mut file, picture, num, rate)?;
    bytes.chunks_exact(picture.num_bytes()).try_for_each(|frame| writer.frame(frame))?;
    writer.finish()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use tessera_serve::Media as _;

    use super::*;
    use crate::encode::usual_data;

    fn time() -> Duration {
        let seconds = std::env::var("TESSERA_FUZZ_SECONDS").ok();
        Duration::from_secs(seconds.map_or(1, |seconds| seconds.parse().unwrap()))
    }

    /// That of a model of pictures of 16 x 16 in color, which has 64 codes of each 2 x 2 pixels.
    fn media() -> Media {
        let from = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap())
            .join("../../tests/fixtures/interop/diffusers-tiny");
        let file = crate::import(&from, &crate::ImportOptions::default()).unwrap().model.file;
        let mut data = usual_data(&file, true).unwrap();
        data.image.max_pixels = 64 * 64;
        let uniform = Tables::uniform(&[64]).unwrap();
        Media { file, data, tables: uniform.clone(), uniform }
    }

    fn picture(height: usize, width: usize) -> Vec<u8> {
        let bytes: Vec<u8> = (0..height * width * 3).map(|place| (place * 7 % 256) as u8).collect();
        media::png(&bytes, ImageShape { height, width, channels: 3 }).unwrap()
    }

    /// By hand: 20 x 33 pixels are two by three samples of 16 x 16.
    #[test]
    fn a_picture_comes_back_as_it_was_cut() {
        let media = media();
        let file = picture(20, 33);
        let Parsed { layout, samples } = media.parse(&file).unwrap();
        assert_eq!((layout.size.as_slice(), samples.len()), ([20, 33, 3].as_slice(), 6));
        assert_eq!(media.num_samples(&layout).unwrap(), 6);
        assert_eq!(media.join(&layout, &samples).unwrap(), file);
        let originals: Vec<&[u8]> = samples.iter().map(Vec::as_slice).collect();
        assert_eq!(media.psnr(&layout, &originals, &samples), f64::INFINITY);
        let rivals = media.rivals(&layout, &originals, 30.0);
        assert_eq!(rivals.len(), 2);
        assert_eq!(rivals[1].psnr, None, "a PNG has lost nothing");
        let large = media.parse(&picture(65, 64)).unwrap_err();
        assert!(matches!(large, BadInput::TooLarge(_)), "{large}");
    }

    /// Files of clients with changes anywhere: an error, or what was there.
    #[test]
    fn files_that_nobody_meant_to_send() {
        let media = media();
        let file = picture(20, 33);
        let Parsed { layout, samples } = media.parse(&file).unwrap();
        let positions = media.file.autoencoder().code_levels()[0].positions as usize;
        let tokens: Vec<Vec<u32>> = (0..samples.len())
            .map(|sample| (0..positions).map(|place| ((sample + place) % 64) as u32).collect())
            .collect();
        let compressed = media.compress(&layout, &tokens).unwrap();
        assert_eq!(media.decompress(&compressed).unwrap(), (layout, tokens.clone()));
        bolero::check!().with_type::<(Vec<(u16, u8)>, u16)>().with_test_time(time()).for_each(
            |(changes, cut)| {
                for whole in [&compressed, &file] {
                    let mut bytes = whole.clone();
                    for &(place, byte) in changes {
                        let place = usize::from(place) % bytes.len();
                        bytes[place] = byte;
                    }
                    bytes.truncate(bytes.len().saturating_sub(usize::from(*cut) % 64));
                    if let Ok((_, found)) = media.decompress(&bytes) {
                        assert_eq!(found, tokens);
                    }
                    if let Ok(parsed) = media.parse(&bytes) {
                        assert_eq!(
                            media.num_samples(&parsed.layout).unwrap(),
                            parsed.samples.len()
                        );
                    }
                }
            },
        );
    }

    /// Sizes that a client makes up.
    #[test]
    fn sizes_that_nobody_has() {
        let media = media();
        for size in [vec![], vec![1, 1], vec![0, 1, 3], vec![1, 1, 4], vec![u64::MAX, 1, 3]] {
            let layout = Layout { size, rate: None };
            assert!(matches!(media.num_samples(&layout), Err(BadInput::Malformed(_))));
        }
        let layout = Layout { size: vec![1 << 30, 1 << 30, 3], rate: None };
        assert!(matches!(media.num_samples(&layout), Err(BadInput::TooLarge(_))));
    }
}
