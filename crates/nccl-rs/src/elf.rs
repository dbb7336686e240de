//! Which functions a shared library exports, without loading it: loading runs its code.
//!
//! Reads the dynamic symbols of little-endian ELF files of 64 bits, which are those that NCCL
//! comes in. Says nothing of other files; the loader will.

use std::collections::HashSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// `SHT_DYNSYM`: the section with what the loader sees.
const DYNAMIC_SYMBOLS: u32 = 11;
const SECTION_BYTES: usize = 64;
const SYMBOL_BYTES: usize = 24;
/// Symbols and names of a library: NCCL has less than 1 MiB of each.
const MOST_BYTES: u64 = 256 << 20;

/// The first of `symbols` that the library at `path` does not export; none if it has all, or if
/// the file cannot be understood.
pub(crate) fn lacks(path: &Path, symbols: &[&'static str]) -> Option<&'static str> {
    let exported = exports(&File::open(path).ok()?)?;
    symbols.iter().find(|symbol| !exported.contains(symbol.as_bytes())).copied()
}

fn exports(file: &File) -> Option<HashSet<Vec<u8>>> {
    let header = read(file, 0, 64)?;
    let is_shared = number(&header, 0x10, 2)? == 3;
    if !header.starts_with(b"\x7fELF\x02\x01") || !is_shared {
        return None;
    }
    let (start, count) = (number(&header, 0x28, 8)?, number(&header, 0x3c, 2)?);
    let sections = read(file, start, count * SECTION_BYTES as u64)?;
    let all = || sections.chunks_exact(SECTION_BYTES);
    let symbols = all().find(|section| number(section, 4, 4) == Some(DYNAMIC_SYMBOLS.into()))?;
    let names = all().nth(usize::try_from(number(symbols, 0x28, 4)?).ok()?)?;
    let contents = |section| read(file, number(section, 0x18, 8)?, number(section, 0x20, 8)?);
    let (symbols, names) = (contents(symbols)?, contents(names)?);

    let mut exported = HashSet::new();
    for symbol in symbols.chunks_exact(SYMBOL_BYTES) {
        if number(symbol, 6, 2)? == 0 {
            continue; // wanted from another library
        }
        let name = names.get(usize::try_from(number(symbol, 0, 4)?).ok()?..)?;
        let end = name.iter().position(|&byte| byte == 0)?;
        exported.insert(name[..end].to_vec());
    }
    Some(exported)
}

fn read(file: &File, start: u64, bytes: u64) -> Option<Vec<u8>> {
    if bytes > MOST_BYTES {
        return None;
    }
    let mut buffer = vec![0; usize::try_from(bytes).ok()?];
    file.read_exact_at(&mut buffer, start).ok()?;
    Some(buffer)
}

/// The little-endian number of so many bytes.
fn number(from: &[u8], start: usize, bytes: usize) -> Option<u64> {
    let mut whole = [0; 8];
    whole[..bytes].copy_from_slice(from.get(start..start + bytes)?);
    Some(u64::from_le_bytes(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This test's own program is a file of the kind (a position-independent executable), and the C
    /// library that it is linked with exports `malloc`.
    #[test]
    fn what_a_library_exports_is_found_and_what_it_lacks_is_named() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let libc = maps
            .lines()
            .find_map(|line| line.split_whitespace().last().filter(|p| p.contains("libc.so")));
        let libc = Path::new(libc.expect("tests are linked with the C library"));
        assert_eq!(lacks(libc, &["malloc", "ncclGetVersion"]), Some("ncclGetVersion"));
        assert_eq!(lacks(libc, &["malloc", "free"]), None);
    }

    #[test]
    fn of_other_files_nothing_is_said() {
        let file = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("Cargo.toml");
        assert_eq!(lacks(&file, &["ncclGetVersion"]), None);
        assert_eq!(lacks(Path::new("/nowhere"), &["ncclGetVersion"]), None);
    }
}
