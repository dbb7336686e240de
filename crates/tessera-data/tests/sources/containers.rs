//! What archives and folders hold that a plain `tar cf` of plain files does not.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::told::told;
use crate::*;

/// An archive that is written block by block.
#[derive(Default)]
struct Blocks(Vec<u8>);

impl Blocks {
    /// A member: a header with what `change` does to it, and its content.
    fn member(
        &mut self,
        name: &[u8],
        kind: tar::EntryType,
        content: &[u8],
        change: impl FnOnce(&mut tar::Header),
    ) -> &mut Self {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_entry_type(kind);
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        change(&mut header);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(&mut self, name: &str, content: &[u8]) -> &mut Self {
        self.member(name.as_bytes(), tar::EntryType::Regular, content, |_| {})
    }

    /// A header of pax with these records, for the next member.
    fn pax(&mut self, records: &[(&str, &str)]) -> &mut Self {
        let mut text = String::new();
        for (key, value) in records {
            // The length counts its own digits: two of them here.
            let length = key.len() + value.len() + 3;
            let length = if length + 2 > 99 { length + 3 } else { length + 2 };
            text += &format!("{length} {key}={value}\n");
        }
        self.member(b"pax", tar::EntryType::XHeader, text.as_bytes(), |_| {})
    }

    /// Two blocks of zeros.
    fn end(&mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        std::mem::take(&mut self.0)
    }
}

fn opened(path: &Path) -> Arc<dyn Source> {
    source::open(&config(DataKind::Webdataset, path), "train").unwrap()
}

fn index_of(path: &Path) -> serde_json::Value {
    let mut path = path.as_os_str().to_owned();
    path.push(".index");
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Samples by their names, as pixels.
fn contents(source: &dyn Source) -> Vec<(String, Vec<u8>)> {
    (0..source.num_samples()).map(|id| (source.name(id), read(source, id, Draw::NONE))).collect()
}

fn gray(number: u8) -> Vec<u8> {
    picture(number, 3, 2).into_raw()
}

#[test]
fn archives_behind_one_another_are_all_read_and_what_is_none_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    // `cat` of two archives that begin with the same name; the second has no samples of the first.
    let mut whole = Blocks::default().file("0.png", &png(1, 3, 2)).file("0.cls", b"1").end();
    whole.extend([0; 8192]);
    let second = whole.len();
    whole.extend(Blocks::default().file("0.png", &png(2, 3, 2)).file("1.png", &png(3, 3, 2)).end());
    fs::write(&path, &whole).unwrap();
    let source = opened(&path);
    let expected = [
        ("0.png".to_owned(), gray(1)),
        ("0.png".to_owned(), gray(2)),
        ("1.png".to_owned(), gray(3)),
    ];
    assert_eq!(contents(&*source), expected);
    assert_eq!([0, 1, 2].map(|id| source.label(id).unwrap()), [Some(1), None, None]);
    assert_eq!(index_of(&path)["bytes_behind_end"], 0);

    // An index of version 1, which held the first archive alone, is made anew.
    let mut old = index_of(&path);
    old["version"] = 1.into();
    old["samples"].as_array_mut().unwrap().truncate(1);
    fs::write(folder.path().join("a.tar.index"), old.to_string()).unwrap();
    assert_eq!(opened(&path).num_samples(), 3);

    // Damage in the second is told of the second sample of that name.
    let at = second + whole[second..].windows(4).position(|bytes| bytes == b"IDAT").unwrap() + 6;
    let mut flipped = whole.clone();
    flipped[at] ^= 1;
    fs::write(&path, &flipped).unwrap();
    let problems = verify(&path, &|_, _| {}).unwrap().problems;
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems[1].message.starts_with("sample 0 of archive"), "{problems:?}");
    assert!(read_error(&*source, 1).to_string().contains("has crc32"));

    // What is no header, and less than a block, is not read, and counted.
    for behind in [b"x".repeat(700), b"x".repeat(3)] {
        fs::write(&path, [&whole[..], &behind[..]].concat()).unwrap();
        assert_eq!(opened(&path).num_samples(), 3);
        assert_eq!(index_of(&path)["bytes_behind_end"], behind.len());
    }
    // The second archive's first header is damaged: nothing says that it was one.
    let mut damaged = whole.clone();
    damaged[second] ^= 1;
    fs::write(&path, &damaged).unwrap();
    fs::remove_file(folder.path().join("a.tar.index")).unwrap();
    let lines = told(|| assert_eq!(opened(&path).num_samples(), 1));
    let expected = format!("bytes={}", whole.len() - second);
    let is_told = |line: &String| line.contains("is no archive") && line.contains(&expected);
    assert!(lines.iter().any(is_told), "{lines:?}");
}

