//! Film in the formats that others write: each file is made by FFmpeg, and what is read of
//! it is compared with what FFmpeg decodes.

#![allow(clippy::print_stdout)] // a test that is skipped says why

use crate::*;
use std::process::Command;
use tessera_data::Windows;

/// What FFmpeg prints, or none where it is not installed; words are separated by spaces.
fn ffmpeg(folder: &Path, words: &str) -> Option<Vec<u8>> {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin", "-y"]).args(words.split_whitespace());
    let Ok(output) = command.current_dir(folder).output() else {
        println!("skipped: ffmpeg is not installed, and only it makes and reads these files");
        return None;
    };
    assert!(output.status.success(), "{words}: {}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

/// All samples of a folder, and its error if it cannot be read.
fn samples(data: &DataConfig) -> Result<Vec<u8>, String> {
    let source = source::open(data, "train").map_err(|error| error.to_string())?;
    let mut samples = Vec::new();
    for id in 0..source.num_samples() {
        let mut sample = vec![0; source.shape().num_bytes()];
        source.read(id, Draw::NONE, &mut sample).map_err(|error| error.to_string())?;
        samples.extend(sample);
    }
    Ok(samples)
}

/// Names of films, and how FFmpeg is to write them.
const FILMS: [(&str, &str); 6] = [
    // No times at all, or none for B-frames.
    ("xvid.avi", "-c:v mpeg4 -bf 2 -g 12"),
    ("h264.avi", "-c:v libx264 -bf 2 -g 12"),
    // Not evenly spaced, with keyframes to seek.
    ("uneven.mkv", "-vf select=lt(mod(n\\,5)\\,3) -vsync 0 -c:v libx264 -bf 2 -g 12"),
    // Odd sizes; it is put on its side below.
    ("odd.mp4", "-vf scale=67:49 -pix_fmt yuv444p -c:v libx264 -g 12 -movflags faststart"),
    ("nine.webm", "-c:v libvpx-vp9 -b:v 60k -deadline realtime -cpu-used 8"),
    ("motion.mov", "-c:v mjpeg"),
];

/// Every frame in its order, and a clip from the middle.
#[test]
fn films_have_the_frames_that_ffmpeg_decodes_and_are_refused_when_they_are_cut() {
    let folder = tempfile::tempdir().unwrap();
    let outputs: Vec<String> =
        FILMS.iter().map(|(name, words)| format!("-map 0:v {words} {name}")).collect();
    let input = "-f lavfi -i testsrc=size=64x48:rate=25:duration=1.2";
    let Some(_) = ffmpeg(folder.path(), &format!("{input} {}", outputs.join(" "))) else { return };
    // VP8 with frames that are never shown needs two passes; a film on its side needs a copy.
    let vp8 = "-f lavfi -i mandelbrot=size=64x48:rate=25 -t 1.2 -c:v libvpx -auto-alt-ref 1 \
               -lag-in-frames 25 -b:v 60k -cpu-used 5 -pass";
    ffmpeg(folder.path(), &format!("{vp8} 1 -f null -")).unwrap();
    ffmpeg(folder.path(), &format!("{vp8} 2 hidden.webm")).unwrap();
    ffmpeg(folder.path(), "-i odd.mp4 -c copy -metadata:s:v:0 rotate=90 side.mp4").unwrap();
    let names = FILMS.iter().map(|(name, _)| *name).chain(["hidden.webm", "side.mp4"]);
    for name in names.filter(|name| *name != "odd.mp4") {
        let words = format!(
            "-i {name} -map 0:v -vf scale=16:12:flags=area -vsync 0 -f rawvideo -pix_fmt gray -"
        );
        let expected = ffmpeg(folder.path(), &words).unwrap();
        let (frames, frame) = (expected.len() / 192, |at: usize| &expected[192 * at..][..192]);
        assert!(frames == if name == "uneven.mkv" { 18 } else { 30 }, "{name}: {frames}");
        let bytes = fs::read(folder.path().join(name)).unwrap();
        let alone = tempfile::tempdir_in(folder.path()).unwrap();
        write(alone.path(), &[(name, bytes.clone())]);
        let mut data = config(DataKind::Folder, alone.path());
        data.modality = Modality::Video;
        (data.video.height, data.video.width, data.video.channels) = (12, 16, 1);
        (data.video.frames, data.video.resize) = (1, tessera_data::Resize::Stretch);
        assert!(samples(&data).unwrap() == expected, "{name}: other frames");
        (data.video.frames, data.video.stride, data.video.clips) = (3, 4, Windows::Random);
        let source = source::open(&data, "train").unwrap();
        let clip = read(&*source, 0, Draw::new(5, 2, 0));
        let starts: Vec<usize> = (0..frames - 8)
            .filter(|&at| [frame(at), frame(at + 4), frame(at + 8)].concat() == clip)
            .collect();
        assert!(!starts.is_empty() && starts != [0], "{name}: {starts:?}");
        write(alone.path(), &[(name, bytes[..bytes.len() * 61 / 100].to_vec())]);
        let error = samples(&data).expect_err(name);
        assert!(error.contains("cut short") || error.contains("moov"), "{name}: {error}");
    }
}

#[test]
fn a_film_that_is_too_small_to_be_cut_out_is_told_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let words = "-f lavfi -i testsrc=size=32x32:rate=25:duration=0.2 -c:v mjpeg small.avi";
    let Some(_) = ffmpeg(folder.path(), words) else { return };
    let mut data = config(DataKind::Folder, folder.path());
    data.modality = Modality::Video;
    (data.video.frames, data.video.resize) = (1, tessera_data::Resize::None);
    let error = samples(&data).unwrap_err();
    assert!(error.contains("is smaller than a sample of 64 x 64"), "{error}");
}
