//! Compressed files: what was written comes back; what is damaged costs itself alone, and is told.

#![allow(clippy::unwrap_used)] // the lint knows `#[test]` functions, not their helpers

use std::io::{self, Read};

use flate2::Compression;
use flate2::read::DeflateEncoder;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use tessera_codec::table::WHOLE;
use tessera_codec::{
    CodecError, FileReader, FileWriter, Header, LevelShape, LevelTable, Media, Next, Place, Tables,
    coder,
};

/// Codes that are drawn from counts.
fn drawn(counts: &[u64], num: usize, seed: u64) -> Vec<u32> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let total: u64 = counts.iter().sum();
    let draw = |_| {
        let mut left = random.next_u64() % total;
        let found = counts.iter().position(|&count| match left.checked_sub(count) {
            Some(less) => {
                left = less;
                false
            }
            None => true,
        });
        found.unwrap() as u32
    };
    (0..num).map(draw).collect()
}

/// Counts that fall like 1 / n.
fn falling(num: u64) -> Vec<u64> {
    (1..=num).map(|rank| 1_000_000 / rank).collect()
}

/// Two levels of 3 positions, one of 5; tables of the first by position.
fn small() -> (Tables, Vec<LevelShape>) {
    let by_position = [vec![5, 0, 1, 2], vec![0, 0, 9, 1], vec![1, 1, 1, 1]];
    let tables = vec![
        LevelTable::from_counts(&by_position).unwrap(),
        LevelTable::from_counts(&[vec![7, 1, 1]]).unwrap(),
        LevelTable::from_counts(&[falling(300)]).unwrap(),
    ];
    let levels = [(4, 3), (3, 3), (300, 5)]
        .map(|(num_codes, positions)| LevelShape { num_codes, positions });
    (Tables::new(tables).unwrap(), levels.to_vec())
}

/// Who says how many samples there are.
#[derive(Clone, Copy, PartialEq)]
enum Told {
    Header,
    Nobody,
    /// The end of a stream, which also has its frames.
    End,
}

const ALL: [Told; 3] = [Told::Header, Told::Nobody, Told::End];

fn header(tables: &Tables, levels: &[LevelShape], samples: Option<u64>) -> Header {
    let media = Media::Image { channels: 3, height: 20, width: 30 };
    let entry = Place { name: String::new(), media, samples };
    let (model, tables) = ("ab".repeat(32), tables.id().to_owned());
    let (levels, entries) = (levels.to_vec(), vec![entry]);
    Header { model, tables, prior: None, stream: false, levels, entries }
}

/// A file of blocks of so many samples, with their codes.
fn file(blocks: &[usize], told: Told) -> (Tables, Vec<Vec<u32>>, Vec<u8>) {
    let (tables, levels) = small();
    let samples = blocks.iter().sum::<usize>() as u64;
    let mut bytes = Vec::new();
    let mut header = header(&tables, &levels, (told == Told::Header).then_some(samples));
    if told == Told::End {
        header.stream = true;
        header.entries[0].media = Media::Audio { channels: 1, sample_rate: 8000, frames: None };
    }
    let mut writer = FileWriter::new(&mut bytes, header, &tables).unwrap();
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let codes: Vec<Vec<u32>> = blocks
        .iter()
        .map(|&num| {
            let most = [4, 3, 4, 3, 4, 3, 300, 300, 300, 300, 300];
            (0..num).flat_map(|_| most.map(|most| random.next_u32() % most)).collect()
        })
        .collect();
    codes.iter().for_each(|codes| writer.block(codes).unwrap());
    let written = match told {
        Told::End => writer.finish_with(FRAMES).unwrap(),
        _ => writer.finish().unwrap(),
    };
    assert_eq!((written.samples, written.bytes), (samples, bytes.len() as u64));
    assert_eq!(bytes[8], if told == Told::End { 2 } else { 1 }, "the version");
    (tables, codes, bytes)
}

/// Frames that the end of a stream tells.
const FRAMES: u64 = 123_456;