/// A bitmap, black but for every sixteenth row, and the places of its blocks that are not zeros.
fn holey() -> (RgbImage, Vec<u8>, Vec<(u64, u64)>) {
    let color = |_, y| if y % 16 == 3 { Rgb([7, y as u8, 200]) } else { Rgb([0; 3]) };
    let picture = RgbImage::from_fn(64, 128, color);
    let bytes = encoded(&picture, ImageFormat::Bmp);
    let mut regions: Vec<(u64, u64)> = Vec::new();
    for (at, block) in (0..).step_by(512).zip(bytes.chunks(512)) {
        if block.iter().any(|&byte| byte != 0) {
            match regions.last_mut() {
                Some((start, length)) if *start + *length == at => *length += block.len() as u64,
                _ => regions.push((at, block.len() as u64)),
            }
        }
    }
    // More than the four that fit a header of GNU's own form.
    assert!(regions.len() > 6, "{regions:?}");
    // A hole at the end has an entry of its own.
    regions.push((bytes.len() as u64, 0));
    (picture, bytes, regions)
}

/// GNU's own form (`tar --sparse --format=gnu`) and the three of pax (`--sparse-version=0.0`, `0.1`
/// and `1.0`), as the manual of GNU tar describes them in "Storing Sparse Files".
#[test]
fn sparse_members_of_every_form_are_read_with_their_holes() {
    let folder = tempfile::tempdir().unwrap();
    let (picture, bytes, regions) = holey();
    let size = bytes.len().to_string();
    let slice = |&(at, length): &(u64, u64)| &bytes[at as usize..][..length as usize];
    let stored: Vec<u8> = regions.iter().flat_map(slice).copied().collect();
    let regular = tar::EntryType::Regular;
    let mut archive = Blocks::default();

    let (first, rest) = regions.split_at(4);
    let mut more = tar::GnuExtSparseHeader::new();
    for (field, &(at, length)) in more.sparse.iter_mut().zip(rest) {
        field.set_offset(at);
        field.set_length(length);
    }
    archive.member(b"gnu.bmp", tar::EntryType::GNUSparse, &[], |header| {
        header.set_size(stored.len() as u64);
        let gnu = header.as_gnu_mut().unwrap();
        gnu.set_real_size(bytes.len() as u64);
        gnu.set_is_extended(true);
        for (field, &(at, length)) in gnu.sparse.iter_mut().zip(first) {
            field.set_offset(at);
            field.set_length(length);
        }
    });
    archive.0.extend(more.as_bytes());
    archive.0.extend(&stored);
    archive.0.resize(archive.0.len().next_multiple_of(512), 0);

    let texts: Vec<[String; 2]> =
        regions.iter().map(|(at, length)| [at.to_string(), length.to_string()]).collect();
    let mut records = vec![("GNU.sparse.size", size.as_str()), ("GNU.sparse.numblocks", "8")];
    for [at, length] in &texts {
        records.push(("GNU.sparse.offset", at));
        records.push(("GNU.sparse.numbytes", length));
    }
    archive.pax(&records).member(b"pax00.bmp", regular, &stored, |_| {});

    let map = texts.concat().join(",");
    let records = [
        ("GNU.sparse.size", size.as_str()),
        ("GNU.sparse.numblocks", "8"),
        ("GNU.sparse.name", "pax01.bmp"),
        ("GNU.sparse.map", map.as_str()),
    ];
    archive.pax(&records).member(b"./GNUSparseFile.9/pax01.bmp", regular, &stored, |_| {});

    let mut content = format!("{}\n{}\n", regions.len(), texts.concat().join("\n")).into_bytes();
    content.resize(content.len().next_multiple_of(512), 0);
    content.extend(&stored);
    let records = [
        ("GNU.sparse.major", "1"),
        ("GNU.sparse.minor", "0"),
        ("GNU.sparse.name", "pax10.bmp"),
        ("GNU.sparse.realsize", size.as_str()),
    ];
    archive.pax(&records).member(b"./GNUSparseFile.9/pax10.bmp", regular, &content, |_| {});

    let path = folder.path().join("a.tar");
    fs::write(&path, archive.file("z.bmp", &bytes).end()).unwrap();
    let names = ["gnu.bmp", "pax00.bmp", "pax01.bmp", "pax10.bmp", "z.bmp"];
    let expected: Vec<_> =
        names.iter().map(|&name| (name.to_owned(), picture.as_raw().clone())).collect();
    // Read from the archive, and by the index that was kept.
    for _ in 0..2 {
        assert_eq!(contents(&*opened(&path)), expected);
    }
    // All five are the same file.
    let index = index_of(&path);
    let crc = |at: usize| index["samples"][at]["members"][0]["crc32"].clone();
    assert!((0..4).all(|at| crc(at) == crc(4)), "{index}");
    assert_eq!(verify(&path, &|_, _| {}).unwrap().problems, []);

    // A bit that flips behind a hole; a map that leads out; a hole as large as a disk.
    let whole = fs::read(&path).unwrap();
    let source = opened(&path);
    let mut flipped = whole.clone();
    let at = 2 * 512 + stored.len() - 100;
    flipped[at] ^= 1;
    fs::write(&path, &flipped).unwrap();
    assert!(read_error(&*source, 0).to_string().contains("has crc32"));
    for (size, expected) in [("100", "map of a sparse member"), ("99999999999", "is sparse and")] {
        let records =
            [("GNU.sparse.size", size), ("GNU.sparse.map", "0,512"), ("GNU.sparse.name", "0.bmp")];
        let mut archive = Blocks::default();
        archive.pax(&records).member(b"0.bmp", regular, &[1; 512], |_| {});
        fs::write(&path, archive.end()).unwrap();
        let message = refused(&config(DataKind::Webdataset, &path));
        assert!(message.contains(expected), "{message}");
    }
}

