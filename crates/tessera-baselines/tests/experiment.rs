//! A whole experiment as a caller makes it: baselines, a model's curve, and what is written.
//!
//! With `TESSERA_RATE_DISTORTION=FOLDER` the reports are kept there, for a person to look at.

use std::path::PathBuf;

use tessera_baselines::{
    Amount, Baseline, Curve, Kind, Layout, Picture, PictureCodec, Point, Report, Sound, SoundCodec,
    picture_curve, picture_figures, sound_curve, sound_figures,
};

/// Waves with an edge at another place in each, and some grain.
fn pictures() -> Vec<Picture> {
    let side = 32;
    let picture = |id: u32| {
        let mut bytes = Vec::new();
        for at in 0..side * side * 3 {
            let (y, x, c) = (at / 3 / side, at / 3 % side, f64::from(at % 3));
            let phase = f64::from(id) * 0.7;
            let wave = (f64::from(x) / 6.0 + phase).sin() * (f64::from(y) / 9.0 + c + phase).cos();
            let edge = if (x + y + id * 5) % 64 > 32 { 35.0 } else { -35.0 };
            let grain = f64::from((at * 7919 + id * 104_729) % 31) - 15.0;
            bytes.push((127.0 + 60.0 * wave + edge + 0.5 * grain) as u8);
        }
        Picture { height: side, width: side, channels: 3, bytes }
    };
    (0..24).map(picture).collect()
}

fn sounds() -> Vec<Sound> {
    let sound = |id: u32| {
        let mut phase = 0.0f64;
        let samples = (0..8000u32).map(|at| {
            let seconds = f64::from(at) / 8000.0;
            phase += (110.0 + 30.0 * f64::from(id) + 25.0 * (4.0 * seconds).sin()) / 8000.0;
            let turns = phase * std::f64::consts::TAU;
            let wave: f64 = (1..9).map(|n| (turns * f64::from(n)).sin() / f64::from(n)).sum();
            let grain = f64::from(at * 7919 % 201) - 100.0;
            (wave * 7000.0 * (0.5 + 0.5 * (seconds * 9.0).sin()) + grain) as i16
        });
        Sound { rate: 8000, channels: 1, samples: samples.collect() }
    };
    (0..3).map(sound).collect()
}

/// Points that stand for those of a model.
fn model(points: &[(&str, u64, &[f64])]) -> Curve {
    let point = |(setting, bytes, figures): &(&str, u64, &[f64])| Point {
        setting: (*setting).to_owned(),
        file_bytes: bytes + 120,
        payload_bytes: *bytes,
        figures: figures.to_vec(),
    };
    Curve {
        name: "VQ-VAE".to_owned(),
        about: "made up for this test; weights of 4.3 MB are not counted".to_owned(),
        kind: Kind::Model,
        points: points.iter().map(point).collect(),
    }
}

fn write(report: &Report, name: &str) {
    let kept = std::env::var_os("TESSERA_RATE_DISTORTION").map(PathBuf::from);
    let folder = tempfile::tempdir().expect("a folder");
    let out = kept.unwrap_or_else(|| folder.path().to_owned()).join(name);
    let written = report.write(&out).expect("room");
    assert!(written.iter().all(|path| path.metadata().is_ok_and(|it| it.len() > 0)));
    let text = std::fs::read_to_string(&written[0]).expect("written");
    let items = std::fs::read_to_string(&written[2]).expect("written");
    assert_eq!(&Report::from_csv(&text, &items).expect("ours"), report);
}

#[test]
fn pictures_on_sheets_beside_a_model() {
    let pictures = pictures();
    let columns = picture_figures(&pictures, &pictures).expect("alike").columns;
    let layout = Layout::Sheets { columns: 6, rows: 4 };
    let what = format!("24 made pictures; {}", layout.words());
    let mut report = Report::of_pictures(&what, &pictures, &columns);
    assert_eq!(report.amount, Amount::Pixels(24 * 32 * 32));
    let levels: [(&str, u64, &[f64]); 5] = [
        ("1 level", 380, &[19.0, 19.1, 0.42]),
        ("2 levels", 760, &[21.5, 21.6, 0.55]),
        ("3 levels", 1140, &[23.4, 23.6, 0.66]),
        ("4 levels", 1520, &[24.3, 24.6, 0.71]),
        ("8 levels", 3040, &[25.5, 25.7, 0.78]),
    ];
    report.add(model(&levels)).expect("its columns");
    for codec in PictureCodec::ALL {
        match codec.obstacle(&pictures[0]) {
            Some(reason) => {
                println!("not tested: {reason}");
                report.leave_out(codec.name(), &reason);
            }
            None => {
                let curve = picture_curve(codec, &pictures, layout, &columns, &picture_figures);
                report.add(curve.expect("it codes")).expect("its columns");
            }
        }
    }
    assert_eq!(report.curves.len() + report.left_out.len(), 1 + PictureCodec::ALL.len());
    let comparisons = report.at_equal_quality(0);
    assert!(comparisons.iter().all(|one| one.matches.len() + 1 == report.curves.len()));
    write(&report, "pictures");
}

#[test]
fn sounds_beside_a_model() {
    let sounds = sounds();
    let columns = sound_figures(&sounds, &sounds).expect("alike").columns;
    let mut report = Report::of_sounds("3 made sounds of one second", &sounds, &columns);
    let levels: [(&str, u64, &[f64]); 3] = [
        ("2 codes", 750, &[4.3, 2.1]),
        ("4 codes", 1500, &[7.6, 1.9]),
        ("6 codes", 2250, &[9.5, 1.8]),
    ];
    report.add(model(&levels)).expect("its columns");
    for codec in SoundCodec::ALL {
        match codec.obstacle(&sounds[0]) {
            Some(reason) => {
                println!("not tested: {reason}");
                report.leave_out(codec.name(), &reason);
            }
            None => {
                let curve = sound_curve(codec, &sounds, &columns, &sound_figures);
                let curve = curve.expect("it codes");
                report.add(curve).expect("its columns");
            }
        }
    }
    write(&report, "sounds");
}
