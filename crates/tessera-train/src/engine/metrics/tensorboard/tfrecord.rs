//! TFRecord framing: length, checksum of the length, data, checksum of the data.
//!
//! The checksums are CRC-32C, rotated and offset ("masked") so that a checksum over data that
//! itself holds checksums stays sound. The format is described in
//! <https://www.tensorflow.org/tutorials/load_data/tfrecord>.

/// Wraps `data` as a TFRecord.
pub(super) fn frame(data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(data.len() + 16);
    record.extend_from_slice(&length);
    record.extend_from_slice(&masked_crc(&length).to_le_bytes());
    record.extend_from_slice(data);
    record.extend_from_slice(&masked_crc(data).to_le_bytes());
    record
}

/// Splits the first record off `bytes`; `None` at the end and where it is torn or damaged.
/// Returns the record's data, and its length with the framing.
pub(super) fn first_record(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (length_crc, rest) = rest.split_first_chunk::<4>()?;
    if masked_crc(length) != u32::from_le_bytes(*length_crc) {
        return None;
    }
    let data = rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    let data_crc = rest[data.len()..].first_chunk::<4>()?;
    (masked_crc(data) == u32::from_le_bytes(*data_crc)).then_some((data, data.len() + 16))
}

fn masked_crc(data: &[u8]) -> u32 {
    crc32c(data).rotate_right(15).wrapping_add(0xa282_ead8)
}

/// CRC-32C (Castagnoli, RFC 3720), the reflected polynomial 0x82f63b78. Events are few and
/// small, so a byte at a time is fast enough and saves a dependency.
fn crc32c(data: &[u8]) -> u32 {
    let step = |crc: u32, &byte: &u8| (crc >> 8) ^ CRC_TABLE[usize::from(crc as u8 ^ byte)];
    !data.iter().fold(u32::MAX, step)
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82f6_3b78 } else { crc >> 1 };
            bit += 1;
        }
        table[index] = crc;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_has_the_published_check_values() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
        // RFC 3720, appendix B.4: 32 bytes of zeros.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn records_framed_by_tensorboard_are_framed_alike() {
        let mut rest: &[u8] = include_bytes!("../../../../tests/fixtures/tensorboard_events.bin");
        while let Some((data, length)) = first_record(rest) {
            assert_eq!(frame(data), rest[..length]);
            rest = &rest[length..];
        }
        assert!(rest.is_empty(), "every record of the fixture is read");
    }

    #[test]
    fn a_record_with_any_byte_changed_or_cut_is_not_read() {
        let record = frame(b"data");
        assert_eq!(first_record(&record), Some((&b"data"[..], 20)));
        for index in 0..record.len() {
            assert_eq!(first_record(&record[..index]), None, "cut at {index}");
            let mut changed = record.clone();
            changed[index] ^= 0x10;
            assert_eq!(first_record(&changed), None, "changed at {index}");
        }
    }
}
