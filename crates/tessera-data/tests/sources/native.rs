//! Files at their own size: what somebody compresses who does not know of samples.

use crate::ffmpeg::ffmpeg;
use crate::media::wav;
use crate::*;
use tessera_data::{Native, NativeFiles, SampleShape};

fn of(modality: Modality, path: &Path) -> DataConfig {
    DataConfig { modality, ..config(DataKind::Folder, path) }
}

#[test]
fn pictures_of_any_size_are_read_whole_and_by_name() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("b/2.png", png(2, 5, 3)), ("a.png", png(1, 40, 2))]);
    let mut data = of(Modality::Image, folder.path());
    // What samples of a training are is not asked.
    (data.image.height, data.image.width, data.holdout) = (8, 8, 0.5);
    let files = NativeFiles::open(&data).unwrap();
    assert_eq!((files.len(), files.name(0), files.name(1)), (2, "a.png".into(), "b/2.png".into()));
    for (at, (number, width, height)) in [(1, 40, 2), (2, 5, 3)].into_iter().enumerate() {
        let shape = SampleShape::image(3, height, width);
        let file = files.read(at).unwrap();
        assert_eq!((files.shape(at).unwrap().shape, file.shape().shape), (shape, shape));
        let pixels = files.frames(at, &file, 0..1).unwrap();
        assert_eq!(pixels, picture(number, width, height).into_raw());
    }
    let alone = of(Modality::Image, &folder.path().join("b/2.png"));
    assert_eq!(NativeFiles::open(&alone).unwrap().name(0), "2.png");
    let piped = Native::piped(&mut png(2, 5, 3).as_slice(), &data).unwrap();
    assert_eq!(piped.frames(0..1).unwrap(), picture(2, 5, 3).into_raw());
    fs::write(folder.path().join("a.png"), b"no picture").unwrap();
    let error = files.shape(0).unwrap_err();
    assert_eq!(error.kind(), DataErrorKind::Corrupt);
    assert!(error.to_string().contains("a.png"), "{error}");
}

#[test]
fn sound_is_as_long_as_it_is_and_silent_beyond() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &[("a.wav", wav(&[1, -2, 3]))]);
    let data = of(Modality::Audio, folder.path());
    let files = NativeFiles::open(&data).unwrap();
    let (file, shape) = (files.read(0).unwrap(), files.shape(0).unwrap());
    assert_eq!((file.shape(), shape.shape.frames), (shape, 3));
    assert_eq!(files.frames(0, &file, 1..5).unwrap(), [0xfe, 0xff, 3, 0, 0, 0, 0, 0]);
}

/// A WAV file at the rate asked for is read piece by piece: stereo floats mixed to one channel come out as from the whole.
#[test]
fn pieces_of_a_sound_are_those_of_the_whole() {
    let folder = tempfile::tempdir().unwrap();
    let values: Vec<f32> = (0..2000).map(|at| ((at * 37 % 401) as f32 - 200.0) / 211.0).collect();
    let mut bytes = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x03\0\x02\0".to_vec();
    for number in [8000u32, 8000 * 8] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(b"\x08\0\x20\0data");
    bytes.extend((4 * values.len() as u32).to_le_bytes());
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    let size = bytes.len() as u32 - 8;
    bytes[4..8].copy_from_slice(&size.to_le_bytes());
    write(folder.path(), &[("a.wav", bytes.clone())]);
    let data = of(Modality::Audio, folder.path());
    let whole = Native::piped(&mut bytes.as_slice(), &data).unwrap();
    let files = NativeFiles::open(&data).unwrap();
    let file = files.read(0).unwrap();
    assert_eq!((file.shape(), file.shape().shape.frames), (whole.shape(), 1000));
    for range in [0..1000, 0..1, 7..300, 299..1000, 900..1200, 1000..1003] {
        let piece = files.frames(0, &file, range.clone()).unwrap();
        assert_eq!(piece, whole.frames(range.clone()).unwrap(), "{range:?}");
    }
    let mut cut = bytes;
    cut.truncate(1000);
    write(folder.path(), &[("a.wav", cut)]);
    let error = files.read(0).unwrap_err();
    assert!(error.to_string().contains("is cut short"), "{error}");
}

/// A film of odd sides, 12.5 frames a second, as a file, as a folder of pictures and as a gif.
#[test]
fn film_is_read_at_its_own_size_and_rate() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("frames")).unwrap();
    let film = "-f lavfi -i testsrc=size=35x21:rate=25/2:duration=0.4 -pix_fmt rgb24";
    let words = format!(
        "{film} -c:v ffv1 a.mkv {film} frames/%02d.png {film} -vf format=rgb24 b.gif {film} -f rawvideo raw"
    );
    let Some(_) = ffmpeg(folder.path(), &words) else { return };
    let expected = fs::read(folder.path().join("raw")).unwrap();
    let files = NativeFiles::open(&of(Modality::Video, folder.path())).unwrap();
    let names: Vec<String> = (0..files.len()).map(|at| files.name(at)).collect();
    assert_eq!(names, ["a.mkv", "b.gif", "frames"]);
    for (at, name) in names.iter().enumerate() {
        let (file, shape) = (files.read(at).unwrap(), files.shape(at).unwrap());
        assert_eq!(shape.shape, SampleShape::video(3, 5, 21, 35), "{name}");
        assert_eq!(shape.film_rate, (at == 0).then_some(12_500));
        let frames = files.frames(at, &file, 2..4).unwrap();
        assert_eq!(frames.len(), 2 * 21 * 35 * 3);
        if at != 1 {
            assert_eq!(frames, &expected[2 * 21 * 35 * 3..4 * 21 * 35 * 3], "{name}");
        }
        assert!(files.frames(at, &file, 4..6).is_err(), "there are five");
    }
    let piped = fs::read(folder.path().join("a.mkv")).unwrap();
    let piped = Native::piped(&mut piped.as_slice(), &of(Modality::Video, folder.path())).unwrap();
    assert_eq!(piped.frames(0..5).unwrap(), expected);
}
