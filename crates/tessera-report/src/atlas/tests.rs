use std::fs;
use std::path::Path;

use super::*;

/// An array of NumPy.
fn npy(descr: &str, shape: &str, numbers: &[[u8; 4]]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(numbers.concat());
    bytes
}

const ABOUT: &str = r#"{"format":"tessera-atlas","version":1,"tessera":"0.1.0","model":"abc","modality":"image",
 "split":"test","num_samples":2,"num_index_maps":1,"levels":[{"num_codes":3,"dim":2,"axes":[1,2],
 "counts":[3,0,1],"alone":{"columns":2,"width":4,"height":4},"context":null,"patches":null,"neighbours":[0,2]}]}"#;

/// An atlas of three codes of two channels.
fn made(folder: &Path) {
    fs::create_dir_all(folder.join("index_maps")).unwrap();
    fs::write(folder.join("atlas.json"), ABOUT).unwrap();
    let codes = [0.0f32, 1.0, 2.0, 3.0, 4.0, 5.0].map(f32::to_le_bytes);
    fs::write(folder.join("codebook-0.npy"), npy("<f4", "(3, 2)", &codes)).unwrap();
    let counts = [1u32, 2, 0, 1].map(u32::to_le_bytes);
    fs::write(folder.join("neighbours-0.npy"), npy("<u4", "(2, 2)", &counts)).unwrap();
    fs::write(folder.join("index_maps/000.json"), r#"{"id":7,"codes":[[0,2]]}"#).unwrap();
}

#[test]
fn an_atlas_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(Atlas::read(folder.path()).unwrap(), None);
    made(folder.path());
    let atlas = Atlas::read(folder.path()).unwrap().unwrap();
    assert_eq!(atlas.codes_kd, [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]]);
    assert_eq!(atlas.neighbours, [Some(vec![1, 2, 0, 1])]);
    assert_eq!(atlas.maps, [IndexMap { id: 7, codes: vec![vec![0, 2]] }]);
    assert_eq!(atlas.about.levels[0].alone, Some(Cells { columns: 2, width: 4, height: 4 }));
}

#[test]
fn what_does_not_hold_is_refused_by_file_and_place() {
    let folder = tempfile::tempdir().unwrap();
    let told = |name: &str, content: &[u8]| {
        made(folder.path());
        fs::write(folder.path().join(name), content).unwrap();
        Atlas::read(folder.path()).unwrap_err().to_string()
    };
    let about = |from: &str, to: &str| {
        assert!(ABOUT.contains(from), "{from}");
        told("atlas.json", ABOUT.replace(from, to).as_bytes())
    };
    for (told, words) in [
        (
            about("\"version\":1", "\"version\":2"),
            "atlas.json: expected tessera-atlas of version 1, found",
        ),
        (about("\"split\"", "\"spilt\""), "unknown field `spilt`"),
        (about("[3,0,1]", "[3,0]"), "levels[0]: expected 3 counts, one a code, found 2"),
        (about("[0,2]}", "[0,3]}"), "levels[0]: neighbours: code 3 is not below 3"),
        (about("[0,2]}", "[0,0]}"), "a code is there twice"),
        (about("\"columns\":2", "\"columns\":0"), "columns, width and height of cells"),
        (
            about("\"num_index_maps\":1", "\"num_index_maps\":2"),
            "001.json: atlas.json says that it is there",
        ),
        (
            about("\"dim\":2", "\"dim\":4"),
            "codebook-0.npy: expected <f4 in rows of the shape [3, 4], found",
        ),
        (told("codebook-0.npy", b"no array"), "codebook-0.npy: it is no array of NumPy"),
        (
            told("codebook-0.npy", &npy("<f4", "(3, 2)", &[[0; 4]])),
            "it has other bytes than its shape says",
        ),
        (told("neighbours-0.npy", &npy("<i4", "(2, 2)", &[[0; 4]; 4])), "expected <u4"),
        (
            told("index_maps/000.json", br#"{"id":7,"codes":[[0]]}"#),
            "codes[0]: expected 2 codes, found 1",
        ),
        (told("index_maps/000.json", br#"{"id":7,"codes":[[0,3]]}"#), "code 3 is not below 3"),
        (
            told("index_maps/000.json", br#"{"id":7,"codes":[]}"#),
            "expected codes of 1 levels, found 0",
        ),
        (told("atlas.json", b"{"), "atlas.json:1: EOF"),
    ] {
        assert!(told.contains(words), "{told}: no {words}");
    }
}
