//! The curves of one experiment, and what is written of them.
//!
//! A report knows what was coded, by its hashes, so that figures of two reports are never set beside each other
//! by mistake. It measures nothing itself.

mod compare;
mod csv;
mod delta;
mod page;
mod plot;
mod svg;

use std::path::{Path, PathBuf};

pub use compare::{Comparison, EqualQuality, Match, Winner};
pub use delta::{Delta, bd_rate};

use crate::curve::{Amount, Column, Curve};
use crate::error::BaselineError;
use crate::item::{Picture, Sound, hex};

/// A baseline that was not measured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The baseline.
    pub name: String,
    /// Why not, in one line.
    pub reason: String,
}

/// A rate-distortion experiment.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// What was coded, for a person: the data set, its split, and how items became files.
    pub data_set: String,
    /// SHA-256 of each item, in the order of coding.
    pub hashes: Vec<String>,
    /// What rates are counted by.
    pub amount: Amount,
    /// What each figure of a point is. The first is the one that bytes are compared at.
    pub columns: Vec<Column>,
    /// The model's curves and those of the baselines, in the order of tables.
    pub curves: Vec<Curve>,
    /// Baselines that are not there, each with its reason.
    pub left_out: Vec<LeftOut>,
}

impl Report {
    /// A report of pictures without curves.
    pub fn of_pictures(data_set: &str, pictures: &[Picture], columns: &[Column]) -> Self {
        let pixels = pictures.iter().map(|picture| picture.num_pixels() as u64).sum();
        let hashes = pictures.iter().map(Picture::hash).collect();
        Self::new(data_set, hashes, Amount::Pixels(pixels), columns)
    }

    /// A report of sounds without curves.
    pub fn of_sounds(data_set: &str, sounds: &[Sound], columns: &[Column]) -> Self {
        let seconds = sounds.iter().map(Sound::seconds).sum();
        let hashes = sounds.iter().map(Sound::hash).collect();
        Self::new(data_set, hashes, Amount::Seconds(seconds), columns)
    }

    fn new(data_set: &str, hashes: Vec<String>, amount: Amount, columns: &[Column]) -> Self {
        let (data_set, columns) = (data_set.to_owned(), columns.to_vec());
        Self { data_set, hashes, amount, columns, curves: Vec::new(), left_out: Vec::new() }
    }

    /// Adds a curve: a model's, or a baseline's.
    ///
    /// # Errors
    ///
    /// [`BaselineError::Report`] if it has no points, points with another number of figures or more payload
    /// than file, or the name of a curve that is there.
    pub fn add(&mut self, curve: Curve) -> Result<(), BaselineError> {
        let refused =
            |problem: String| BaselineError::Report { place: curve.name.clone(), problem };
        if curve.points.is_empty() {
            return Err(refused("a curve needs points, and has none".to_owned()));
        }
        if self.curves.iter().any(|other| other.name == curve.name) {
            return Err(refused("another curve has this name: give it one of its own".to_owned()));
        }
        for point in &curve.points {
            let (found, expected) = (point.figures.len(), self.columns.len());
            if found != expected {
                let setting = &point.setting;
                return Err(refused(format!("{setting} has {found} figures, not {expected}")));
            }
            if point.payload_bytes > point.file_bytes {
                let problem = format!("{} has more payload than file", point.setting);
                return Err(refused(problem));
            }
        }
        self.curves.push(curve);
        Ok(())
    }

    /// Says that a baseline was not measured, and why.
    pub fn leave_out(&mut self, name: &str, reason: &str) {
        self.left_out.push(LeftOut { name: name.to_owned(), reason: reason.to_owned() });
    }

    /// SHA-256 of the hashes of all items, a line each: one word for what was coded.
    pub fn items_sha256(&self) -> String {
        hex(&[self.items().as_bytes()])
    }

    /// The hashes of all items, a line each.
    pub fn items(&self) -> String {
        self.hashes.iter().map(|hash| format!("{hash}\n")).collect()
    }

