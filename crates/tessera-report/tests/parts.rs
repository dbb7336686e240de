//! Pages of an atlas, of sound and of a sweep, from arithmetic.

#![allow(clippy::unwrap_used)] // a made folder that cannot be made fails its test

mod made;

use std::fs;
use std::path::Path;

use made::{Made, file};
use serde_json::json;
use tessera_report::{ReportOptions, Reported, write};

fn page(run: &Path) -> (String, Reported) {
    let out = Made::empty("out");
    let options = ReportOptions {
        runs: vec![run.to_owned()],
        out: out.path().join("page.html"),
        force: false,
        title: None,
        most_bytes: 10_000_000,
    };
    let reported = write(&options).unwrap();
    (fs::read_to_string(&options.out).unwrap(), reported)
}

/// An array of NumPy.
fn npy(descr: &str, shape: &str, numbers: &[[u8; 4]]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let head = [&b"\x93NUMPY\x01\x00"[..], &(header.len() as u16).to_le_bytes(), header.as_bytes()];
    [head.concat(), numbers.concat()].concat()
}

/// An atlas of 12 codes of 3 channels; code k was taken k times.
fn atlas(run: &Made, modality: &str) {
    let folder = run.path().join("atlas");
    fs::create_dir_all(folder.join("index_maps")).unwrap();
    let cells = json!({"columns": 4, "width": 6, "height": 6});
    let level = json!({
        "num_codes": 12, "dim": 3, "axes": [2, 3], "counts": (0..12).collect::<Vec<u32>>(), "alone": cells, "context": cells,
        "patches": {"columns": 2, "width": 6, "height": 6}, "neighbours": [11, 10],
    });
    let about = json!({
        "format": "tessera-atlas", "version": 1, "tessera": "0.1.0", "model": "0123456789abcdef", "modality": modality,
        "sample_rate": 8000, "split": "test", "num_samples": 11, "levels": [level], "num_index_maps": 1,
    });
    file(run, "atlas/atlas.json", &about.to_string());
    let codes: Vec<[u8; 4]> = (0..36u32).map(|at| ((at * at) as f32).sin().to_le_bytes()).collect();
    fs::write(folder.join("codebook-0.npy"), npy("<f4", "(12, 3)", &codes)).unwrap();
    let counts = [1u32, 9, 3, 7].map(u32::to_le_bytes);
    fs::write(folder.join("neighbours-0.npy"), npy("<u4", "(2, 2)", &counts)).unwrap();
    let picture = |width: usize, height: usize| {
        let pixels: Vec<u8> = (0..width * height).map(|at| at as u8).collect();
        made::png(&pixels, width, height)
    };
    for name in ["alone", "context"] {
        fs::write(folder.join(format!("{name}-0.png")), picture(24, 18)).unwrap();
    }
    fs::write(folder.join("patches-0.png"), picture(12, 72)).unwrap();
    fs::write(folder.join("index_maps/000.png"), picture(6, 4)).unwrap();
    file(run, "atlas/index_maps/000.json", "{\"id\":5,\"codes\":[[0,1,2,3,4,11]]}");
}

/// A WAV file of 16 bits at 8 kHz.
fn wav(num: u32) -> Vec<u8> {
    let mut bytes = [&b"RIFF"[..], &(36 + 2 * num).to_le_bytes(), b"WAVEfmt "].concat();
    for part in [
        &16u32.to_le_bytes()[..],
        &[1, 0, 1, 0],
        &8000u32.to_le_bytes(),
        &16000u32.to_le_bytes(),
        &[2, 0, 16, 0],
    ] {
        bytes.extend(part);
    }
    bytes.extend(b"data");
    bytes.extend((2 * num).to_le_bytes());
    bytes.extend((0..num).flat_map(|at| ((at * 37 % 2000) as i16).to_le_bytes()));
    bytes
}

/// By hand: of counts 0 to 11, 66 in all, code 11 has 16.7 % and code 0 is dead. Of 20 neighbors, 9 are 11 then 10; by chance
/// there would be 10 * 16 / 20 = 8.
#[test]
fn an_atlas_shows_codes_patches_maps_and_neighbors() {
    let run = Made::run("demo");
    atlas(&run, "image");
    let (page, reported) = page(run.path());
    assert_eq!(reported.notes, [""; 0]);
    for words in [
        "Share of tokens that take each code; 1 dead",
        "<th scope=\"row\">11</th><td>17 %</td>",
        "alt=\"Code 11 alone\"",
        "alt=\"Code 11 in a mean context\"",
        "alt=\"Patches that take code 11\"",
        "Principal components",
        "t-SNE",
        "alt=\"Codes of input 5, level 1\"",
        "<th scope=\"row\">11</th><td>10</td><td>9</td><td>1.125 times</td>",
        "with the model <code>0123456789ab</code>",
    ] {
        assert!(page.contains(words), "{words}");
    }
}

