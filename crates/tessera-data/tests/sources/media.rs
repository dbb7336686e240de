//! Sound and film.

use crate::*;
use std::collections::BTreeSet;
use std::process::Command;
use tessera_data::{SampleShape, Windows};

/// A wav file of 16 bits, one channel, 8000 frames a second.
pub(crate) fn wav(samples: &[i16]) -> Vec<u8> {
    let bytes = 2 * samples.len() as u32;
    let mut wav = b"RIFF".to_vec();
    wav.extend((36 + bytes).to_le_bytes());
    wav.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data");
    wav.extend(bytes.to_le_bytes());
    wav.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    wav
}

#[test]
fn sound_becomes_windows_of_sixteen_bits() {
    let folder = tempfile::tempdir().unwrap();
    let ramp: Vec<i16> = (0..10).map(|at| 1000 * at).collect();
    write(folder.path(), &[("a.wav", wav(&ramp)), ("b.wav", wav(&[7; 4])), ("c.wav", wav(&[1]))]);
    let mut data = config(DataKind::Folder, folder.path());
    data.modality = Modality::Audio;
    data.audio.length = 4;
    let source = source::open(&data, "train").unwrap();
    assert_eq!((source.num_samples(), source.shape()), (5, SampleShape::audio(1, 4, 8000)));
    let samples = |id, draw| -> Vec<i16> {
        let bytes = read(&*source::open(&data, "train").unwrap(), id, draw);
        bytes.as_chunks().0.iter().map(|pair| i16::from_le_bytes(*pair)).collect()
    };
    assert_eq!(samples(1, Draw::NONE), [4000, 5000, 6000, 7000]);
    assert_eq!(samples(2, Draw::NONE), [8000, 9000, 0, 0]);
    assert_eq!(samples(4, Draw::NONE), [1, 0, 0, 0]);
    packs_as_it_is_read(&data);

    data.audio.windows = Windows::Random;
    let source = source::open(&data, "train").unwrap();
    assert_eq!(source.num_samples(), 3);
    let starts: BTreeSet<Vec<u8>> =
        (0..100).map(|epoch| read(&*source, 0, Draw::new(0, epoch, 0))).collect();
    assert_eq!(starts.len(), 7, "every one of ten less four, and one");
}

/// A clip of gray pictures, frame `n` all of value `20 n`, as a gif and as a folder.
fn film(folder: &Path, frames: u8) {
    let gray = |at: u8| RgbImage::from_pixel(6, 4, Rgb([20 * at; 3]));
    for at in 0..frames {
        let png = encoded(&gray(at), ImageFormat::Png);
        write(folder, &[(&format!("scene/{at:02}.png"), png)]);
    }
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::gif::GifEncoder::new(&mut bytes);
    for at in 0..frames {
        let frame = image::DynamicImage::ImageRgb8(gray(at)).into_rgba8();
        encoder.encode_frame(image::Frame::new(frame)).unwrap();
    }
    drop(encoder);
    write(folder, &[("film.gif", bytes)]);
}

#[test]
fn film_becomes_clips_from_gifs_and_folders_of_pictures() {
    let folder = tempfile::tempdir().unwrap();
    film(folder.path(), 11);
    let mut data = config(DataKind::Folder, folder.path());
    data.modality = Modality::Video;
    data.video.frames = 3;
    data.video.stride = 2;
    data.video.height = 2;
    data.video.width = 2;
    let source = source::open(&data, "train").unwrap();
    // By hand: eleven frames have clips 0 2 4 and 6 8 10, of the gif and of the folder.
    assert_eq!((source.num_samples(), source.shape()), (4, SampleShape::video(3, 3, 2, 2)));
    for id in 0..4 {
        let clip = read(&*source, id, Draw::NONE);
        let first = 6 * (id as usize % 2);
        for (at, frame) in clip.chunks_exact(12).enumerate() {
            let expected = 20 * (first + 2 * at) as u8;
            assert!(frame.iter().all(|&byte| byte == expected), "{id}: {frame:?}");
        }
    }
    packs_as_it_is_read(&data);
    data.video.frames = 100;
    assert!(refused(&data).contains("holds no file as large or as long as a sample"));
}

/// Clips that FFmpeg decodes for us are those of one decoding of the whole file by FFmpeg.
#[test]
fn clips_of_a_film_are_those_of_a_whole_decode() {
    let ffmpeg = |arguments: &[&str]| Command::new("ffmpeg").args(arguments).output();
    if ffmpeg(&["-version"]).is_err() {
        println!("skipped: ffmpeg is not installed, and only it reads these films");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("film.mp4");
    let name = path.to_str().unwrap();
    // B-frames and keyframes that are far apart: what a careless seek gets wrong.
    let input = "testsrc=size=96x64:rate=25:duration=4";
    let made = ffmpeg(&[
        "-v", "error", "-f", "lavfi", "-i", input, "-c:v", "mpeg4", "-bf", "2", "-g", "40", name,
    ]);
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let scale = "scale=48:32:flags=area";
    let whole = ffmpeg(&[
        "-v", "error", "-i", name, "-vf", scale, "-f", "rawvideo", "-pix_fmt", "rgb24", "-",
    ]);
    let whole = whole.unwrap().stdout;
    assert_eq!(whole.len(), 100 * 48 * 32 * 3);

    let mut data = config(DataKind::Folder, folder.path());
    data.modality = Modality::Video;
    (data.video.frames, data.video.stride) = (7, 3);
    (data.video.height, data.video.width) = (32, 48);
    data.video.clips = Windows::Random;
    let source = source::open(&data, "train").unwrap();
    let frame = |at: usize| &whole[at * 48 * 32 * 3..][..48 * 32 * 3];
    let mut starts = BTreeSet::new();
    for epoch in 0..12 {
        let clip = read(&*source, 0, Draw::new(5, epoch, 0));
        let start = (0..100).find(|&at| frame(at) == &clip[..48 * 32 * 3]).expect("a frame");
        for at in 0..7 {
            assert!(
                frame(start + 3 * at) == &clip[at * 48 * 32 * 3..][..48 * 32 * 3],
                "frame {at}"
            );
        }
        starts.insert(start);
    }
    assert!(starts.len() > 4, "{starts:?}");
    data.video.clips = Windows::All;
    let source = source::open(&data, "train").unwrap();
    // By hand: a clip spans 19 frames and the next begins after 21; 100 frames have four.
    assert_eq!(source.num_samples(), 4);
    assert!(read(&*source, 3, Draw::NONE)[..48 * 32 * 3] == *frame(63));
    write(folder.path(), &[("film.mp4", fs::read(&path).unwrap()[..2000].to_vec())]);
    let error = source::open(&data, "train").err().unwrap().to_string();
    assert!(error.contains("film.mp4") && !error.contains('\n'), "{error}");
}
