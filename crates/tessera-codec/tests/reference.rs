//! Compressed files by another hand, in Python's whole numbers without bound (`fixtures/reference.py`), and ours in its reader
//! (`docs/tessera_tokens.py`).

#![allow(clippy::unwrap_used, clippy::print_stdout)] // the lint knows `#[test]` functions, not their helpers

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tessera_codec::{FileReader, FileWriter, Header, LevelTable, Media, Next, Tables};

fn fixture(name: &str) -> PathBuf {
    Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("tests/fixtures").join(name)
}

fn numbers(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|number| number.as_u64().unwrap()).collect()
}

/// The tables and blocks of the reference.
fn reference() -> (Tables, Vec<Vec<u32>>) {
    let told: Value =
        serde_json::from_slice(&std::fs::read(fixture("reference.json")).unwrap()).unwrap();
    let level = |counts: &Value| {
        let counts = match counts[0].is_array() {
            true => counts.as_array().unwrap().iter().map(numbers).collect(),
            false => vec![numbers(counts)],
        };
        LevelTable::from_counts(&counts).unwrap()
    };
    let tables =
        Tables::new(told["counts"].as_array().unwrap().iter().map(level).collect()).unwrap();
    let block = |codes: &Value| numbers(codes).into_iter().map(|code| code as u32).collect();
    (tables, told["blocks"].as_array().unwrap().iter().map(block).collect())
}

fn header() -> Header {
    FileReader::open(&std::fs::read(fixture("reference.tsc")).unwrap()[..])
        .unwrap()
        .header()
        .clone()
}

/// Version 1, as every later version has to read it.
#[test]
fn a_file_by_another_hand_is_read() {
    let (tables, blocks) = reference();
    let bytes = std::fs::read(fixture("reference.tsc")).unwrap();
    let mut reader = FileReader::open(&bytes[..]).unwrap();
    let entries: Vec<(&str, Option<u64>)> =
        reader.header().entries.iter().map(|entry| (entry.name.as_str(), entry.samples)).collect();
    assert_eq!(entries, [("sounds/a.wav", Some(3)), ("b.png", Some(21))]);
    assert_eq!(reader.header().entries[1].media, Media::Image { channels: 3, height: 9, width: 8 });
    for (codes, first) in blocks.into_iter().zip([0, 3, 4]) {
        assert_eq!(reader.next(&tables).unwrap(), Next::Block { first, codes });
    }
    assert_eq!(reader.next(&tables).unwrap(), Next::End);
}

/// Version 2: a stream whose end tells its length, and the table of all positions.
#[test]
fn a_stream_by_another_hand_is_read() {
    let (tables, _) = reference();
    let told: Value =
        serde_json::from_slice(&std::fs::read(fixture("reference.json")).unwrap()).unwrap();
    let table = Tables::new(vec![tables.levels()[1].clone()]).unwrap();
    let bytes = std::fs::read(fixture("stream.tsc")).unwrap();
    let mut reader = FileReader::open(&bytes[..]).unwrap();
    assert!(reader.header().stream && reader.header().is_open());
    for (piece, first) in told["pieces"].as_array().unwrap().iter().zip([0, 2]) {
        let codes = numbers(piece).into_iter().map(|code| code as u32).collect();
        assert_eq!(reader.next(&table).unwrap(), Next::Block { first, codes });
    }
    assert_eq!((reader.next(&table).unwrap(), reader.frames()), (Next::End, Some(39)));
}

/// By hand: halves at one position, a quarter and three at the other.
#[test]
fn tables_by_position_become_one() {
    let by_position =
        LevelTable::from_probabilities(vec![vec![1 << 23, 1 << 23], vec![1 << 22, 3 << 22]]);
    let tables = Tables::new(vec![by_position.unwrap()]).unwrap();
    let one = tables.over_positions();
    // Sums 3 and 5 of 8: 1 + floor(3/8 (2^24 - 2)) and the rest.
    assert_eq!(one.levels()[0].probabilities(9), [6_291_456, 10_485_760]);
    assert_ne!(one.id(), tables.id());
    assert_eq!(one.over_positions().id(), one.id());
}

#[test]
fn python_reads_our_files() {
    let made =
        || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache/tessera/python/bin/python"));
    let python = std::env::var_os("TESSERA_PYTHON").map(PathBuf::from).or_else(made).unwrap();
    let has = Command::new(&python).args(["-c", "import numpy"]).output();
    if !has.is_ok_and(|output| output.status.success()) {
        println!("skipped: no Python with numpy; launch/python.sh makes one");
        return;
    }
    let (tables, blocks) = reference();
    let mut bytes = Vec::new();
    let mut writer = FileWriter::new(&mut bytes, header(), &tables).unwrap();
    blocks.iter().for_each(|codes| writer.block(codes).unwrap());
    writer.finish().unwrap();
    // A bit of the second block's codes is another one: it is lost alone.
    let second =
        bytes.windows(4).enumerate().filter(|(_, mark)| *mark == b"\xb1TS\x0b").nth(1).unwrap().0;
    bytes[second + 40] ^= 1;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ours.tsc");
    std::fs::write(&path, bytes).unwrap();

    let root = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../..");
    let script = "
import json, sys
sys.path.insert(0, sys.argv[1] + '/docs')
import tessera_tokens as tt
counts = json.load(open(sys.argv[2]))['counts']
header, blocks = tt.read_compressed(open(sys.argv[3], 'rb'), tt.tables_of_counts(counts))
print(json.dumps([header['entries'][0]['name'], [[first, None if codes is None else codes.ravel().tolist()] for first, codes in blocks]]))
tokens = tt.TokenSet(sys.argv[1] + '/crates/tessera-data/tests/fixtures/tokens-1')
for split in tokens.manifest['splits']:
    for level, counts in enumerate(tokens.counts(split)):
        codes = tokens.codes(split)[level][:, 0].ravel().tolist()
        assert [codes.count(code) for code in range(len(counts))] == counts.tolist()
model = tt.ModelFolder(sys.argv[1] + '/crates/tessera-model/tests/fixtures/model-1')
model.check()
assert model.tables().of(0, 1)[0].tolist() == [6710887, 1677722, 3355443, 5033164]
";
    let output = Command::new(python)
        .args(["-c", script])
        .arg(&root)
        .arg(fixture("reference.json"))
        .arg(&path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let wanted = serde_json::json!(["sounds/a.wav", [[0, blocks[0]], [3, null], [4, blocks[2]]]]);
    assert_eq!(found, wanted);
}
