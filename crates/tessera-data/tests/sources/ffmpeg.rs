//! Sound and film in the formats that others write: each file is made by FFmpeg, and what is read of
//! it is compared with what FFmpeg decodes.

#![allow(clippy::print_stdout)] // a test that is skipped says why

use crate::*;
use std::process::Command;
use tessera_data::Windows;

/// What FFmpeg prints, or none where it is not installed; words are separated by spaces.
pub(crate) fn ffmpeg(folder: &Path, words: &str) -> Option<Vec<u8>> {
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

/// A file alone in a folder, as sound of `channels`.
fn sound(folder: &Path, name: &str, bytes: Vec<u8>, channels: u32) -> Result<Vec<i16>, String> {
    let alone = tempfile::tempdir_in(folder).unwrap();
    write(alone.path(), &[(name, bytes)]);
    let mut data = config(DataKind::Folder, alone.path());
    data.modality = Modality::Audio;
    (data.audio.length, data.audio.channels) = (1, channels);
    let bytes = samples(&data)?;
    Ok(bytes.as_chunks().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect())
}

fn sixteen(bytes: &[u8]) -> Vec<i16> {
    bytes.as_chunks().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect()
}

/// Names of files, and how FFmpeg is to write them.
const SOUNDS: [(&str, &str); 17] = [
    ("eight.wav", "-c:a pcm_u8"),
    ("more.wav", "-c:a pcm_s24le"),
    ("most.wav", "-c:a pcm_s32le"),
    ("float.wav", "-c:a pcm_f32le"),
    ("double.wav", "-c:a pcm_f64le"),
    ("law.wav", "-c:a pcm_alaw"),
    ("long.rf64", "-rf64 always -f wav"),
    ("big.wav", "-f aiff -c:a pcm_s16be"),
    ("whole.flac", ""),
    ("vorbis.ogg", "-c:a libvorbis"),
    ("opus.opus", "-c:a libopus -ar 48000"),
    ("lame.mp3", ""),
    ("free.mp3", "-q:a 5 -write_xing 0"),
    ("first.m4a", "-movflags faststart"),
    ("apple.caf", ""),
    ("sun.au", ""),
    ("sony.w64", ""),
];

#[test]
fn sound_that_ffmpeg_writes_is_read_as_ffmpeg_reads_it_and_refused_when_it_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let tone = "-f lavfi -i aevalsrc=0.4*sin(900*t*t)+0.2*sin(7000*t):s=16000:d=0.6";
    let outputs: Vec<String> =
        SOUNDS.iter().map(|(name, words)| format!("-map 0:a {words} {name}")).collect();
    let Some(_) = ffmpeg(folder.path(), &format!("{tone} {}", outputs.join(" "))) else { return };
    let inputs: Vec<String> = SOUNDS.iter().map(|(name, _)| format!("-i {name}")).collect();
    let decoded: Vec<String> =
        (0..SOUNDS.len()).map(|at| format!("-map {at}:a -f s16le {at}.raw")).collect();
    ffmpeg(folder.path(), &format!("{} {}", inputs.join(" "), decoded.join(" "))).unwrap();
    for (at, (name, _)) in SOUNDS.iter().enumerate() {
        let bytes = fs::read(folder.path().join(name)).unwrap();
        let found = sound(folder.path(), name, bytes.clone(), 1).unwrap();
        let mut expected = sixteen(&fs::read(folder.path().join(format!("{at}.raw"))).unwrap());
        if *name == "vorbis.ogg" {
            // FFmpeg 5 and older leave the padding of the last page in.
            expected.truncate(9600);
        }
        assert_eq!(found.len(), expected.len(), "{name}");
        for (a, b) in found.iter().zip(&expected) {
            assert!((a - b).abs() <= 2, "{name}: {a} and {b}");
        }
        // Far from the ends of frames and pages, as far as anyone knows.
        let cut = sound(folder.path(), name, bytes[..bytes.len() * 61 / 100].to_vec(), 1);
        let error = cut.expect_err(name);
        assert!(error.contains("cut short") || error.contains("cannot be decoded"), "{error}");
    }
}