/// GNU's long names, those of pax, and a size in base 256.
#[test]
fn long_names_and_large_numbers_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    let long = format!("{}/0.png", "long".repeat(40));
    let mut archive = Blocks::default();
    let with_nul = [long.as_bytes(), b"\0"].concat();
    archive
        .member(b"././@LongLink", tar::EntryType::GNULongName, &with_nul, |_| {})
        .file("cut", &png(1, 3, 2))
        .pax(&[("path", &long.replace("0.png", "1.png"))])
        .file("cut", &png(2, 3, 2))
        .member(b"2.png", tar::EntryType::Regular, &png(3, 3, 2), |header| {
            let size = header.size().unwrap();
            header.as_gnu_mut().unwrap().size = [0; 12];
            let field = &mut header.as_gnu_mut().unwrap().size;
            field[0] = 0x80;
            field[4..].copy_from_slice(&size.to_be_bytes());
        });
    fs::write(&path, archive.end()).unwrap();
    let expected = [
        (long.clone(), gray(1)),
        (long.replace("0.png", "1.png"), gray(2)),
        ("2.png".to_owned(), gray(3)),
    ];
    assert_eq!(contents(&*opened(&path)), expected);
}

/// GNU tar writes the second name of a file as a link to the first.
#[test]
fn links_are_what_they_lead_to_and_all_else_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.tar");
    let link = |target: &'static str| {
        move |header: &mut tar::Header| header.set_link_name(target).unwrap()
    };
    let mut archive = Blocks::default();
    archive
        .member(b"a/early.png", tar::EntryType::Symlink, b"", link("../b/0.png"))
        .file("b/0.png", &png(1, 3, 2))
        .file("b/0.cls", b"4")
        .member(b"b/1.png", tar::EntryType::Link, b"", link("b/0.png"))
        .member(b"b/1.cls", tar::EntryType::Link, b"", link("./b/0.cls"))
        .member(b"b/2.png", tar::EntryType::Symlink, b"", link("../a/early.png"))
        .member(b"lost.png", tar::EntryType::Symlink, b"", link("/etc/0.png"))
        .member(b"lost2.png", tar::EntryType::Link, b"", link("nowhere.png"))
        .member(b"fifo.png", tar::EntryType::Fifo, b"", |_| {})
        .member(b"label", tar::EntryType::new(b'V'), b"", |_| {})
        .member(b"b/._0.png", tar::EntryType::Regular, b"of macOS", |_| {})
        .file("__MACOSX/b/._0.png", b"of macOS")
        .file(".DS_Store", b"of macOS");
    fs::write(&path, archive.end()).unwrap();
    let lines = told(|| {
        let source = opened(&path);
        let names: Vec<String> = contents(&*source)
            .into_iter()
            .map(|(name, pixels)| {
                assert_eq!(pixels, gray(1));
                name
            })
            .collect();
        assert_eq!(names, ["b/0.png", "b/1.png", "a/early.png", "b/2.png"]);
        assert_eq!(source.label(1).unwrap(), Some(4));
    });
    let expected = "members=3 left by a system, 2 links to nothing in their archive, \
                    1 devices, pipes and the like";
    assert!(lines.iter().any(|line| line.contains(expected)), "{lines:?}");
}

