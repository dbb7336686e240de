//! W&B's log: records in the framing of LevelDB's log, behind a header of 7 bytes.
//!
//! The file is cut into blocks of 32 KiB. A record is one chunk or several, none of which crosses a block; a chunk is
//! its CRC-32 (over type and data), its length, its type and its data. Where less than a chunk's head is left of a
//! block, zeros fill it. <https://github.com/google/leveldb/blob/main/doc/log_format.md> has the format; W&B's
//! checksum is the plain one of zlib.

/// What the file begins with: `:W&B`, a magic number, version 0.
pub(super) const HEADER: [u8; 7] = [b':', b'W', b'&', b'B', 0xe1, 0xbe, 0];

const BLOCK_BYTES: u64 = 32 * 1024;
const HEAD_BYTES: u64 = 7;

/// Types of chunks.
const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// Appends the chunks of `record` to `bytes`, which go to the place `start` of the file.
pub(super) fn frame(bytes: &mut Vec<u8>, start: u64, mut record: &[u8]) {
    let mut is_first = true;
    loop {
        let left = BLOCK_BYTES - (start + bytes.len() as u64) % BLOCK_BYTES;
        if left < HEAD_BYTES {
            bytes.resize(bytes.len() + left as usize, 0);
            continue;
        }
        let room = usize::try_from(left - HEAD_BYTES).expect("less than a block");
        let (data, rest) = record.split_at(record.len().min(room));
        let kind = match (is_first, rest.is_empty()) {
            (true, true) => FULL,
            (true, false) => FIRST,
            (false, false) => MIDDLE,
            (false, true) => LAST,
        };
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&[kind]);
        checksum.update(data);
        bytes.extend(checksum.finalize().to_le_bytes());
        bytes.extend((data.len() as u16).to_le_bytes());
        bytes.push(kind);
        bytes.extend_from_slice(data);
        if rest.is_empty() {
            return;
        }
        (record, is_first) = (rest, false);
    }
}

/// The records of a log; `None` where it is damaged or torn.
#[cfg(test)]
pub(super) fn records(log: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut at = HEADER.len();
    let (mut records, mut begun) = (Vec::new(), Vec::new());
    (log.get(..at)? == HEADER).then_some(())?;
    while at < log.len() {
        let left = BLOCK_BYTES as usize - at % BLOCK_BYTES as usize;
        if left < HEAD_BYTES as usize {
            at += left;
            continue;
        }
        let head = log.get(at..at + 7)?;
        let length = usize::from(u16::from_le_bytes([head[4], head[5]]));
        let data = log.get(at + 7..at + 7 + length)?;
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(&head[6..7]);
        checksum.update(data);
        (checksum.finalize().to_le_bytes() == head[..4]).then_some(())?;
        begun.extend_from_slice(data);
        if matches!(head[6], FULL | LAST) {
            records.push(std::mem::take(&mut begun));
        }
        at += 7 + length;
    }
    begun.is_empty().then_some(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_any_length_at_any_place_come_back() {
        let mut log = HEADER.to_vec();
        let mut written = Vec::new();
        // Lengths about a block, so that rests of 0 to 8 bytes occur, and one of several blocks.
        let lengths = (32_730..32_775).chain([0, 1, 100_000, 32_761, 32_754]);
        for (number, length) in lengths.enumerate() {
            let record: Vec<u8> = (0..length).map(|at| (at * 7 + number) as u8).collect();
            let mut bytes = Vec::new();
            frame(&mut bytes, log.len() as u64, &record);
            log.extend(bytes);
            written.push(record);
        }
        assert_eq!(records(&log), Some(written));
        assert_eq!(records(&log[..log.len() - 1]), None, "a torn one is seen");
    }

    #[test]
    fn a_record_has_the_bytes_that_the_format_says() {
        let mut bytes = Vec::new();
        frame(&mut bytes, 7, b"ab");
        // CRC-32 of 01 61 62, by zlib.crc32(b"\x01ab").
        assert_eq!(bytes, [0xb7, 0xe9, 0xd9, 0x21, 2, 0, 1, b'a', b'b']);
    }
}
