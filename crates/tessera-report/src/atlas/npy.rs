//! Arrays of NumPy of four bytes a number (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).

use std::path::Path;

use crate::error::ReportError;

/// Reads an array of the kind `descr` and of `shape`, in rows.
pub(super) fn read<T>(
    path: &Path,
    descr: &str,
    shape: &[usize],
    number: fn([u8; 4]) -> T,
) -> Result<Vec<T>, ReportError> {
    let bytes = std::fs::read(path).map_err(ReportError::read(path))?;
    let wrong = |problem: &str| ReportError::content(path, problem);
    let (version, rest) = match bytes.strip_prefix(b"\x93NUMPY") {
        Some([version, _, rest @ ..]) => (*version, rest),
        _ => return Err(wrong("it is no array of NumPy")),
    };
    let (length, rest) = match (version, rest) {
        (1, [low, high, rest @ ..]) => (usize::from(u16::from_le_bytes([*low, *high])), rest),
        (2 | 3, [a, b, c, d, rest @ ..]) => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        _ => return Err(wrong("it is an array of a version that is not known")),
    };
    let header = rest.get(..length).and_then(|header| std::str::from_utf8(header).ok());
    let header = header.ok_or_else(|| wrong("its header is cut off"))?;
    let sides: Vec<String> = shape.iter().map(usize::to_string).collect();
    let fields = ["'descr': ".to_owned() + "'" + descr + "'", "'fortran_order': False".to_owned()];
    let shape_of = |text: &str| -> Option<Vec<String>> {
        let (_, after) = text.split_once("'shape': (")?;
        let sides = after.split_once(')')?.0.split(',').map(str::trim);
        Some(sides.filter(|side| !side.is_empty()).map(str::to_owned).collect())
    };
    if fields.iter().any(|field| !header.contains(field.as_str()))
        || shape_of(header) != Some(sides)
    {
        return Err(ReportError::content(
            path,
            format!("expected {descr} in rows of the shape {shape:?}, found {}", header.trim()),
        ));
    }
    let data = &rest[length..];
    if Some(data.len()) != shape.iter().try_fold(4, |size: usize, side| size.checked_mul(*side)) {
        return Err(wrong("it has other bytes than its shape says"));
    }
    let four = |part: &[u8]| number(part.try_into().expect("parts of four"));
    Ok(data.chunks_exact(4).map(four).collect())
}