#[test]
fn names_that_are_not_utf8_are_read_and_files_that_are_no_samples_counted() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &[u8]| folder.path().join("in").join(OsStr::from_bytes(name));
    fs::create_dir_all(at(b"gr\xfcn")).unwrap();
    fs::create_dir_all(at(b"__MACOSX/a")).unwrap();
    for (name, bytes) in [
        (&b"gr\xfcn/0.png"[..], png(1, 3, 2)),
        (b"gr\xfcn/\xff.png", png(2, 3, 2)),
        (b"gr\xfcn/._0.png", b"of macOS".to_vec()),
        (b"__MACOSX/a/1.png", b"of macOS".to_vec()),
        (b".DS_Store", b"of macOS".to_vec()),
        (b"README", b"x".to_vec()),
        (b"a.txt", b"x".to_vec()),
        (b"gr\xfcn/b.TXT", b"x".to_vec()),
        (b"\xff.xml", b"x".to_vec()),
    ] {
        fs::write(at(name), bytes).unwrap();
    }
    let data = config(DataKind::Folder, &folder.path().join("in"));
    let lines = told(|| {
        let source = source::open(&data, "train").unwrap();
        let expected =
            [("gr\\xfcn/0.png".to_owned(), gray(1)), ("gr\\xfcn/\\xff.png".to_owned(), gray(2))];
        assert_eq!(contents(&*source), expected);
        assert_eq!(source.label(1).unwrap(), Some(0));
    });
    let is_told = |words: &str| lines.iter().any(|line| line.contains(words));
    assert!(is_told("files=2 .txt, 1 .xml, 1 without extension"), "{lines:?}");
    assert!(is_told("num_litter=3") && is_told("num_names=2"), "{lines:?}");
    // Once in a process: a run opens two splits.
    assert_eq!(told(|| drop(source::open(&data, "train").unwrap())), [""; 0]);
    packs_as_it_is_read(&data);

    // The same in an archive, whose own name is not UTF-8 either.
    let path = folder.path().join(OsStr::from_bytes(b"\xfe.tar"));
    let mut archive = Blocks::default();
    for (name, number) in [(&b"gr\xfcn/0.png"[..], 1), (b"gr\xfcn/\xff.png", 2)] {
        archive.member(name, tar::EntryType::Regular, &png(number, 3, 2), |_| {});
    }
    archive.file("gr/2.json", b"{}").file("gr/3.png", &png(3, 3, 2)).file("gr/3.json", b"{}");
    fs::write(&path, archive.end()).unwrap();
    fs::write(folder.path().join("notes.md"), "x").unwrap();
    fs::remove_dir_all(folder.path().join("in")).unwrap();
    let lines = told(|| {
        let found = contents(&*opened(folder.path()));
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["gr\\xfcn/0.png", "gr\\xfcn/\\xff.png", "gr/3.png"]);
        assert_eq!((&found[1].1, &found[2].1), (&gray(2), &gray(3)));
    });
    let is_told = |words: &str| lines.iter().any(|line| line.contains(words));
    assert!(is_told("num_not_utf8=2") && is_told("files=1 .md"), "{lines:?}");
    for words in ["samples not read", "members beside the content"] {
        let is_told = |line: &String| line.contains(words) && line.contains("members=1 .json");
        assert!(lines.iter().any(is_told), "{lines:?}");
    }
}