/// All that a file tells until its end.
fn read(from: impl Read, tables: &Tables) -> Result<Vec<Next>, CodecError> {
    let mut reader = FileReader::open(from)?;
    let mut all = Vec::new();
    loop {
        all.push(reader.next(tables)?);
        assert!(all.len() < 100, "it ends");
        if all.last() == Some(&Next::End) {
            let is_whole = all.iter().all(|what| !matches!(what, Next::Lost { .. }));
            if reader.header().stream && is_whole {
                assert_eq!(reader.frames(), Some(FRAMES));
            }
            return Ok(all);
        }
    }
}

/// By hand: 2 codes leave 2^24 - 2 to share. Three quarters of that are 12,582,910.5, a quarter 4,194,303.5; both have 1 more, and the
/// one that rounding leaves goes to the first.
#[test]
fn tables_are_shares_in_whole_numbers() {
    let of = |counts: &[u64]| {
        LevelTable::from_counts(&[counts.to_vec()]).unwrap().probabilities(0).to_vec()
    };
    assert_eq!(of(&[3, 1]), [12_582_912, 4_194_304]);
    assert_eq!(of(&[1, 3]), [4_194_304, 12_582_912]);
    assert_eq!(of(&[0, 0]), [WHOLE / 2, WHOLE / 2]);
    assert_eq!(of(&[0, 0, 0]), [5_592_406, 5_592_405, 5_592_405]);
    assert_eq!(of(&[0, u64::MAX, 0]), [1, WHOLE - 2, 1]);
    let large = of(&falling(1 << 20));
    assert_eq!((large.iter().sum::<u32>(), large.iter().min()), (WHOLE, Some(&1)));
    assert!(LevelTable::from_counts(&[vec![1]]).is_err() && LevelTable::from_counts(&[]).is_err());
    assert!(LevelTable::from_counts(&[vec![1, 2], vec![1, 2, 3]]).is_err());
}

/// -log2 of the table's probabilities, plus what a stream costs whatever its length.
#[test]
fn codes_take_what_their_probabilities_say() {
    for (num_codes, num) in [(512, 2000), (16_384, 4000), (2, 5000)] {
        let counts = falling(num_codes);
        let codes = drawn(&counts, num, num_codes);
        let tables = Tables::new(vec![LevelTable::from_counts(&[counts]).unwrap()]).unwrap();
        let bytes = coder::encode(&codes, &[num as u32], &tables).unwrap();
        let probabilities = tables.levels()[0].probabilities(0);
        let bits =
            |&code: &u32| -(f64::from(probabilities[code as usize]) / f64::from(WHOLE)).log2();
        let ideal: f64 = codes.iter().map(bits).sum();
        let taken = 8.0 * bytes.len() as f64;
        assert!(
            taken >= ideal && taken < 1.0002 * ideal + 64.0,
            "{num_codes} codes: {taken} bits, {ideal}"
        );
        assert_eq!(coder::decode(&bytes, 1, &[num as u32], &tables).unwrap(), codes);
    }
}

#[test]
fn what_was_written_comes_back() {
    for told in ALL {
        let (tables, codes, bytes) = file(&[1, 4, 2], told);
        let firsts = [0, 1, 5];
        let blocks = firsts
            .iter()
            .zip(&codes)
            .map(|(&first, codes)| Next::Block { first, codes: codes.clone() });
        let wanted: Vec<Next> = blocks.chain([Next::End]).collect();
        assert_eq!(read(&bytes[..], &tables).unwrap(), wanted);
        // Byte by byte, as a pipe may give them.
        struct Slow<'a>(&'a [u8]);
        impl Read for Slow<'_> {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                let num = into.len().min(1);
                self.0.read(&mut into[..num])
            }
        }
        assert_eq!(read(Slow(&bytes), &tables).unwrap(), wanted);
        // What follows the end is none of the file's.
        assert_eq!(read(&[&bytes[..], b"more"].concat()[..], &tables).unwrap(), wanted);
    }
}

/// Blocks that came are those that were written, and each sample is in one of them or told of as lost.
fn assert_honest(told: &[Next], codes: &[Vec<u32>], firsts: &[u64], samples: Option<u64>) {
    let mut next = 0;
    for what in told {
        match what {
            Next::Block { first, codes: found } => {
                let number = firsts
                    .iter()
                    .position(|known| known == first)
                    .expect("it begins where one began");
                assert_eq!(found, &codes[number]);
                assert_eq!(*first, next);
                next = first + found.len() as u64 / 11;
            }
            Next::Lost { first, num } => {
                assert_eq!(*first, next);
                next = num.map_or(7, |num| first + num);
            }
            Next::End => assert!(next == 7 || samples.is_none(), "{told:?}"),
        }
    }
}

