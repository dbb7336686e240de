//! Film: clips of frames, from a file that FFmpeg reads, an animated gif, or a folder of pictures.
//!
//! FFmpeg runs as a process of its own and hands over raw frames, resized by its area filter. A clip
//! begins at exactly the frame it should, also where frames are not evenly spaced or have no times
//! (`timeline.rs`). Gif and folders of pictures need no FFmpeg.

use std::fs;
use std::io::Cursor;
use std::ops::Range;
use std::path::{Path, PathBuf};

use image::codecs::gif::GifDecoder;
use image::{AnimationDecoder, DynamicImage, ImageDecoder, RgbaImage};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::decode::audio::Windows;
use crate::decode::ffmpeg::{self, EACH_FRAME};
use crate::decode::image::{self as pictures, ImageConfig, Picture, Resize};
use crate::decode::timeline::{self, Timeline};
use crate::decode::{has_extension, is_litter};
use crate::draw::{Draw, Purpose};
use crate::shape::{Modality, SampleShape};

/// Bytes of clips that are decoded at a time, at least one clip.
const SEGMENT_BYTES: usize = 64 << 20;

/// How film becomes samples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct VideoConfig {
    /// Frames of a clip. The network `"conv3d"` takes 1 and some of its `temporal` more, such as 17.
    pub frames: u32,
    /// Every so many frames of the film are one of the clip.
    pub stride: u32,
    /// Height of a sample in pixels.
    pub height: u32,
    /// Width of a sample in pixels.
    pub width: u32,
    /// 3: color, 1: gray.
    pub channels: u32,
    /// How a film of another size is brought to that of a sample; it is cut in its middle.
    pub resize: Resize,
    /// Whether training sees every second clip mirrored, left to right.
    pub flip: bool,
    /// Which clips of a film are samples.
    pub clips: Windows,
    /// Frames with more pixels are refused.
    pub max_pixels: u64,
}

impl Default for VideoConfig {
    fn default() -> Self {
        Self {
            frames: 17,
            stride: 1,
            height: 64,
            width: 64,
            channels: 3,
            resize: Resize::default(),
            flip: false,
            clips: Windows::default(),
            max_pixels: 1 << 27,
        }
    }
}

/// Where a film is.
pub(crate) enum Film<'a> {
    /// A file that FFmpeg can open.
    File(PathBuf),
    /// A folder of pictures, its frames in the order of their names.
    Folder(PathBuf),
    /// The bytes of an animated gif.
    Gif(Vec<u8>),
    /// The bytes of another file, in memory.
    Bytes(&'a [u8]),
}

/// Clips of a film that follow each other.
#[derive(Debug)]
pub(crate) struct Clips {
    /// Number of the first.
    first: u64,
    bytes: Vec<u8>,
}

