//! Holes in pictures, filled by a prior.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tessera_apply::{
    ApplyError, Damage, InpaintOptions, Inpainted, Input, Sampling, Watch, inpaint,
};
use tessera_comm::{CommError, Threads};
use tessera_control::{Activity, ExitCode};
use tessera_model::ModelKind;

use super::{
    DEADLINE, SIDE, bytes, codes_of, picture, prior, read_picture, tokenizer, tokens, write_picture,
};

/// Writes three pictures, and a mask that is white where this holds of a row and a column.
fn write_all(folder: &Path, is_hole: impl Fn(u32, u32) -> bool) {
    fs::create_dir_all(folder.join("pictures")).unwrap();
    for number in 0..3 {
        let path = folder.join(format!("pictures/{number}.png"));
        write_picture(&path, &picture(number), SIDE, png::ColorType::Rgb);
    }
    // Gray of 127 and of 128 are on the two sides of the threshold.
    let gray = |at: u32| if is_hole(at / SIDE, at % SIDE) { 128 } else { 127 };
    let mask: Vec<u8> = (0..SIDE * SIDE).map(gray).collect();
    write_picture(&folder.join("mask.png"), &mask, SIDE, png::ColorType::Grayscale);
}

fn options(folder: &Path, out: &str) -> InpaintOptions {
    InpaintOptions {
        input: Input::Files(folder.join("pictures")),
        damage: Damage::Mask(folder.join("mask.png")),
        widen: 1,
        num: 7,
        class: None,
        seed: 3,
        sampling: Sampling { steps: 4, ..Sampling::default() },
        out: folder.join(out),
        raw: true,
    }
}

/// Fills on so many ranks; what rank 0 says of it.
fn filled(
    kind: &str,
    world_size: usize,
    options: &InpaintOptions,
) -> Result<Inpainted, ApplyError> {
    tch::set_num_threads(1);
    let mut ranks = Threads::run(world_size, DEADLINE, |comm| {
        let tokenizer = tokenizer();
        let prior = prior(kind, &tokenizer);
        let activity = Activity::default();
        let watch = Watch { activity: &activity, stop: Arc::default(), say: &|_| () };
        Ok::<_, CommError>(inpaint(&comm, &prior, Some(&tokenizer), options, &watch))
    });
    ranks.remove(0).unwrap()
}

fn about(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("inpaint.json")).unwrap()).unwrap()
}

/// The picture with its hole in the mean color of the rest, rounded.
fn with_mean(picture: &[u8], is_hole: impl Fn(usize) -> bool) -> Vec<u8> {
    let mut filled = picture.to_vec();
    for channel in 0..3 {
        let known =
            (0..picture.len() / 3).filter(|at| !is_hole(*at)).map(|at| picture[at * 3 + channel]);
        let (num, sum) =
            known.fold((0, 0.0), |(num, sum), value| (num + 1, sum + f64::from(value)));
        let mean = (sum / f64::from(num)).round() as u8;
        (0..picture.len() / 3)
            .filter(|at| is_hole(*at))
            .for_each(|at| filled[at * 3 + channel] = mean);
    }
    filled
}