#[test]
fn sound_is_heard_code_by_code_and_pair_by_pair() {
    let run = Made::run("demo");
    atlas(&run, "audio");
    fs::write(run.path().join("atlas/alone-0.wav"), wav(12 * 100)).unwrap();
    // A window of 1,500 instants and its output, each with a quarter of a second behind it.
    fs::write(run.path().join("reconstructions/step-120.wav"), wav(2 * (1500 + 2000))).unwrap();
    let (page, reported) = page(run.path());
    assert_eq!(reported.notes, [""; 0]);
    for words in
        ["aria-label=\"Code 11 alone\"", "aria-label=\"Input 1\"", "aria-label=\"Output 1\""]
    {
        assert!(page.contains(words), "{words}");
    }
    assert_eq!(page.matches("<audio controls").count(), 12 + 2);
    assert!(page.contains("Windows of 0.1875 s"));
}

#[test]
fn a_sheet_of_another_size_is_left_out_and_told() {
    let run = Made::run("demo");
    atlas(&run, "image");
    fs::write(run.path().join("atlas/alone-0.png"), made::png(&[0; 16], 4, 4)).unwrap();
    let (_, reported) = page(run.path());
    assert!(
        reported.notes[0].ends_with("expected 24 x 18 pixels, found 4 x 4."),
        "{:?}",
        reported.notes
    );
}

/// A trial that has come to the end.
fn trial(store: &mut tessera_sweep::Store, number: usize, point: &tessera_sweep::Point, mse: f64) {
    store.add_trial(number, point, 120, "drawn").unwrap();
    let figures = [("mse".to_owned(), json!(mse))].into_iter().collect();
    let outcome = tessera_sweep::Outcome { code: 0, message: String::new(), figures, seconds: 1.0 };
    store
        .finish(&tessera_sweep::Job { trial: number, rung: 0, fold: 0, steps: 120 }, &outcome)
        .unwrap();
}

#[test]
fn a_sweep_is_a_table_the_best_first_with_the_pictures_of_the_best() {
    let sweep = Made::empty("tried");
    let base = sweep.path().join("sweep.toml");
    let text = "base = \"base.toml\"\n[[parameters]]\nkey = \"model.quantizer.num_codes\"\nvalues = [4, 8, 16]\n";
    fs::write(&base, text).unwrap();
    fs::write(sweep.path().join("base.toml"), "seed = 0\n").unwrap();
    let about = tessera_sweep::About {
        sweep: tessera_sweep::Sweep::read(&base, &[]).unwrap(),
        base: "{}".to_owned(),
        steps: 120,
        eval_every: 60,
    };
    let path = sweep.path().join(tessera_sweep::STATE);
    let mut store = tessera_sweep::Store::create(&path, &about).unwrap();
    for (number, (codes, mse)) in [(4, 0.5), (8, 0.25), (16, 0.375)].into_iter().enumerate() {
        let point = [("model.quantizer.num_codes".to_owned(), json!(codes))].into();
        trial(&mut store, number, &point, mse);
        let run = Made::run("trial");
        let target = sweep.path().join(format!("trials/{number:04}"));
        fs::create_dir_all(target.parent().unwrap()).unwrap();
        fs::rename(run.path(), &target).unwrap();
    }
    drop(store);
    let (page, reported) = page(sweep.path());
    assert_eq!(reported.num_runs, 3);
    let order: Vec<usize> = [1, 2, 0]
        .iter()
        .map(|trial| {
            page.find(&format!("<th scope=\"row\">{trial}</th><td class=\"text\">done</td>"))
                .unwrap()
        })
        .collect();
    assert!(order.is_sorted(), "{order:?}");
    for words in
        ["Sweep tried", "mse against model.quantizer.num_codes", "trial 1", "<td>0.250000</td>"]
    {
        assert!(page.contains(words), "{words}");
    }
}