impl VideoConfig {
    /// The error names a key and completes it.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        if ![1, 3].contains(&self.channels) {
            let problem = format!("must be 1 (gray) or 3 (color), not {}", self.channels);
            return Err(("video.channels", problem));
        }
        for (key, value) in [("video.frames", self.frames), ("video.stride", self.stride)] {
            if value == 0 {
                return Err((key, "must be at least 1".to_owned()));
            }
        }
        self.shape().check().map_err(|problem| ("video", problem))
    }

    pub(crate) fn shape(&self) -> SampleShape {
        SampleShape::video(self.channels, self.frames, self.height, self.width)
    }

    /// How many samples a film gives.
    pub(crate) fn num_clips(&self, film: &Film<'_>) -> Result<u64, String> {
        let frames = num_frames(film, self.max_pixels)?;
        let span = u64::from(self.frames - 1) * u64::from(self.stride) + 1;
        Ok(match self.clips {
            _ if frames < span => 0,
            Windows::Random => 1,
            Windows::All => (frames - span) / (u64::from(self.frames) * u64::from(self.stride)) + 1,
        })
    }

    /// Number of the segment that a clip is decoded with.
    pub(crate) fn segment(&self, clip: u64) -> u64 {
        clip / self.clips_per_segment()
    }

    fn clips_per_segment(&self) -> u64 {
        match self.clips {
            Windows::All => (SEGMENT_BYTES / self.shape().num_bytes()).max(1) as u64,
            Windows::Random => 1,
        }
    }

    /// Decodes a clip, and those that are cheap to decode with it; the error completes
    /// "sample ...".
    pub(crate) fn decode(&self, film: &Film<'_>, clip: u64, draw: Draw) -> Result<Clips, String> {
        let (frames, stride) = (u64::from(self.frames), u64::from(self.stride));
        let (first, start, num_clips) = match self.clips {
            Windows::All => {
                let first = self.segment(clip) * self.clips_per_segment();
                let all = self.num_clips(film)?;
                let num_clips = self.clips_per_segment().min(all.saturating_sub(first));
                (first, first * frames * stride, num_clips)
            }
            Windows::Random => {
                let most =
                    num_frames(film, self.max_pixels)?.checked_sub((frames - 1) * stride + 1);
                let most = most.ok_or("has fewer frames than a clip")?;
                (clip, draw.up_to(Purpose::Start, most), 1)
            }
        };
        if !(first..first + num_clips).contains(&clip) {
            return Err("has another length than when it was listed".to_owned());
        }
        let count = num_clips * frames;
        let bytes = self.cut_out(film, start, count)?;
        let expected = num_clips as usize * self.shape().num_bytes();
        if bytes.len() != expected {
            let frame = self.shape().num_bytes() / self.frames as usize;
            return Err(format!("has {} frames where {count} were listed", bytes.len() / frame));
        }
        Ok(Clips { first, bytes })
    }

    /// Up to `count` frames at the size of a sample from frame `start` on, every `stride`-th.
    fn cut_out(&self, film: &Film<'_>, start: u64, count: u64) -> Result<Vec<u8>, String> {
        let stride = self.stride;
        Ok(match film {
            Film::File(path) => {
                let timeline = Timeline::of(timeline::Film::in_file(path)?, path)?;
                self.by_ffmpeg(path, &timeline, start, count)?
            }
            Film::Bytes(bytes) => {
                let file = ffmpeg::in_memory(bytes)?;
                let timeline = Timeline::of(timeline::Film::in_memory(bytes), file.path())?;
                self.by_ffmpeg(file.path(), &timeline, start, count)?
            }
            Film::Gif(bytes) => {
                let mut all = Vec::new();
                for_each_frame(bytes, self.max_pixels, &mut |frame| {
                    all.push(pictures::of(DynamicImage::ImageRgba8(frame), self.channels));
                })?;
                let wanted = all.iter().skip(start as usize).step_by(stride as usize);
                self.sized(wanted.take(count as usize))?
            }
            Film::Folder(folder) => {
                let mut frames = Vec::new();
                let paths = frame_paths(folder)?;
                for path in paths.iter().skip(start as usize).step_by(stride as usize) {
                    if frames.len() as u64 == count {
                        break;
                    }
                    let bytes =
                        fs::read(path).map_err(|error| format!("cannot be read ({error})"))?;
                    let frame = pictures::decode(&bytes, self.channels, self.max_pixels);
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    frames.push(
                        frame.map_err(|problem| format!("has a frame {name} that {problem}"))?,
                    );
                }
                self.sized(frames.iter())?
            }
        })
    }

    /// The frames in `range` of a film, of the size of a sample, one after another.
    pub(crate) fn frames(&self, film: &Film<'_>, range: Range<u64>) -> Result<Vec<u8>, String> {
        let bytes = self.cut_out(film, range.start, range.end - range.start)?;
        let frame = self.shape().num_bytes() / self.frames as usize;
        let (found, wanted) = (bytes.len() / frame, (range.end - range.start) as usize);
        match found == wanted {
            true => Ok(bytes),
            false => Err(format!("has {found} frames where {wanted} were listed")),
        }
    }

    /// Writes a clip to `out`.
    pub(crate) fn place(&self, clips: &Clips, clip: u64, draw: Draw, out: &mut [u8]) {
        let from = (clip - clips.first) as usize * out.len();
        out.copy_from_slice(&clips.bytes[from..from + out.len()]);
        if self.flip && draw.coin(Purpose::Flip) {
            pictures::mirror(out, self.width as usize, self.channels as usize);
        }
    }

    /// Frames at the size of a sample, one after another.
    fn sized<'a>(&self, frames: impl Iterator<Item = &'a Picture>) -> Result<Vec<u8>, String> {
        let config = ImageConfig {
            height: self.height,
            width: self.width,
            channels: self.channels,
            resize: self.resize,
            ..ImageConfig::default()
        };
        let mut bytes = Vec::new();
        for frame in frames {
            let mut sized = vec![0; config.shape().num_bytes()];
            config.place(frame, 0, Draw::NONE, &mut sized)?;
            bytes.extend(sized);
        }
        Ok(bytes)
    }

    /// `count` frames of a file from frame `start` on, every `stride`-th.
    fn by_ffmpeg(
        &self,
        path: &Path,
        timeline: &Timeline,
        start: u64,
        count: u64,
    ) -> Result<Vec<u8>, String> {
        let first = start as usize;
        if start >= timeline.frames {
            return Err("has another length than when it was listed".to_owned());
        }
        // Between two frames, so that no rounding of times takes another one.
        let seek = match (&timeline.times, first.checked_sub(1)) {
            (Some(times), Some(before)) => Some(f64::midpoint(times[first], times[before])),
            _ => None,
        };
        // Frames that are decoded before the first one.
        let skipped = if seek.is_some() { 0 } else { start };
        let (width, height, stride) = (self.width, self.height, self.stride);
        let fit = match self.resize {
            Resize::Cover => format!(
                "scale={width}:{height}:force_original_aspect_ratio=increase:flags=area,\
                 crop={width}:{height}"
            ),
            Resize::Stretch => format!("scale={width}:{height}:flags=area"),
            Resize::None => format!("crop={width}:{height}"),
        };
        let filter = format!(
            "select=gte(n\\,{skipped})*not(mod(n-{skipped}\\,{stride})),{fit},{EACH_FRAME}"
        );
        let format = if self.channels == 1 { "gray" } else { "rgb24" };
        let mut command = ffmpeg::ffmpeg_from(path, seek);
        command.args(["-map", "0:V:0", "-vf", &filter, "-r", "25"]);
        command.args(["-frames:v", &count.to_string(), "-f", "rawvideo", "-pix_fmt", format, "-"]);
        let frame = (width * height * self.channels) as usize;
        match ffmpeg::output_of(command, count as usize * frame) {
            Ok(output) => Ok(output.bytes),
            Err(problem) if problem.contains("too big or non positive size") => {
                Err(format!("is smaller than a sample of {width} x {height}"))
            }
            Err(problem) => Err(problem),
        }
    }
}

