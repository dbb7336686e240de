//! Features as a Parquet file (<https://parquet.apache.org/docs/file-format/>), which data frames and databases read.
//!
//! Columns are `id` and `label` (int64; -1: none) and `features`, a list of float or uint32 a row. What else there is to know,
//! the axes of a row's features among it, is in the file's metadata, as safetensors has it.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{FloatType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use crate::error::ApplyError;

/// Bytes of features of a group of rows, about.
const GROUP_BYTES: usize = 32 << 20;

/// What the numbers of a row are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    Floats,
    Codes,
}

/// A file in the making.
pub(super) struct Parquet {
    writer: SerializedFileWriter<File>,
    numbers: Numbers,
    /// Numbers of a row.
    width: usize,
    /// Rows that wait for their group: bytes of their features.
    waiting: Vec<u8>,
    /// Of all rows.
    labels: Vec<i64>,
    /// Rows that are in groups.
    written: usize,
}

impl Parquet {
    /// Begins a file of rows of `width` numbers, with the label of each row.
    pub(super) fn create(
        path: &Path,
        numbers: Numbers,
        width: usize,
        labels: Vec<i64>,
        said: Vec<(String, String)>,
    ) -> Result<Self, ApplyError> {
        let element = match numbers {
            Numbers::Floats => "float element",
            Numbers::Codes => "int32 element (INTEGER(32,false))",
        };
        let schema = format!(
            "message features {{ required int64 id; required int64 label; \
             required group features (LIST) {{ repeated group list {{ required {element}; }} }} }}"
        );
        let schema = Arc::new(parse_message_type(&schema).expect("the schema is ours"));
        let said = said.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect();
        let level = ZstdLevel::try_new(3).expect("zstd has this level");
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(level))
            .set_dictionary_enabled(numbers == Numbers::Codes)
            .set_key_value_metadata(Some(said))
            .build();
        let file = File::create(path).map_err(ApplyError::file("make", path))?;
        let writer = SerializedFileWriter::new(file, schema, Arc::new(properties));
        let writer = writer.map_err(|error| of_parquet(path, error))?;
        Ok(Self { writer, numbers, width, waiting: Vec::new(), labels, written: 0 })
    }

    /// Adds whole rows, whose numbers lie one after another.
    pub(super) fn add(&mut self, path: &Path, bytes: &[u8]) -> Result<(), ApplyError> {
        self.waiting.extend_from_slice(bytes);
        match self.waiting.len() >= GROUP_BYTES {
            true => self.group().map_err(|error| of_parquet(path, error)),
            false => Ok(()),
        }
    }

    /// Writes the end.
    pub(super) fn finish(mut self, path: &Path) -> Result<(), ApplyError> {
        let ended = self.group().and_then(|()| self.writer.close().map(drop));
        ended.map_err(|error| of_parquet(path, error))
    }

    /// What waits, as a group of rows.
    fn group(&mut self) -> Result<(), ParquetError> {
        let waiting = std::mem::take(&mut self.waiting);
        let num = waiting.len() / (4 * self.width);
        if num == 0 {
            return Ok(());
        }
        let rows = self.written..self.written + num;
        let ids: Vec<i64> = rows.clone().map(|row| row as i64).collect();
        let labels = &self.labels[rows];
        let (numbers, width) = (self.numbers, self.width);
        let mut group = self.writer.next_row_group()?;
        whole_numbers(&mut group, &ids)?;
        whole_numbers(&mut group, labels)?;
        // A row's first number begins its list.
        let repetition: Vec<i16> =
            (0..num * width).map(|place| i16::from(!place.is_multiple_of(width))).collect();
        let definition = vec![1; num * width];
        let quads = waiting.as_chunks::<4>().0.iter();
        let mut column = group.next_column()?.expect("the schema has three columns");
        match numbers {
            Numbers::Floats => {
                let values: Vec<f32> = quads.map(|quad| f32::from_le_bytes(*quad)).collect();
                let to = column.typed::<FloatType>();
                to.write_batch(&values, Some(&definition), Some(&repetition))?;
            }
            Numbers::Codes => {
                let values: Vec<i32> = quads.map(|quad| i32::from_le_bytes(*quad)).collect();
                let to = column.typed::<Int32Type>();
                to.write_batch(&values, Some(&definition), Some(&repetition))?;
            }
        }
        column.close()?;
        group.close()?;
        self.written += num;
        Ok(())
    }
}

fn whole_numbers(
    group: &mut SerializedRowGroupWriter<'_, File>,
    values: &[i64],
) -> Result<(), ParquetError> {
    let mut column = group.next_column()?.expect("the schema has three columns");
    column.typed::<Int64Type>().write_batch(values, None, None)?;
    column.close()
}

fn of_parquet(path: &Path, error: ParquetError) -> ApplyError {
    ApplyError::file("write", path)(std::io::Error::other(error))
}
