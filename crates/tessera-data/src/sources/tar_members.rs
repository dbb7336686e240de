//! What is in a tar archive: every member once, from its beginning to its end.
//!
//! Headers are read by the `tar` crate (ustar, pax, GNU's long names and base-256 numbers). What it
//! leaves open is decided here: archives behind one another (`cat`), sparse members (GNU's old
//! ones, and pax 0.0, 0.1 and 1.0), links to other members, and what is no sample.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Component, Path};

use crate::decode::is_litter;
use crate::sources::files::key;
use crate::sources::names::text_of;
use crate::sources::tar_member::{BLOCK, IndexedSample, MAX_SPARSE_BYTES, Member, Piece};
use crate::sources::tar_sparse::{PaxSparse, bad_map, gnu_regions, pieces, read_map};
use crate::store::Blob;

/// Kinds of what is left out.
const NO_FILE: &str = "devices, pipes and the like";
const LOST_LINK: &str = "links to nothing in their archive";
const LITTER: &str = "left by a system";

/// What was found.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    /// The samples in the order of their first members.
    pub(crate) samples: Vec<IndexedSample>,
    /// What is no sample, by kind.
    pub(crate) left_out: BTreeMap<String, u64>,
    /// Members whose names are not UTF-8.
    pub(crate) num_not_utf8: u64,
    /// Bytes behind the last end mark that are no archive.
    pub(crate) bytes_behind_end: u64,
    /// Where the last member ends, in whole blocks.
    pub(crate) end: u64,
    /// Samples of the archive that is being read: those put together with `cat` may each begin
    /// with the same names.
    by_key: BTreeMap<String, usize>,
    /// Links whose members have not come yet.
    links: Vec<Link>,
}

/// Why an archive is not indexed.
pub(crate) enum Problem {
    /// It is damaged or cannot be read.
    Read(io::Error),
    /// It holds what it should not; the words complete a sentence about it.
    Holds(String),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

#[derive(Debug)]
struct Link {
    name: String,
    target: String,
}

/// A reader that knows its place and takes back one block.
pub(crate) struct Positioned<R> {
    pub(crate) inner: R,
    at: u64,
    block: Option<[u8; BLOCK as usize]>,
}

impl<R: Read> Positioned<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, at: 0, block: None }
    }

    /// Goes on to the next block that is not all zeros; none at the end.
    fn skip_zeros(&mut self) -> io::Result<Option<Next>> {
        let mut block = [0; BLOCK as usize];
        loop {
            let mut filled = 0;
            while filled < block.len() {
                match self.read(&mut block[filled..])? {
                    0 => break,
                    count => filled += count,
                }
            }
            let is_zero = block[..filled].iter().all(|&byte| byte == 0);
            match (filled == block.len(), is_zero) {
                (true, true) => {}
                (false, true) => return Ok(None),
                (true, false) if is_header(&block) => {
                    self.at -= BLOCK;
                    self.block = Some(block);
                    return Ok(Some(Next::Archive));
                }
                (_, false) => return Ok(Some(Next::Other { at: self.at - filled as u64 })),
            }
        }
    }
}

/// What is behind an end mark.
enum Next {
    Archive,
    /// Something else, and where it begins.
    Other {
        at: u64,
    },
}

/// Whether a block has the checksum of a header.
fn is_header(block: &[u8; BLOCK as usize]) -> bool {
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    let field: u32 = block[148..156].iter().map(|&byte| u32::from(byte)).sum();
    let found = tar::Header::from_byte_slice(block).cksum();
    found.is_ok_and(|found| found == sum - field + 8 * u32::from(b' '))
}

impl<R: Read> Read for Positioned<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = match self.block.take() {
            // A header is read at once.
            Some(block) if out.len() >= block.len() => {
                out[..block.len()].copy_from_slice(&block);
                block.len()
            }
            Some(_) => unreachable!("what follows a returned block is the reading of a header"),
            None => self.inner.read(out)?,
        };
        self.at += count as u64;
        Ok(count)
    }
}

/// Reads all members of an archive, and of those behind it.
pub(crate) fn read<R: Read>(reader: &mut Positioned<R>, blob: &Blob) -> Result<Contents, Problem> {
    let mut contents = Contents::default();
    loop {
        let start = reader.at;
        contents.read_one(tar::Archive::new(&mut *reader), start, blob)?;
        match reader.skip_zeros()? {
            Some(Next::Archive) => {}
            Some(Next::Other { at }) => {
                contents.bytes_behind_end = blob.len() - at;
                return Ok(contents);
            }
            None => return Ok(contents),
        }
    }
}

