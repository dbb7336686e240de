//! Compressed files that nobody meant to write. Each target runs for a second, or for as many as `TESSERA_FUZZ_SECONDS` says (60 in
//! `./launch/test.sh --full`).

#![allow(clippy::unwrap_used)] // the lint knows `#[test]` functions, not their helpers

use std::time::Duration;

use tessera_codec::{
    FileReader, FileWriter, Header, LevelShape, LevelTable, Media, Next, Place, Tables,
};

fn time() -> Duration {
    let seconds = std::env::var("TESSERA_FUZZ_SECONDS").ok();
    Duration::from_secs(seconds.map_or(1, |seconds| seconds.parse().unwrap()))
}

fn tables() -> Tables {
    Tables::new(vec![LevelTable::from_counts(&[vec![5, 0, 1, 9]]).unwrap()]).unwrap()
}

/// A file of three blocks of two samples; of a stream nobody knows how many before its end.
fn file(tables: &Tables, is_stream: bool) -> Vec<u8> {
    let known = |num: u64| (!is_stream).then_some(num);
    let media = Media::Audio { channels: 1, sample_rate: 8000, frames: known(500) };
    let entry = Place { name: String::new(), media, samples: known(6) };
    let header = Header {
        prior: None,
        stream: is_stream,
        model: "0".repeat(64),
        tables: tables.id().to_owned(),
        levels: vec![LevelShape { num_codes: 4, positions: 5 }],
        entries: vec![entry],
    };
    let mut bytes = Vec::new();
    let mut writer = FileWriter::new(&mut bytes, header, tables).unwrap();
    (0..3).for_each(|block| writer.block(&[block; 10]).unwrap());
    match is_stream {
        true => writer.finish_with(500).unwrap(),
        false => writer.finish().unwrap(),
    };
    bytes
}

fn read(bytes: &[u8], tables: &Tables) {
    let Ok(mut reader) = FileReader::open(bytes) else { return };
    let mut next = 0;
    for _ in 0..bytes.len() + 10 {
        match reader.next(tables) {
            Ok(Next::End) => return,
            Ok(Next::Block { first, codes }) => {
                assert_eq!(first, next);
                // No file of ours has other blocks than these, and no damage that checksums of 32 bits miss comes by chance.
                assert_eq!(codes, [first as u32 / 2; 10]);
                next += 2;
            }
            Ok(Next::Lost { first, num }) => {
                assert_eq!(first, next);
                // All from there on, of a stream.
                let Some(num) = num else { return };
                next = first + num;
            }
            Err(_) => return,
        }
    }
    panic!("it never ends");
}

/// Places and bytes of changes to a file.
#[test]
fn files_with_random_changes() {
    let tables = tables();
    let files = [false, true].map(|is_stream| file(&tables, is_stream));
    bolero::check!().with_type::<(bool, Vec<(u16, u8, bool)>)>().with_test_time(time()).for_each(
        |(is_stream, changes)| {
            let mut bytes = files[usize::from(*is_stream)].clone();
            for &(at, byte, cut) in changes.iter().take(6) {
                let at = at as usize % bytes.len().max(1);
                match (cut, bytes.get_mut(at)) {
                    (true, _) if byte < 64 => bytes.truncate(at),
                    (true, Some(_)) => drop(bytes.remove(at)),
                    (false, Some(old)) => *old = byte,
                    (_, None) => bytes.push(byte),
                }
            }
            read(&bytes, &tables);
        },
    );
}

/// Anything behind a whole header.
#[test]
fn anything_behind_a_header() {
    let tables = tables();
    let heads = [false, true].map(|is_stream| {
        let whole = file(&tables, is_stream);
        let head = whole.windows(4).position(|bytes| bytes == b"\xb1TS\x0b").unwrap();
        whole[..head].to_vec()
    });
    bolero::check!().with_type::<(bool, Vec<u8>)>().with_test_time(time()).for_each(
        |(is_stream, rest)| {
            read(&[&heads[usize::from(*is_stream)], rest.as_slice()].concat(), &tables);
        },
    );
}