#[test]
fn every_recording_of_a_chain_is_read_and_six_channels_are_mixed_as_ffmpeg_does() {
    let folder = tempfile::tempdir().unwrap();
    let made = ffmpeg(
        folder.path(),
        "-f lavfi -i sine=440:sample_rate=16000:duration=0.4 \
         -f lavfi -i sine=880:sample_rate=16000:duration=0.3 \
         -f lavfi -i aevalsrc=0.4*sin(900*t)|0.1*sin(800*t)|0.3*sin(700*t)|sin(30*t)|\
         0.2*sin(1000*t)|0.5*sin(1200*t):s=8000:d=0.2:c=5.1 \
         -map 0 -c:a libvorbis a.ogg -map 1 -c:a libvorbis b.ogg -map 0 -ar 48000 a.opus \
         -map 1 -ar 48000 b.opus -map 0 a.mp3 -map 2 six.wav -map 2 six.flac -map 2 -c:a libvorbis six.ogg",
    );
    let Some(_) = made else { return };
    let bytes = |name: &str| fs::read(folder.path().join(name)).unwrap();
    for kind in ["ogg", "opus"] {
        let (first, second) = (bytes(&format!("a.{kind}")), bytes(&format!("b.{kind}")));
        let name = format!("chain.{kind}");
        let chain = sound(folder.path(), &name, [first.clone(), second.clone()].concat(), 1);
        let apart = [first, second].map(|bytes| sound(folder.path(), &name, bytes, 1).unwrap());
        assert_eq!(chain.unwrap(), apart.concat(), "{kind}");
    }
    // One MP3 behind another, as from a radio: only the delay of the first is known to be one.
    let radio = [bytes("a.mp3"), bytes("a.mp3")].concat();
    let one = sound(folder.path(), "a.mp3", bytes("a.mp3"), 1).unwrap();
    let both = sound(folder.path(), "radio.mp3", radio, 1).unwrap();
    assert_eq!(one.len(), 6400);
    assert!(both.len() >= 12800 && both[..6000] == one[..6000], "{}", both.len());
    for name in ["six.wav", "six.flac", "six.ogg"] {
        for channels in [1, 2] {
            // In floats, which FFmpeg scales only if it is told to.
            let words = format!(
                "-i {name} -af aformat=sample_fmts=flt,aresample=rematrix_maxval=1.0,\
                 aformat=channel_layouts={} -f s16le -",
                ["mono", "stereo"][channels as usize - 1]
            );
            let expected = sixteen(&ffmpeg(folder.path(), &words).unwrap());
            let found = sound(folder.path(), name, bytes(name), channels).unwrap();
            assert_eq!(found.len(), 1600 * channels as usize);
            for (a, b) in found.iter().zip(&expected) {
                assert!((a - b).abs() <= 2, "{name}, {channels}: {a} and {b}");
            }
        }
    }
}

/// FLAC into a pipe: its header has neither length nor checksum.
#[test]
fn flac_of_unknown_length_is_read_to_its_end_and_refused_when_it_is_cut() {
    let folder = tempfile::tempdir().unwrap();
    let words = "-f lavfi -i sine=440:sample_rate=16000:duration=2 -f flac -";
    let Some(mut flac) = ffmpeg(folder.path(), words) else { return };
    // The low 36 bits of these eight bytes are the number of frames, then comes the MD5.
    assert_eq!(&flac[..4], b"fLaC");
    flac[21] &= 0xF0;
    flac[22..42].fill(0);
    let tagged = [flac.as_slice(), b"TAG", &[b' '; 125]].concat();
    for whole in [&flac, &tagged] {
        assert_eq!(sound(folder.path(), "a.flac", whole.clone(), 1).unwrap().len(), 32000);
    }
    for share in [75, 99] {
        let cut = flac[..flac.len() * share / 100].to_vec();
        let error = sound(folder.path(), "a.flac", cut, 1).unwrap_err();
        assert!(error.contains("cut short") || error.contains("cannot be decoded"), "{error}");
    }
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