impl Contents {
    /// Reads up to the next end mark; `start` is where the archive begins.
    fn read_one<R: Read>(
        &mut self,
        mut archive: tar::Archive<R>,
        start: u64,
        blob: &Blob,
    ) -> Result<(), Problem> {
        self.by_key.clear();
        for entry in archive.entries()? {
            self.add_entry(&mut entry?, start, blob)?;
        }
        self.resolve_links()
    }

    fn add_entry<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        start: u64,
        blob: &Blob,
    ) -> Result<(), Problem> {
        let kind = entry.header().entry_type();
        if kind.is_dir() || kind.is_pax_global_extensions() || kind.as_byte() == b'V' {
            return Ok(());
        }
        let sparse = PaxSparse::of(entry)?;
        let name = match &sparse {
            Some(PaxSparse { name: Some(name), .. }) => name.clone(),
            _ => entry.path_bytes().into_owned(),
        };
        let is_utf8 = std::str::from_utf8(&name).is_ok();
        let name = text_of(&name);
        let is_link = kind.is_hard_link() || kind.is_symlink();
        let is_file = kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse();
        if name.ends_with('/') && is_file {
            // How archives older than POSIX write a folder.
            return Ok(());
        }
        if is_litter(&name) || !(is_link || is_file) {
            let kind = if is_litter(&name) { LITTER } else { NO_FILE };
            *self.left_out.entry(kind.to_owned()).or_default() += 1;
            return Ok(());
        }
        if split_name(&name).is_none() {
            let problem = format!("holds {name:?}, which leads out of its folder: remove it");
            return Err(Problem::Holds(problem));
        }
        self.num_not_utf8 += u64::from(!is_utf8);
        if is_link {
            let target = entry.link_name_bytes().map(|target| text_of(&target)).unwrap_or_default();
            let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
            let target = match kind.is_symlink() {
                true => beside(folder, &target).unwrap_or_default(),
                false => target,
            };
            let link = Link { name, target };
            match self.target_of(&link) {
                Some(member) => self.add(&link.name, member)?,
                None => self.links.push(link),
            }
            return Ok(());
        }
        let member = match sparse {
            Some(sparse) => self.pax_sparse_member(entry, &name, sparse, start, blob)?,
            None if kind.is_gnu_sparse() => self.gnu_sparse_member(entry, &name, start, blob)?,
            None => {
                let (offset, bytes) = (start + entry.raw_file_position(), entry.size());
                self.has_room(entry.raw_file_position(), bytes, start, blob)?;
                Member { offset, bytes, crc32: crc_of(entry, bytes)?, ..Member::default() }
            }
        };
        self.add(&name, member)
    }

    /// Notes where a member ends, which is in the archive.
    fn has_room(&mut self, at: u64, bytes: u64, start: u64, blob: &Blob) -> Result<(), Problem> {
        let end = (start + at).checked_add(bytes).filter(|&end| end <= blob.len());
        match end.map(|end| end.next_multiple_of(BLOCK)) {
            Some(end) if end <= blob.len() => {
                self.end = end;
                Ok(())
            }
            _ => Err(Problem::Read(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    fn add(&mut self, name: &str, member: Member) -> Result<(), Problem> {
        let (key, extension) = split_name(name).expect("it was looked at before");
        let member = Member { extension, ..member };
        let at = *self.by_key.entry(key.clone()).or_insert_with(|| {
            self.samples.push(IndexedSample { key, members: Vec::new() });
            self.samples.len() - 1
        });
        let members = &mut self.samples[at].members;
        if members.iter().any(|other| other.extension == member.extension) {
            return Err(Problem::Holds(format!("holds {name:?} twice: remove one")));
        }
        members.push(member);
        Ok(())
    }

    fn target_of(&self, link: &Link) -> Option<Member> {
        let (key, extension) = split_name(&link.target)?;
        let members = &self.samples[*self.by_key.get(&key)?].members;
        members.iter().find(|member| member.extension == extension).cloned()
    }

    /// Links may come before what they lead to, and lead to other links.
    fn resolve_links(&mut self) -> Result<(), Problem> {
        loop {
            let links = std::mem::take(&mut self.links);
            let before = links.len();
            for link in links {
                match self.target_of(&link) {
                    Some(member) => self.add(&link.name, member)?,
                    None => self.links.push(link),
                }
            }
            if self.links.len() == before {
                break;
            }
        }
        match self.links.len() as u64 {
            0 => {}
            lost => *self.left_out.entry(LOST_LINK.to_owned()).or_default() += lost,
        }
        self.links.clear();
        Ok(())
    }

    /// GNU's own form, whose holes `tar` fills.
    fn gnu_sparse_member<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        name: &str,
        start: u64,
        blob: &Blob,
    ) -> Result<Member, Problem> {
        let bytes = sparse_bytes(name, entry.size())?;
        let mut at = entry.raw_file_position();
        let (regions, map_bytes) = gnu_regions(entry, blob, start + at)?;
        at += map_bytes;
        let stored: u64 = regions.iter().map(|&(_, length)| length).sum();
        self.has_room(at, stored, start, blob)?;
        let pieces = Some(pieces(&regions, bytes, start + at, stored)?);
        let crc32 = crc_of(entry, bytes)?;
        Ok(Member { offset: start + at, bytes, crc32, pieces, ..Member::default() })
    }

    fn pax_sparse_member<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        name: &str,
        sparse: PaxSparse,
        start: u64,
        blob: &Blob,
    ) -> Result<Member, Problem> {
        let bytes = sparse_bytes(name, sparse.bytes)?;
        let (at, mut stored) = (entry.raw_file_position(), entry.size());
        self.has_room(at, stored, start, blob)?;
        let mut offset = start + at;
        let regions = match sparse.regions {
            Some(regions) => regions,
            None => {
                let (regions, map_bytes) = read_map(entry)?;
                offset += map_bytes;
                stored = stored.checked_sub(map_bytes).ok_or_else(bad_map)?;
                regions
            }
        };
        let pieces = pieces(&regions, bytes, offset, stored)?;
        let mut filled = crc32fast::Hasher::new();
        let mut at = 0;
        for &Piece { at: from, bytes, .. } in &pieces {
            zeros(&mut filled, from - at);
            hash(&mut filled, entry, bytes)?;
            at = from + bytes;
        }
        zeros(&mut filled, bytes - at);
        let crc32 = filled.finalize();
        Ok(Member { offset, bytes, crc32, pieces: Some(pieces), ..Member::default() })
    }
}

fn sparse_bytes(name: &str, bytes: u64) -> Result<u64, Problem> {
    match bytes {
        0..=MAX_SPARSE_BYTES => Ok(bytes),
        _ => Err(Problem::Holds(format!(
            "holds {name:?}, which is sparse and {bytes} bytes long, where {MAX_SPARSE_BYTES} are \
             the most: remove it, or make the archive without --sparse"
        ))),
    }
}

/// CRC-32 of the next `bytes`, which are there.
fn crc_of(content: &mut dyn Read, bytes: u64) -> io::Result<u32> {
    let mut crc = crc32fast::Hasher::new();
    hash(&mut crc, content, bytes)?;
    Ok(crc.finalize())
}

fn hash(crc: &mut crc32fast::Hasher, content: &mut dyn Read, bytes: u64) -> io::Result<()> {
    let mut block = [0; 1 << 14];
    let mut left = bytes;
    while left > 0 {
        let most = left.min(block.len() as u64) as usize;
        match content.read(&mut block[..most])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                crc.update(&block[..count]);
                left -= count as u64;
            }
        }
    }
    Ok(())
}

