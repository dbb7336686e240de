//! How many frames a film shows, and when.
//!
//! A packet of a film is not always a frame: VP8 and VP9 have some that are never shown, MPEG-4 in
//! AVI has empty ones, AVI has no times, and pictures before the first whole one are dropped. Films
//! whose packets are not known to be frames are decoded once to count them. Where there are as many as
//! packets with times, a clip can be sought; in other films it is counted from their beginning.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::decode::ffmpeg::{self, output_of};
use crate::decode::whole;

/// Codecs each packet of which is one frame that is shown.
const PLAIN: [&str; 4] = ["h264", "hevc", "av1", "mjpeg"];

/// Frames of all films whose times are kept, about: 64 MiB.
const MOST_KEPT: u64 = 8 << 20;

/// When the frames of a film are shown.
#[derive(Debug, PartialEq)]
pub(crate) struct Timeline {
    /// How many frames there are.
    pub(crate) frames: u64,
    /// Their times in seconds, in order; none if frames can only be counted.
    pub(crate) times: Option<Vec<f64>>,
}

/// Tells films apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Film {
    /// A file, its length and its time.
    File(PathBuf, u64, Option<SystemTime>),
    /// Bytes in memory: their number and two checksums.
    Bytes(usize, u32, u32),
}

/// Timelines of films that were read: a clip of one needs it each time.
static KEPT: Mutex<BTreeMap<Film, Arc<Timeline>>> = Mutex::new(BTreeMap::new());

impl Film {
    /// The film in a file.
    pub(crate) fn in_file(path: &Path) -> Result<Self, String> {
        let about = fs::metadata(path).map_err(|error| format!("cannot be read ({error})"))?;
        Ok(Self::File(path.to_owned(), about.len(), about.modified().ok()))
    }

    /// The film in these bytes.
    pub(crate) fn in_memory(bytes: &[u8]) -> Self {
        let half = bytes.len() / 2;
        Self::Bytes(bytes.len(), crc32fast::hash(&bytes[..half]), crc32fast::hash(&bytes[half..]))
    }
}

impl Timeline {
    /// The timeline of `film`, which lies at `path`; the error completes "sample ...".
    pub(crate) fn of(film: Film, path: &Path) -> Result<Arc<Self>, String> {
        let kept = || KEPT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept().get(&film) {
            return Ok(known.clone());
        }
        let timeline = Arc::new(Self::read(path)?);
        let mut kept = kept();
        if kept.values().map(|known| known.frames).sum::<u64>() > MOST_KEPT {
            kept.clear();
        }
        kept.insert(film, timeline.clone());
        Ok(timeline)
    }

    fn read(path: &Path) -> Result<Self, String> {
        let mut file = fs::File::open(path).map_err(|error| format!("cannot be read ({error})"))?;
        whole::check(&mut file)?;
        let mut command = Command::new("ffprobe");
        command.args(["-v", "error", "-select_streams", "V:0", "-protocol_whitelist", "file"]);
        command.args(["-show_entries", "packet=pts_time,flags:stream=codec_name", "-of", "csv"]);
        command.arg(ffmpeg::input(path));
        let text = output_of(command, usize::MAX)?.bytes;
        let (times, is_plain) = times(&String::from_utf8_lossy(&text));
        let frames = match &times {
            Some(times) if is_plain => times.len() as u64,
            _ => count(path)?,
        };
        match frames {
            0 => Err("has no frames".to_owned()),
            // As many frames as packets: each packet is one.
            _ => Ok(Self { frames, times: times.filter(|times| times.len() as u64 == frames) }),
        }
    }
}

/// Times of all packets that are shown, in order, where each has one of its own and the first is a
/// whole picture; and whether each is a frame, whatever is in it.
fn times(text: &str) -> (Option<Vec<f64>>, bool) {
    let (mut times, mut first, mut is_plain) = (Vec::new(), None, false);
    for line in text.lines() {
        let mut words = line.split(',');
        match (words.next(), words.next(), words.next()) {
            (Some("stream"), codec, _) => is_plain |= PLAIN.contains(&codec.unwrap_or("")),
            (Some("packet"), Some(time), flags) => {
                let Ok(time) = time.parse::<f64>() else { return (None, false) };
                let flags = flags.unwrap_or("");
                // A film that begins with pictures that need others shows fewer.
                let first = *first.get_or_insert(if flags.contains('K') { time } else { f64::NAN });
                if first.is_nan() || time < first {
                    return (None, false);
                }
                // Packets before the beginning that an edit list says.
                if !flags.contains('D') {
                    times.push(time);
                }
            }
            _ => {}
        }
    }
    times.sort_unstable_by(f64::total_cmp);
    let all_differ = times.windows(2).all(|pair| pair[0] < pair[1]);
    ((all_differ && !times.is_empty()).then_some(times), is_plain)
}

/// Frames that come out of a decoder.
fn count(path: &Path) -> Result<u64, String> {
    let mut command = ffmpeg::ffmpeg(path);
    command.args(["-map", "0:V:0", "-vf", ffmpeg::EACH_FRAME, "-r", "25"]);
    command.args(["-f", "null", "-progress", "pipe:1", "-"]);
    let text = output_of(command, usize::MAX)?.bytes;
    let text = String::from_utf8_lossy(&text);
    let last = text.lines().rev().find_map(|line| line.strip_prefix("frame="));
    last.and_then(|count| count.trim().parse().ok())
        .ok_or_else(|| "cannot be decoded: ffmpeg did not tell the number of frames".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of ffprobe: B-frames stand behind what they need, and are shown before it.
    #[test]
    fn times_are_those_of_packets_that_are_shown() {
        let film = "packet,0.0,K_\npacket,0.2,__\npacket,0.1,__\npacket,0.3,_D\nstream,h264\n";
        assert_eq!(times(film), (Some(vec![0.0, 0.1, 0.2]), true));
        assert_eq!(times(&film.replace("h264", "vp9")), (Some(vec![0.0, 0.1, 0.2]), false));
        for (shown, other) in [("0.1", "N/A"), ("0.1", "-0.1"), ("0.1", "0.2"), ("K_", "__")] {
            assert_eq!(times(&film.replacen(shown, other, 1)).0, None, "{other}");
        }
    }
}