/// What there is to know of a film before its frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct About {
    /// Frames.
    pub(crate) frames: u64,
    /// Size of a frame as it is shown, in pixels.
    pub(crate) height: u32,
    pub(crate) width: u32,
    /// Frames in a thousand seconds, where they have times.
    pub(crate) rate: Option<u32>,
}

/// Size, length and rate of a film.
pub(crate) fn about(film: &Film<'_>, max_pixels: u64) -> Result<About, String> {
    let (mut rate, mut size) = (None, None);
    let frames = num_frames(film, max_pixels)?;
    match film {
        Film::File(path) => {
            let timeline = Timeline::of(timeline::Film::in_file(path)?, path)?;
            rate = rate_of(&timeline);
            size = Some(ffmpeg::size_of(path)?);
        }
        Film::Bytes(bytes) => {
            let file = ffmpeg::in_memory(bytes)?;
            let timeline = Timeline::of(timeline::Film::in_memory(bytes), file.path())?;
            rate = rate_of(&timeline);
            size = Some(ffmpeg::size_of(file.path())?);
        }
        Film::Folder(folder) => {
            if let Some(first) = frame_paths(folder)?.first() {
                let bytes = fs::read(first).map_err(|error| format!("cannot be read ({error})"))?;
                size = Some(pictures::dimensions(&bytes)?);
            }
        }
        Film::Gif(bytes) => for_each_frame(bytes, max_pixels, &mut |frame| {
            size = size.or(Some(frame.dimensions()));
        })?,
    }
    let (width, height) = size.ok_or("has no frames")?;
    if u64::from(width) * u64::from(height) > max_pixels {
        return Err(format!("has frames of {width} x {height} pixels, the limit is {max_pixels}"));
    }
    Ok(About { frames, height, width, rate })
}

/// Frames in a thousand seconds, on average.
fn rate_of(timeline: &Timeline) -> Option<u32> {
    let times = timeline.times.as_ref()?;
    let seconds = times.last()? - times.first()?;
    let rate = (times.len() - 1) as f64 * 1000.0 / seconds;
    (1.0..1e6).contains(&rate).then_some(rate.round() as u32)
}

/// Frames of a film.
fn num_frames(film: &Film<'_>, max_pixels: u64) -> Result<u64, String> {
    Ok(match film {
        Film::File(path) => Timeline::of(timeline::Film::in_file(path)?, path)?.frames,
        Film::Bytes(bytes) => {
            let film = timeline::Film::in_memory(bytes);
            Timeline::of(film, ffmpeg::in_memory(bytes)?.path())?.frames
        }
        Film::Folder(folder) => frame_paths(folder)?.len() as u64,
        Film::Gif(bytes) => {
            let mut count = 0;
            for_each_frame(bytes, max_pixels, &mut |_| count += 1)?;
            count
        }
    })
}

/// Pictures of a folder, in the order of their names.
fn frame_paths(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let unreadable = |error: std::io::Error| format!("cannot be read ({error})");
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.file_name().is_some_and(|name| is_frame(&name.to_string_lossy())) {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

/// Whether a file of this name can be a frame of a film.
pub(crate) fn is_frame(name: &str) -> bool {
    // A gif is a film of its own.
    has_extension(name, Modality::Image.extensions())
        && !has_extension(name, &["gif"])
        && !is_litter(name)
}

/// Calls `use_frame` with each frame of a gif. All frames together have at most `max_pixels`: an
/// animation of many empty frames, or of large ones, is small as a file.
fn for_each_frame(
    bytes: &[u8],
    max_pixels: u64,
    use_frame: &mut dyn FnMut(RgbaImage),
) -> Result<(), String> {
    let undecodable = |error| format!("cannot be decoded ({error})");
    let decoder = GifDecoder::new(Cursor::new(bytes)).map_err(undecodable)?;
    let (width, height) = decoder.dimensions();
    let (mut left, mut frames) = (max_pixels, decoder.into_frames());
    loop {
        left = left.checked_sub(u64::from(width) * u64::from(height)).ok_or_else(|| {
            format!(
                "has more than {max_pixels} pixels in all of its frames: raise \
                 data.video.max_pixels if that is right"
            )
        })?;
        match frames.next() {
            Some(frame) => use_frame(frame.map_err(undecodable)?.into_buffer()),
            None => return Ok(()),
        }
    }
}
