//! Several small pictures as one, so that a file's header is paid for once.
//!
//! A picture of 28 x 28 pixels is fewer bytes than the header of a JPEG or AVIF. A person who keeps many such
//! pictures puts them on sheets, and so does an honest comparison. Codecs may then use one picture to predict
//! its neighbour, and blur the edge between two; neither is taken off.

use crate::error::BaselineError;
use crate::item::Picture;

/// The value of places of a sheet that have no picture.
const EMPTY: u8 = 128;

/// How pictures become files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A file a picture.
    Single,
    /// Sheets of so many pictures across and down; the last may have fewer.
    Sheets {
        /// Pictures in a row of a sheet.
        columns: u32,
        /// Rows of pictures.
        rows: u32,
    },
}

impl Layout {
    /// Pictures of a file, at most.
    pub fn pictures_per_file(self) -> usize {
        match self {
            Self::Single => 1,
            Self::Sheets { columns, rows } => (columns as usize * rows as usize).max(1),
        }
    }

    /// What a reader of the report is told.
    pub fn words(self) -> String {
        match self {
            Self::Single => "each picture is a file".to_owned(),
            Self::Sheets { columns, rows } => {
                format!("sheets of {columns} x {rows} pictures are files")
            }
        }
    }

    /// The pictures that are coded.
    ///
    /// # Errors
    ///
    /// [`BaselineError::Item`] if pictures of a sheet differ in their sizes.
    pub fn files(self, pictures: &[Picture]) -> Result<Vec<Picture>, BaselineError> {
        match self {
            Self::Single => Ok(pictures.to_vec()),
            Self::Sheets { columns, .. } => {
                pictures.chunks(self.pictures_per_file()).map(|few| sheet(few, columns)).collect()
            }
        }
    }

    /// The pictures of decoded files, in their order.
    ///
    /// # Errors
    ///
    /// [`BaselineError::Item`] if a file has fewer.
    pub fn pictures(
        self,
        files: Vec<Picture>,
        originals: &[Picture],
    ) -> Result<Vec<Picture>, BaselineError> {
        if self == Self::Single {
            return Ok(files);
        }
        let mut all = Vec::with_capacity(originals.len());
        for (file, few) in files.iter().zip(originals.chunks(self.pictures_per_file())) {
            all.extend(cut(file, few[0].height, few[0].width, few.len())?);
        }
        Ok(all)
    }
}

/// Puts pictures of one size onto one, row after row; places that are left are grey.
///
/// # Errors
///
/// [`BaselineError::Item`] if there is none, or if they differ in their sizes.
pub fn sheet(pictures: &[Picture], columns: u32) -> Result<Picture, BaselineError> {
    let Some(first) = pictures.first().filter(|_| columns > 0) else {
        return Err(unlike("at least one picture and one column", "none".to_owned()));
    };
    let sizes = |picture: &Picture| (picture.height, picture.width, picture.channels);
    if let Some(other) = pictures.iter().find(|picture| sizes(picture) != sizes(first)) {
        let expected = format!("{:?} like the first", sizes(first));
        return Err(unlike(&expected, format!("{:?}", sizes(other))));
    }
    let columns = columns.min(u32::try_from(pictures.len()).unwrap_or(u32::MAX));
    let rows = u32::try_from(pictures.len().div_ceil(columns as usize)).unwrap_or(u32::MAX);
    let (height, width) = (first.height * rows, first.width * columns);
    let len = height as usize * width as usize * first.channels as usize;
    let mut bytes = vec![EMPTY; len];
    for (at, picture) in pictures.iter().enumerate() {
        picture.check()?;
        for (row, values) in picture.bytes.chunks(row_bytes(picture)).enumerate() {
            let start = place(at, row, first, columns);
            bytes[start..start + values.len()].copy_from_slice(values);
        }
    }
    Ok(Picture { height, width, channels: first.channels, bytes })
}

/// Takes the first `number` pictures of these sizes from a sheet, row after row.
///
/// # Errors
///
/// [`BaselineError::Item`] if the sheet has fewer, or is no whole number of pictures wide or high.
pub fn cut(
    sheet: &Picture,
    height: u32,
    width: u32,
    number: usize,
) -> Result<Vec<Picture>, BaselineError> {
    sheet.check()?;
    let whole = height > 0
        && width > 0
        && sheet.height.is_multiple_of(height)
        && sheet.width.is_multiple_of(width);
    if !whole || ((sheet.height / height) as usize * (sheet.width / width) as usize) < number {
        let found = format!("{} x {}", sheet.height, sheet.width);
        return Err(unlike(&format!("{number} pictures of {height} x {width}"), found));
    }
    let columns = sheet.width / width;
    let empty = Picture { height, width, channels: sheet.channels, bytes: Vec::new() };
    let mut pictures = vec![empty; number];
    for (at, picture) in pictures.iter_mut().enumerate() {
        for row in 0..height as usize {
            let start = place(at, row, picture, columns);
            picture.bytes.extend_from_slice(&sheet.bytes[start..start + row_bytes(picture)]);
        }
    }
    Ok(pictures)
}

fn row_bytes(picture: &Picture) -> usize {
    picture.width as usize * picture.channels as usize
}

/// Where a row of the picture at a place begins in a sheet.
fn place(at: usize, row: usize, picture: &Picture, columns: u32) -> usize {
    let columns = columns as usize;
    let line = at / columns * picture.height as usize + row;
    (line * columns + at % columns) * row_bytes(picture)
}

fn unlike(expected: &str, found: String) -> BaselineError {
    BaselineError::Item { what: "a sheet of pictures", expected: expected.to_owned(), found }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(value: u8) -> Picture {
        Picture { height: 1, width: 2, channels: 1, bytes: vec![value, value + 1] }
    }

    #[test]
    fn a_sheet_has_pictures_row_after_row_and_grey_where_there_is_none() {
        let pictures = [picture(10), picture(20), picture(30)];
        let sheet = sheet(&pictures, 2).expect("one size");
        assert_eq!((sheet.height, sheet.width), (2, 4));
        assert_eq!(sheet.bytes, [10, 11, 20, 21, 30, 31, 128, 128]);
        assert_eq!(cut(&sheet, 1, 2, 3).expect("of that size"), pictures);
        assert!(cut(&sheet, 1, 2, 5).is_err());
        assert!(cut(&sheet, 1, 3, 1).is_err());
    }

    #[test]
    fn pictures_come_back_from_sheets_in_their_order() {
        let pictures: Vec<Picture> = (0..7).map(|at| picture(at * 2)).collect();
        let layout = Layout::Sheets { columns: 2, rows: 2 };
        let files = layout.files(&pictures).expect("one size");
        assert_eq!(files.len(), 2);
        assert_eq!(layout.pictures(files, &pictures).expect("as they were"), pictures);
    }

    #[test]
    fn pictures_of_two_sizes_are_no_sheet() {
        let tall = Picture { height: 2, width: 1, channels: 1, bytes: vec![0, 0] };
        assert!(sheet(&[picture(0), tall], 2).is_err());
        assert!(sheet(&[], 2).is_err());
    }
}