/// 21 draws on two tiles. By hand: pixels of rows 1 to 3 and columns 1 to 6 are in the patches of codes 0 and 1 of 4 x 4, and
/// around these are rows 0 and 1, columns 0 to 2.
#[test]
fn codes_beside_a_hole_stay_and_bytes_are_the_same_for_every_number_of_ranks() {
    let is_hole = |at: usize| (1..4).contains(&(at / 16)) && (1..7).contains(&(at % 16));
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path(), |row, column| is_hole((row * SIDE + column) as usize));
    filled("masked", 1, &options(folder.path(), "1")).unwrap();
    let one = bytes(&folder.path().join("1"));
    assert_eq!(
        one.len(),
        2 * 21 + 3 + 3,
        "draws, as they are and decoded, means, and what is told of them"
    );
    for ranks in [2, 3] {
        let out = ranks.to_string();
        filled("masked", ranks, &options(folder.path(), &out)).unwrap();
        assert!(bytes(&folder.path().join(out)) == one, "{ranks} ranks");
    }

    let out = folder.path().join("1");
    let drawn = [0, 1, 2, 4, 5, 6];
    let about = about(&out);
    assert_eq!(about["mask"]["num_pixels"], 18);
    assert_eq!(about["mask"]["drawn"], serde_json::json!([drawn, drawn]));
    assert_eq!(about["pictures"][1]["num_given"], 20);
    let all = tokens(&out);
    for (at, draws) in all.chunks(7).enumerate() {
        let known = codes_of(&with_mean(&picture(at as u8), is_hole));
        for draw in draws {
            for code in (0..32).filter(|code| !drawn.contains(&(code % 16))) {
                assert_eq!(draw[code], known[code], "picture {at}, code {code}");
            }
        }
        assert!(draws.iter().any(|draw| draw[0] != draws[0][0] || draw[5] != draws[0][5]));
    }
    for (at, draw) in [(0, 0), (2, 6)] {
        let read =
            |within: &str| read_picture(&out.join(within).join(format!("{at:08}-{draw:03}.png")));
        let (within, decoded) = (read("pictures"), read("raw"));
        for pixel in 0..256 {
            let of = |bytes: &[u8]| bytes[pixel * 3..][..3].to_vec();
            let wanted = if is_hole(pixel) { of(&decoded) } else { of(&picture(at)) };
            assert_eq!(of(&within), wanted, "picture {at}, pixel {pixel}");
        }
        assert_ne!(decoded, within);
    }
    // A draw hangs neither on how many there are nor on the other pictures.
    let mut alone = options(folder.path(), "alone");
    (alone.input, alone.num) = (Input::Files(folder.path().join("pictures/0.png")), 2);
    filled("masked", 1, &alone).unwrap();
    assert!(tokens(&alone.out) == all[..2]);
    let hat = InpaintOptions { class: Some("hat".to_owned()), ..options(folder.path(), "hat") };
    filled("masked", 1, &hat).unwrap();
    assert!(tokens(&hat.out) != all, "the class counts");
}

#[test]
fn what_is_found_is_drawn_anew_and_the_same_for_every_number_of_ranks() {
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path(), |_, _| true);
    let find = |nats: f64, out: &str| InpaintOptions {
        damage: Damage::Find { nats, passes: 4 },
        widen: 0,
        ..options(folder.path(), out)
    };
    filled("masked", 1, &find(4.0, "1")).unwrap();
    let one = bytes(&folder.path().join("1"));
    for ranks in [2, 3] {
        let out = ranks.to_string();
        filled("masked", ranks, &find(4.0, &out)).unwrap();
        assert!(bytes(&folder.path().join(out)) == one, "{ranks} ranks");
    }
    let (about, all) = (about(&folder.path().join("1")), tokens(&folder.path().join("1")));
    let mut num_found = 0;
    for (at, draws) in all.chunks(7).enumerate() {
        let known = codes_of(&picture(at as u8));
        let found: Vec<Vec<usize>> =
            serde_json::from_value(about["pictures"][at]["found"].clone()).unwrap();
        let found = found.concat();
        num_found += found.len();
        // Both levels of a place are drawn where one of them was found.
        for code in (0..32).filter(|code| !found.contains(&(code % 16))) {
            assert!(
                draws.iter().all(|draw| draw[code] == known[code]),
                "picture {at}, code {code}"
            );
        }
    }
    assert!((1..96).contains(&num_found), "{num_found} of 96 are no test");

    // A threshold that nothing is above leaves all as it was, and one that all is above nothing.
    let none = filled("masked", 1, &find(1e9, "none")).unwrap();
    assert_eq!((none.mean_drawn, none.nats_per_token), (0.0, None));
    let path = folder.path().join("none/pictures/00000001-000.png");
    assert_eq!(read_picture(&path), picture(1));
    assert_eq!(filled("masked", 1, &find(0.0, "all")).unwrap().mean_drawn, 32.0);
}

