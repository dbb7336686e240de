//! A codec that a model is measured against, and the curve that it makes of a set of items.

use std::fmt;

use rayon::prelude::*;

use crate::codec::{PictureCodec, SoundCodec};
use crate::curve::{Column, Curve, Kind, Point};
use crate::error::BaselineError;
use crate::figures::Figures;
use crate::item::{Picture, Sound};
use crate::sheet::Layout;

/// An item after a codec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coded<I> {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of it without the container.
    pub payload_bytes: u64,
    /// What a decoder makes of it: of the sizes of the original.
    pub decoded: I,
}

/// A codec of today.
pub trait Baseline {
    /// What it codes: [`Picture`] or [`Sound`].
    type Item;
    /// How it is asked for a rate; shown in tables.
    type Setting: Copy + fmt::Display + 'static;

    /// What it is called in tables and pictures.
    fn name(&self) -> &'static str;

    /// Its encoder and what that is told, in a few words.
    fn about(&self) -> &'static str;

    /// Whether it gives back what it got.
    fn kind(&self) -> Kind;

    /// Its settings, from the lowest quality upward: eight or more where it is lossy.
    fn settings(&self) -> &'static [Self::Setting];

    /// Why it cannot code such items here, if so: a program that is missing, or items that are not for it.
    fn obstacle(&self, item: &Self::Item) -> Option<String>;

    /// Codes and decodes an item.
    ///
    /// # Errors
    ///
    /// [`BaselineError`] if the item is malformed or the codec fails.
    fn code(
        &self,
        item: &Self::Item,
        setting: Self::Setting,
    ) -> Result<Coded<Self::Item>, BaselineError>;
}

/// How far decoded items are from their originals; both are given in the same order.
pub type Judge<'a, I> = dyn Fn(&[I], &[I]) -> Result<Figures, BaselineError> + 'a;

/// The curve of a codec over pictures: a point a setting, its bytes those of all files.
///
/// Files are coded side by side on the threads of rayon's pool, each by one thread. Figures are
/// those of `judge`, of the pictures, never of sheets.
///
/// # Errors
///
/// [`BaselineError`] if a file cannot be coded or judged, or figures are not those of `columns`.
pub fn picture_curve(
    codec: PictureCodec,
    pictures: &[Picture],
    layout: Layout,
    columns: &[Column],
    judge: &Judge<'_, Picture>,
) -> Result<Curve, BaselineError> {
    let files = layout.files(pictures)?;
    curve(&codec, &files, columns, &|decoded| judge(pictures, &layout.pictures(decoded, pictures)?))
}

/// The curve of a codec over sounds, as [`picture_curve`] makes that of pictures; a file a sound.
///
/// # Errors
///
/// As those of [`picture_curve`].
pub fn sound_curve(
    codec: SoundCodec,
    sounds: &[Sound],
    columns: &[Column],
    judge: &Judge<'_, Sound>,
) -> Result<Curve, BaselineError> {
    curve(&codec, sounds, columns, &|decoded| judge(sounds, &decoded))
}

fn curve<B>(
    codec: &B,
    files: &[B::Item],
    columns: &[Column],
    judge: &dyn Fn(Vec<B::Item>) -> Result<Figures, BaselineError>,
) -> Result<Curve, BaselineError>
where
    B: Baseline + Sync,
    B::Item: Send + Sync,
    B::Setting: Send + Sync,
{
    let mut points = Vec::new();
    for setting in codec.settings() {
        let coded: Result<Vec<Coded<B::Item>>, BaselineError> =
            files.par_iter().map(|file| codec.code(file, *setting)).collect();
        let coded = coded?;
        let file_bytes = coded.iter().map(|one| one.file_bytes).sum();
        let payload_bytes = coded.iter().map(|one| one.payload_bytes).sum();
        let figures = judge(coded.into_iter().map(|one| one.decoded).collect())?;
        let figures = figures.of(columns, codec.name())?;
        points.push(Point { setting: setting.to_string(), file_bytes, payload_bytes, figures });
    }
    let (name, about) = (codec.name().to_owned(), codec.about().to_owned());
    Ok(Curve { name, about, kind: codec.kind(), points })
}