    /// Writes `rate_distortion.csv`, `rate_distortion.md`, `items.sha256` and for each figure
    /// `rate_distortion-FIGURE.svg` into a folder, which is made, and returns their paths.
    ///
    /// # Errors
    ///
    /// [`BaselineError::File`].
    pub fn write(&self, folder: &Path) -> Result<Vec<PathBuf>, BaselineError> {
        std::fs::create_dir_all(folder).map_err(BaselineError::file("make", folder))?;
        let picture_name = |column: &Column| format!("rate_distortion-{}.svg", column.name);
        let pictures: Vec<String> = self.columns.iter().map(picture_name).collect();
        let mut files = vec![
            ("rate_distortion.csv".to_owned(), self.csv()),
            ("rate_distortion.md".to_owned(), self.page(&pictures)),
            ("items.sha256".to_owned(), self.items()),
        ];
        for (at, name) in pictures.into_iter().enumerate() {
            files.push((name, self.svg(at)));
        }
        let mut written = Vec::new();
        for (name, content) in files {
            let path = folder.join(name);
            std::fs::write(&path, content).map_err(BaselineError::file("write", &path))?;
            written.push(path);
        }
        Ok(written)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::curve::{Kind, Point};

    pub(crate) fn curve(name: &str, kind: Kind, points: &[(u64, f64)]) -> Curve {
        let point = |(at, &(bytes, figure)): (usize, &(u64, f64))| Point {
            setting: format!("s{at}"),
            file_bytes: bytes,
            payload_bytes: bytes - bytes / 10,
            figures: vec![figure, figure / 40.0],
        };
        let points = points.iter().enumerate().map(point).collect();
        Curve { name: name.to_owned(), about: format!("{name}, as it is"), kind, points }
    }

    /// A model that is best at its lowest rates, and three baselines.
    pub(crate) fn report() -> Report {
        let pictures = [Picture { height: 64, width: 64, channels: 1, bytes: vec![0; 4096] }];
        let columns = [Column::higher("psnr_db"), Column::higher("ssim")];
        let mut report = Report::of_pictures("waves, \"test\"", &pictures, &columns);
        let model = [(200, 22.0), (400, 25.0), (800, 27.5), (1600, 29.0)];
        let jpeg = [(500, 23.0), (700, 26.0), (1000, 28.5), (2000, 32.0), (4000, 37.0)];
        let webp = [(260, 24.0), (400, 26.5), (800, 30.0), (1600, 34.0), (3000, 39.0)];
        for curve in [
            curve("model", Kind::Model, &model),
            curve("PNG", Kind::Lossless, &[(6000, f64::INFINITY)]),
            curve("JPEG", Kind::Lossy, &jpeg),
            curve("WebP", Kind::Lossy, &webp),
        ] {
            report.add(curve).expect("its columns");
        }
        report.leave_out("AVIF", "avifenc is not installed");
        report
    }

    #[test]
    fn curves_that_do_not_belong_are_refused() {
        let mut report = report();
        let mut other = curve("other", Kind::Model, &[(10, 1.0)]);
        other.points[0].figures.pop();
        assert!(report.add(other).is_err());
        assert!(report.add(curve("JPEG", Kind::Lossy, &[(10, 1.0)])).is_err());
        assert!(report.add(curve("none", Kind::Lossy, &[])).is_err());
    }

    #[test]
    fn all_files_are_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let written = report().write(&folder.path().join("new")).expect("room");
        let names: Vec<_> = written.iter().filter_map(|path| path.file_name()).collect();
        let expected = [
            "rate_distortion.csv",
            "rate_distortion.md",
            "items.sha256",
            "rate_distortion-psnr_db.svg",
            "rate_distortion-ssim.svg",
        ];
        assert_eq!(names, expected);
        assert!(written.iter().all(|path| path.is_file()));
    }
}
