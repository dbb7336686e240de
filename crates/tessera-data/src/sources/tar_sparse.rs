//! Members of a tar archive that are stored without their zeros, as the manual of GNU tar describes
//! them in "Storing Sparse Files": GNU's own form, and the three of pax.

use std::io::{self, Read};

use crate::sources::tar_member::{BLOCK, Piece};
use crate::store::Blob;

/// What pax says about a member with holes.
pub(crate) struct PaxSparse {
    /// Its name, where the one in the header is made up.
    pub(crate) name: Option<Vec<u8>>,
    /// Its length with the holes.
    pub(crate) bytes: u64,
    /// Place and length of what is stored; none where this stands before the content.
    pub(crate) regions: Option<Vec<(u64, u64)>>,
}

impl PaxSparse {
    /// None for a member without holes.
    pub(crate) fn of<R: Read>(entry: &mut tar::Entry<'_, R>) -> io::Result<Option<Self>> {
        let Some(extensions) = entry.pax_extensions()? else { return Ok(None) };
        let (mut name, mut bytes, mut regions, mut major) = (None, None, Vec::new(), 0);
        for extension in extensions.filter_map(Result::ok) {
            let field = extension.key().ok().and_then(|key| key.strip_prefix("GNU.sparse."));
            if field == Some("name") {
                name = Some(extension.value_bytes().to_vec());
            }
            let numbers = || {
                let text = extension.value().map_err(|_| bad_map())?;
                let numbers = text.split(',').filter(|text| !text.is_empty()).map(str::parse);
                numbers.collect::<Result<Vec<u64>, _>>().map_err(|_| bad_map())
            };
            let number = || numbers().and_then(|found| found.first().copied().ok_or_else(bad_map));
            match field {
                Some("major") => major = number()?,
                Some("size" | "realsize") => bytes = Some(number()?),
                Some("offset") => regions.push((number()?, 0)),
                Some("numbytes") => regions.last_mut().ok_or_else(bad_map)?.1 = number()?,
                Some("map") => {
                    let pairs = numbers()?;
                    let pairs = pairs.chunks_exact(2).map(|pair| (pair[0], pair[1]));
                    regions = pairs.collect();
                }
                _ => {}
            }
        }
        let Some(bytes) = bytes else { return Ok(None) };
        Ok(Some(Self { name, bytes, regions: Some(regions).filter(|_| major == 0) }))
    }
}

/// The map of pax 1.0: decimal numbers, a line each, in whole blocks before the content.
pub(crate) fn read_map(content: &mut dyn Read) -> io::Result<(Vec<(u64, u64)>, u64)> {
    let (mut numbers, mut digits, mut num_bytes) = (Vec::<u64>::new(), String::new(), 0);
    let mut block = [0; BLOCK as usize];
    loop {
        content.read_exact(&mut block)?;
        num_bytes += BLOCK;
        for &byte in &block {
            match byte {
                b'0'..=b'9' if digits.len() < 20 => digits.push(char::from(byte)),
                b'\n' => numbers.push(std::mem::take(&mut digits).parse().map_err(|_| bad_map())?),
                _ => return Err(bad_map()),
            }
            let expected = numbers.first().map(|&count| count.saturating_mul(2).saturating_add(1));
            if expected == Some(numbers.len() as u64) {
                let pairs = numbers[1..].chunks(2).map(|pair| (pair[0], pair[1]));
                return Ok((pairs.collect(), num_bytes));
            }
        }
    }
}

/// Where the regions of a member of `bytes` lie, whose stored ones begin at `offset`.
pub(crate) fn pieces(
    regions: &[(u64, u64)],
    bytes: u64,
    offset: u64,
    stored: u64,
) -> io::Result<Box<[Piece]>> {
    let (mut pieces, mut end, mut taken) = (Vec::new(), 0, 0u64);
    for &(at, length) in regions {
        let next = at.checked_add(length).filter(|&next| at >= end && next <= bytes);
        end = next.ok_or_else(bad_map)?;
        if length > 0 {
            pieces.push(Piece { at, offset: offset + taken, bytes: length });
        }
        taken += length;
        if taken > stored {
            return Err(bad_map());
        }
    }
    Ok(pieces.into())
}

pub(crate) fn bad_map() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the map of a sparse member is wrong")
}

/// The map of GNU's own form, in the header and, from `at` on, in blocks behind it; and how many
/// bytes these are.
pub(crate) fn gnu_regions<R: Read>(
    entry: &tar::Entry<'_, R>,
    blob: &Blob,
    at: u64,
) -> io::Result<(Vec<(u64, u64)>, u64)> {
    let header = entry.header().as_gnu().expect("`tar` reads no others as sparse");
    let (mut regions, mut num_bytes) = (Vec::new(), 0);
    let mut add = |region: &tar::GnuSparseHeader| -> io::Result<()> {
        if !region.is_empty() {
            regions.push((region.offset()?, region.length()?));
        }
        Ok(())
    };
    header.sparse.iter().try_for_each(&mut add)?;
    let mut is_extended = header.is_extended();
    while is_extended {
        let mut more = tar::GnuExtSparseHeader::new();
        blob.read_exact_at(more.as_mut_bytes(), at + num_bytes)?;
        more.sparse.iter().try_for_each(&mut add)?;
        is_extended = more.is_extended();
        num_bytes += BLOCK;
    }
    Ok((regions, num_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_of_a_sparse_member_are_in_order_and_inside() {
        let places = |regions: &[(u64, u64)], bytes, stored| {
            let pieces = pieces(regions, bytes, 1024, stored);
            pieces
                .map(|pieces| pieces.iter().map(|p| (p.at, p.offset, p.bytes)).collect::<Vec<_>>())
        };
        let found = places(&[(0, 512), (4096, 100), (5000, 0)], 5000, 612).unwrap();
        assert_eq!(found, [(0, 1024, 512), (4096, 1536, 100)]);
        for (regions, bytes, stored) in [
            (vec![(0, 512), (100, 5)], 5000, 1000),
            (vec![(4990, 11)], 5000, 1000),
            (vec![(0, 100)], 5000, 99),
            (vec![(u64::MAX, 2)], 5000, 99),
        ] {
            assert!(places(&regions, bytes, stored).is_err(), "{regions:?}");
        }
    }

    #[test]
    fn maps_of_pax_are_whole_blocks_of_lines() {
        let mut text = b"2\n0\n512\n4096\n100\n".to_vec();
        text.resize(512, 0);
        assert_eq!(read_map(&mut text.as_slice()).unwrap(), (vec![(0, 512), (4096, 100)], 512));
        for text in ["2\n0\n512\n", "x\n", "\n", "99999999999999999999999\n"] {
            let mut text = text.as_bytes().to_vec();
            text.resize(512, 0);
            assert!(read_map(&mut text.as_slice()).is_err());
        }
        let mut none = b"0\n".to_vec();
        none.resize(512, 0);
        assert_eq!(read_map(&mut none.as_slice()).unwrap(), (vec![], 512));
    }
}