#[test]
fn any_flipped_bit_costs_its_block_or_is_told() {
    for who in ALL {
        let (tables, codes, bytes) = file(&[1, 4, 2], who);
        let samples = (who == Told::Header).then_some(7);
        let mut lost_alone = 0;
        for bit in 0..8 * bytes.len() {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            match read(&damaged[..], &tables) {
                Err(_) => {}
                Ok(told) => {
                    assert_honest(&told, &codes, &[0, 1, 5], samples);
                    let lost = told.iter().filter(|what| matches!(what, Next::Lost { .. })).count();
                    assert_eq!(lost, 1, "bit {bit}: {told:?}");
                    let came =
                        told.iter().filter(|what| matches!(what, Next::Block { .. })).count();
                    assert!(came >= 2, "bit {bit}: {told:?}");
                    lost_alone += 1;
                }
            }
        }
        // All bits but those of the header.
        assert!(lost_alone > 8 * 100, "{lost_alone}");
    }
}

#[test]
fn every_prefix_is_told_to_be_one() {
    for who in ALL {
        let (tables, codes, bytes) = file(&[1, 4, 2], who);
        for length in 0..bytes.len() {
            if let Ok(told) = read(&bytes[..length], &tables) {
                assert_honest(&told, &codes, &[0, 1, 5], (who == Told::Header).then_some(7));
                assert!(matches!(told[told.len() - 2], Next::Lost { .. }), "{length}: {told:?}");
            }
        }
    }
}

/// A block that is gone as a whole, or comes twice.
#[test]
fn blocks_that_are_missing_or_come_twice_are_told() {
    let (tables, codes, bytes) = file(&[1, 4, 2], Told::Header);
    let marks: Vec<usize> =
        (0..bytes.len() - 3).filter(|&at| &bytes[at..at + 4] == b"\xb1TS\x0b").collect();
    let [first, second, third, _] = marks[..] else { panic!("{marks:?}") };
    let without = [&bytes[..first], &bytes[second..]].concat();
    assert_eq!(read(&without[..], &tables).unwrap()[0], Next::Lost { first: 0, num: Some(1) });
    let swapped = [&bytes[..second], &bytes[third..], &bytes[second..third]].concat();
    assert_honest(&read(&swapped[..], &tables).unwrap(), &codes, &[0, 1, 5], Some(7));
    let twice = [&bytes[..second], &bytes[first..second], &bytes[second..]].concat();
    assert_eq!(read(&twice[..], &tables).unwrap().len(), 4);
}

#[test]
fn other_files_later_versions_and_other_tables_are_refused() {
    let (tables, _, bytes) = file(&[2], Told::Header);
    let refused = |bytes: &[u8]| read(bytes, &tables).unwrap_err().to_string();
    assert!(
        refused(b"").contains("no compressed file")
            && refused(b"\x89PNG\r\n\x1a\n....").contains("no compressed")
    );
    assert!(refused(&bytes[..20]).contains("cut off"));
    // A later version may have another header; its checksum is where ours is.
    let mut later = bytes.clone();
    later[8] = 3;
    let length = 14 + u32::from_le_bytes(later[10..14].try_into().unwrap()) as usize;
    let crc = crc32fast::hash(&later[..length]);
    later[length..length + 4].copy_from_slice(&crc.to_le_bytes());
    assert!(refused(&later).contains("version 3, this program reads up to 2"));
    // What a version does not have, its files cannot tell.
    let mut earlier = file(&[2], Told::End).2;
    earlier[8] = 1;
    let length = 14 + u32::from_le_bytes(earlier[10..14].try_into().unwrap()) as usize;
    let crc = crc32fast::hash(&earlier[..length]);
    earlier[length..length + 4].copy_from_slice(&crc.to_le_bytes());
    assert!(refused(&earlier).contains("which version 1 does not have"));
    let others = Tables::uniform(&[4, 3, 300]).unwrap();
    assert!(read(&bytes[..], &others).unwrap_err().to_string().contains("other tables"));
}