fn zeros(crc: &mut crc32fast::Hasher, count: u64) {
    let block = [0; 1 << 14];
    let mut left = count;
    while left > 0 {
        let now = left.min(block.len() as u64);
        crc.update(&block[..now as usize]);
        left -= now;
    }
}

/// The name that a link in `folder` leads to; none if it leads out of the archive.
fn beside(folder: &str, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    if target.starts_with('/') {
        return None;
    }
    for part in folder.split('/').chain(target.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// A member's key and extension; none for a name that leads out of a folder.
fn split_name(name: &str) -> Option<(String, String)> {
    let path = Path::new(name);
    let plain = |part: Component| matches!(part, Component::Normal(_) | Component::CurDir);
    if name.is_empty() || name.contains('\0') || !path.components().all(plain) {
        return None;
    }
    let name = name.strip_prefix("./").unwrap_or(name);
    let key = key(name);
    let extension = name[key.len()..].trim_start_matches('.');
    Some((key.to_owned(), extension.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_end_at_the_first_dot_of_the_file_name() {
        let split = |name| split_name(name).map(|(key, extension)| format!("{key} {extension}"));
        assert_eq!(split("a/b.c/000.seg.PNG").unwrap(), "a/b.c/000 seg.png");
        assert_eq!(split("./000.jpg").unwrap(), "000 jpg");
        assert_eq!(split("README").unwrap(), "README ");
        for name in ["/etc/passwd", "../a.jpg", "a/../../b.jpg", "", "a\0.jpg"] {
            assert_eq!(split_name(name), None, "{name:?}");
        }
    }

    #[test]
    fn links_lead_to_names_inside() {
        assert_eq!(beside("a/b", "../c.png").unwrap(), "a/c.png");
        assert_eq!(beside("", "./c.png").unwrap(), "c.png");
        assert_eq!(beside("a", "../../c.png"), None);
        assert_eq!(beside("a", "/c.png"), None);
    }
}