#[test]
fn compressed_archives_are_decompressed_once() {
    let folder = tempfile::tempdir().unwrap();
    let archive = |number: u8| Blocks::default().file("0.png", &png(number, 3, 2)).end();
    let gzip = |bytes: &[u8]| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(bytes).unwrap();
        packed.finish().unwrap()
    };
    let at = |name: &str| folder.path().join("in").join(name);
    fs::create_dir(folder.path().join("in")).unwrap();
    fs::write(at("a.tar.gz"), gzip(&archive(1))).unwrap();
    fs::write(at("b.tgz"), gzip(&archive(2))).unwrap();
    fs::write(at("c.tar.zst"), zstd::encode_all(archive(3).as_slice(), 1).unwrap()).unwrap();
    // Its name says nothing of it, as for GNU tar and Python.
    fs::write(at("d.tar"), gzip(&archive(4))).unwrap();
    // What somebody decompressed beside it is not read twice.
    fs::write(at("e.tar"), archive(5)).unwrap();
    fs::write(at("e.tar.bz2"), b"BZh91AY").unwrap();
    let mut data = config(DataKind::Webdataset, &folder.path().join("in"));
    data.remote.cache = folder.path().join("cache");
    let pixels = |data: &DataConfig| {
        let source = source::open(data, "train").unwrap();
        let found = contents(&*source).into_iter().map(|(_, pixels)| pixels[2]);
        found.collect::<Vec<u8>>()
    };
    let cached = || {
        let entries = fs::read_dir(folder.path().join("cache/archives")).unwrap();
        let entries = entries.map(|entry| entry.unwrap().path());
        let made = entries.filter(|path| path.extension() == Some(OsStr::new("tar")));
        let mut made: Vec<(PathBuf, u64)> =
            made.map(|path| (path.clone(), fs::metadata(path).unwrap().ino())).collect();
        made.sort_unstable();
        made
    };
    assert_eq!(pixels(&data), [1, 2, 3, 4, 5]);
    let before = cached();
    assert_eq!(before.len(), 4);
    assert_eq!(pixels(&data), [1, 2, 3, 4, 5]);
    assert_eq!(cached(), before);
    // Another file of the same name takes the place of the one before it.
    fs::write(at("a.tar.gz"), gzip(&[archive(6), archive(7)].concat())).unwrap();
    assert_eq!(pixels(&data), [6, 7, 2, 3, 4, 5]);
    let after = cached();
    let stayed = after.iter().filter(|made| before.contains(made)).count();
    assert_eq!((after.len(), stayed), (4, 3));

    let whole = fs::read(at("b.tgz")).unwrap();
    let one = |name: &str| DataConfig { path: at(name), ..data.clone() };
    fs::write(at("b.tgz"), &whole[..whole.len() / 2]).unwrap();
    assert!(refused(&one("b.tgz")).contains("b.tgz is cut short"));
    fs::write(at("x.tar.xz"), b"\xfd7zXZ\0\0").unwrap();
    let message = refused(&one("x.tar.xz"));
    assert!(message.contains("compressed with xz") && message.contains("unxz"), "{message}");
    assert!(cached().len() <= 4, "nothing is left of what failed");
}

#[test]
fn patterns_and_lists_name_archives_and_folders() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (place, number) in [("a/s-000", 0), ("a/s-001", 1), ("b/s-000", 2), ("b/s-010", 3)] {
        fs::create_dir_all(at(place).parent().unwrap()).unwrap();
        let archive = Blocks::default().file("0.png", &png(number, 3, 2)).end();
        fs::write(at(&format!("{place}.tar")), archive).unwrap();
        write(folder.path(), &[(&format!("pictures/{place}/x.png"), png(number, 3, 2))]);
    }
    let numbers = |kind: DataKind, path: &str| {
        let path = folder.path().join(path);
        let source = source::open(&config(kind, &path), "train").unwrap();
        let found = contents(&*source);
        let labels: Vec<_> = (0..found.len()).map(|id| source.label(id as u64).unwrap()).collect();
        (found.into_iter().map(|(_, pixels)| pixels[2]).collect::<Vec<u8>>(), labels)
    };
    let archives = |path: &str| numbers(DataKind::Webdataset, path).0;
    assert_eq!(archives("a/s-{000..001}.tar"), [0, 1]);
    assert_eq!(archives("{a,b}/s-000.tar"), [0, 2]);
    assert_eq!(archives("{a,b}"), [0, 1, 2, 3]);
    assert_eq!(archives("*/s-0[0-9]0.tar"), [0, 2, 3]);
    assert_eq!(archives("b/s-0{00..10..10}.tar"), [2, 3]);
    let list = format!("b/s-010.tar::file://{}", at("a/s-00{0..1}.tar").display());
    assert_eq!(archives(&list), [0, 1, 3]);
    let twice = format!("a/s-000.tar::{}", at("a/s-000.tar").display());
    assert_eq!(archives(&twice), [0]);

    let pictures = |path: &str| numbers(DataKind::Folder, &format!("pictures/{path}"));
    assert_eq!(pictures("*/s-000"), (vec![0, 2], vec![Some(0); 2]));
    assert_eq!(
        pictures("{a,b}/s-0*"),
        (vec![0, 1, 2, 3], vec![0, 1, 0, 2].into_iter().map(Some).collect())
    );
    assert_eq!(pictures("b").0, [2, 3]);

    for (path, expected) in [
        ("a/s-{000..001.tar", "has a { without its }"),
        ("c/*.tar", "holds no file that could be a sample"),
        ("a/s-{000..002}.tar", "s-002.tar: No such file"),
        ("a/s-{0..9999999}.tar", "stands for more than 1048576 names"),
    ] {
        let message = refused(&config(DataKind::Webdataset, &at(path)));
        assert!(message.contains(expected), "{message}");
    }
}