/// What a header claims is bounded before memory is asked for.
#[test]
fn a_header_that_claims_too_much_is_refused_at_once() {
    let (tables, levels) = small();
    let good = header(&tables, &levels, Some(3));
    let image = |height, width| Media::Image { channels: 3, height, width };
    let entry =
        |name: &str, media, samples| Place { name: name.to_owned(), media, samples: Some(samples) };
    let of = |entries: Vec<Place>| Header { entries, ..good.clone() };
    let level = |num_codes, positions| Header {
        levels: vec![LevelShape { num_codes, positions }],
        ..good.clone()
    };
    let cases = [
        (of(vec![entry("", image(20, 30), 1 << 41)]), "samples"),
        (of(vec![entry("", image(u32::MAX, u32::MAX), 1)]), "has an entry of"),
        (of(vec![entry("", image(0, 30), 1)]), "has an entry of"),
        (
            of(vec![entry("a", image(2, 3), 1), entry("../b", image(2, 3), 1)]),
            "is no name below a folder",
        ),
        (of(vec![entry("/etc/passwd", image(2, 3), 1)]), "is no name below a folder"),
        (of(vec![entry("c:\\x", image(2, 3), 1)]), "is no name below a folder"),
        (of(vec![]), "0 entries"),
        (level(1, 5), "positions of 1 codes"),
        (level(1 << 21, 5), "positions of 2097152 codes"),
        (level(4, u32::MAX), "codes a sample"),
        (Header { model: "x".to_owned(), ..good.clone() }, "names no model"),
    ];
    for (header, words) in cases {
        let error = header.validate().unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    let mut bytes = file(&[1], Told::Header).2;
    bytes[10..14].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(read(&bytes[..], &tables), Err(CodecError::Header(_))));
    // A small header of 2^27 spaces.
    let mut small = Vec::new();
    DeflateEncoder::new(std::io::repeat(b' ').take(1 << 27), Compression::best())
        .read_to_end(&mut small)
        .unwrap();
    let mut bytes = [&bytes[..10], &(small.len() as u32).to_le_bytes(), &small].concat();
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    let error = read(&bytes[..], &tables).unwrap_err().to_string();
    assert!(error.contains("more than"), "{error}");
}

/// A claim of 2^40 samples that a file may make: it holds one block, and says that the rest is lost.
#[test]
fn a_bomb_is_told_to_be_cut_off() {
    let (tables, levels) = small();
    let mut bytes = Vec::new();
    let mut writer =
        FileWriter::new(&mut bytes, header(&tables, &levels, Some(1 << 40)), &tables).unwrap();
    writer.block(&[0; 11]).unwrap();
    assert!(writer.finish().unwrap_err().to_string().contains("1 were written"));
    let told = read(&bytes[..], &tables).unwrap();
    assert_eq!(told[1], Next::Lost { first: 1, num: Some((1 << 40) - 1) });
}

#[test]
fn what_a_writer_is_given_is_checked() {
    let (tables, levels) = small();
    let mut bytes = Vec::new();
    let mut writer = FileWriter::new(&mut bytes, header(&tables, &levels, None), &tables).unwrap();
    let most = writer.most_samples();
    let refused = |error: CodecError| error.to_string();
    assert!(refused(writer.block(&[0; 5]).unwrap_err()).contains("found 0"));
    assert!(refused(writer.block(&[0; 12]).unwrap_err()).contains("not whole samples"));
    assert!(
        refused(writer.block(&vec![0; 11 * (most + 1)]).unwrap_err())
            .contains("a block should have")
    );
    let mut codes = [0; 11];
    codes[1] = 3;
    assert!(
        refused(writer.block(&codes).unwrap_err())
            .contains("a code of level 1 should be at most 2, found 3")
    );
    let others = Tables::uniform(&[4, 3, 300]).unwrap();
    let other = FileWriter::new(Vec::new(), header(&tables, &levels, None), &others);
    assert!(refused(other.unwrap_err()).contains("other tables"));
}