/// The hole is the lower half, which comes last; or all of it, where nothing is given.
#[test]
fn an_autoregressive_prior_fills_what_comes_last() {
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path(), |row, _| row >= 8);
    filled("autoregressive", 1, &InpaintOptions { widen: 0, ..options(folder.path(), "half") })
        .unwrap();
    let known = codes_of(&with_mean(&picture(2), |at| at / 16 >= 8));
    let all = tokens(&folder.path().join("half"));
    assert_eq!((&all[20][..8], &all[20][16..24]), (&known[..8], &known[16..24]));
    write_all(folder.path(), |_, _| true);
    for kind in ["autoregressive", "masked"] {
        let told = filled(kind, 1, &options(folder.path(), kind)).unwrap();
        assert_eq!(told.mean_drawn, 32.0);
    }
}

#[test]
fn what_cannot_be_filled_is_refused_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path(), |row, column| row == 5 && column == 5);
    let refused = |kind: &str, change: &dyn Fn(&mut InpaintOptions)| {
        let mut options = options(folder.path(), "out");
        change(&mut options);
        let error = filled(kind, 2, &options).unwrap_err();
        assert_eq!(error.code(), ExitCode::BadInput, "{error}");
        assert!(!options.out.exists() && !error.to_string().contains('\n'), "{error}");
        error.to_string()
    };
    let path = |name: &str| folder.path().join(name);
    let with_mask =
        |name: &str| refused("masked", &|options| options.damage = Damage::Mask(path(name)));
    write_picture(&path("large.png"), &[255; 20 * 18], 18, png::ColorType::Grayscale);
    let words = with_mask("large.png");
    assert!(words.contains("16 x 16 pixels (height, width), found 20 x 18"), "{words}");
    write_picture(&path("empty.png"), &[127; 256], SIDE, png::ColorType::Grayscale);
    assert!(with_mask("empty.png").starts_with("--mask has no white pixel"));
    with_mask("nowhere.png");
    let words = refused("autoregressive", &|_| ());
    assert!(
        words.starts_with("an autoregressive prior draws what follows given tokens"),
        "{words}"
    );
    let find = |passes| Damage::Find { nats: 3.0, passes };
    let words = refused("autoregressive", &|options| options.damage = find(4));
    assert!(words.starts_with("--find compares each code with all others"), "{words}");
    assert!(
        refused("masked", &|options| options.damage = find(1)).starts_with("--passes should be 2")
    );
    let words = refused("masked", &|options| {
        let (split, ids) = ("test".to_owned(), vec![3]);
        options.input = Input::Data { split, ids };
    });
    assert!(words.starts_with("data.path"), "the model was trained on nothing: {words}");
    assert!(refused("masked", &|options| options.num = 0).starts_with("--num should be 1 or more"));
    let words = refused("masked", &|options| options.class = Some("boat".to_owned()));
    assert!(words.starts_with("--class should be a class of the prior, found boat"), "{words}");
}

#[test]
fn pictures_are_not_filled_by_a_prior_of_other_codes() {
    let folder = tempfile::tempdir().unwrap();
    write_all(folder.path(), |_, _| true);
    tch::set_num_threads(1);
    let options = options(folder.path(), "out");
    let mut ranks = Threads::run(1, DEADLINE, |comm| {
        let tokenizer = tokenizer();
        let mut prior = prior("masked", &tokenizer);
        if let ModelKind::Prior(file) = &mut prior.file.kind {
            file.codes.tokenizer = "0".repeat(64);
        }
        let activity = Activity::default();
        let watch = Watch { activity: &activity, stop: Arc::default(), say: &|_| () };
        Ok::<_, CommError>(inpaint(&comm, &prior, Some(&tokenizer), &options, &watch))
    });
    let error = ranks.remove(0).unwrap().unwrap_err();
    assert_eq!(error.code(), ExitCode::BadInput);
    assert!(
        error.to_string().starts_with("the prior is of the codes of the model 000000000000"),
        "{error}"
    );
}
