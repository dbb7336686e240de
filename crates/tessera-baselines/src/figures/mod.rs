//! How far the decoded is from the original.
//!
//! These figures need nothing but arithmetic. A caller that has the model's own measures gives those
//! instead; all curves of a report have to be judged by the same.

mod picture;
mod sound;

pub use picture::{psnr, squared_error, ssim};
pub use sound::{log_mel_distance, si_sdr};

use crate::curve::Column;
use crate::error::BaselineError;
use crate::item::{Picture, Sound};

/// What a set of decoded items is like.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// What each figure is.
    pub columns: Vec<Column>,
    /// The figures.
    pub values: Vec<f64>,
}

impl Figures {
    /// The values, if they are those of a report's columns.
    pub(crate) fn of(self, columns: &[Column], curve: &str) -> Result<Vec<f64>, BaselineError> {
        let names = |columns: &[Column]| {
            columns.iter().map(|one| one.name.as_str()).collect::<Vec<_>>().join(", ")
        };
        if self.columns == columns && self.values.len() == columns.len() {
            return Ok(self.values);
        }
        let problem = format!(
            "its figures are {} ({} values), those of the report are {}",
            names(&self.columns),
            self.values.len(),
            names(columns)
        );
        Err(BaselineError::Report { place: curve.to_owned(), problem })
    }
}

/// PSNR and SSIM of 8-bit values.
///
/// * `psnr_db`: of the mean squared error over all values of all pictures.
/// * `psnr_mean_db`: the mean of the pictures' PSNR; infinite if one is exact.
/// * `ssim`: the mean of the pictures' [`ssim`]; left out where a side is shorter than 11 pixels.
///
/// # Errors
///
/// [`BaselineError::Item`] if there are none, or pictures and originals differ in number or sizes.
pub fn picture_figures(
    originals: &[Picture],
    decoded: &[Picture],
) -> Result<Figures, BaselineError> {
    same_number(originals.len(), decoded.len())?;
    let (mut squares, mut count, mut decibels, mut similarity) = (0.0, 0.0, 0.0, Some(0.0));
    for (original, decoded) in originals.iter().zip(decoded) {
        let error = squared_error(original, decoded)?;
        let values = original.bytes.len() as f64;
        squares += error * values;
        count += values;
        decibels += psnr(error);
        let found = ssim(original, decoded)?;
        similarity = similarity.zip(found).map(|(sum, found)| sum + found);
    }
    let number = originals.len() as f64;
    let mut columns = vec![Column::higher("psnr_db"), Column::higher("psnr_mean_db")];
    let mut values = vec![psnr(squares / count), decibels / number];
    if let Some(sum) = similarity {
        columns.push(Column::higher("ssim"));
        values.push(sum / number);
    }
    Ok(Figures { columns, values })
}

/// SI-SDR and the log-mel distance.
///
/// * `si_sdr_db`: the mean of the sounds' [`si_sdr`]; silent ones are left out.
/// * `log_mel_distance`: the mean of the sounds' [`log_mel_distance`]; those that are shorter than 17
///   instants are left out.
///
/// Both are NaN where no sound is left.
///
/// # Errors
///
/// [`BaselineError::Item`] if there are none, or sounds and originals differ in number, length, rate
/// or channels.
pub fn sound_figures(originals: &[Sound], decoded: &[Sound]) -> Result<Figures, BaselineError> {
    same_number(originals.len(), decoded.len())?;
    let (mut ratios, mut distances) = (Vec::new(), Vec::new());
    for (original, decoded) in originals.iter().zip(decoded) {
        ratios.extend(si_sdr(original, decoded)?);
        distances.extend(log_mel_distance(original, decoded)?);
    }
    let columns = vec![Column::higher("si_sdr_db"), Column::lower("log_mel_distance")];
    Ok(Figures { columns, values: vec![mean(&ratios), mean(&distances)] })
}

/// NaN of none.
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn same_number(expected: usize, found: usize) -> Result<(), BaselineError> {
    if expected == found && expected > 0 {
        return Ok(());
    }
    let (expected, found) = (format!("{expected}, at least one"), found.to_string());
    Err(BaselineError::Item { what: "the number of decoded items", expected, found })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: errors 0 and 10 of two pictures have a mean square of 50: 10 log10(255^2 / 50) = 31.1411
    /// dB; the first picture is exact, so that the mean of the two has no end.
    #[test]
    fn psnr_is_told_in_both_ways() {
        let picture = |value| Picture { height: 1, width: 1, channels: 1, bytes: vec![value] };
        let found = picture_figures(&[picture(5), picture(5)], &[picture(5), picture(15)]);
        let found = found.expect("alike");
        assert_eq!(found.columns.len(), 2);
        assert!((found.values[0] - 31.1411).abs() < 1e-4, "{found:?}");
        assert_eq!(found.values[1], f64::INFINITY);
        let found = picture_figures(&[picture(5), picture(5)], &[picture(6), picture(15)]);
        // 10 log10(255^2) = 48.1308 and 10 log10(255^2 / 100) = 28.1308.
        assert!((found.expect("alike").values[1] - 38.1308).abs() < 1e-4);
        assert!(picture_figures(&[picture(5)], &[]).is_err());
    }

    #[test]
    fn silence_has_no_figure_and_changes_none() {
        let sound = |samples: Vec<i16>| Sound { rate: 8000, channels: 1, samples };
        let tone = sound(
            (0..400).map(|at| (f64::from(at) * 0.3).sin() * 9000.0).map(|s| s as i16).collect(),
        );
        let silent = sound(vec![0; 400]);
        let found = sound_figures(&[tone.clone(), silent.clone()], &[tone, silent]).expect("alike");
        assert_eq!(found.values, [100.0, 0.0]);
    }

    #[test]
    fn figures_of_other_columns_are_refused() {
        let figures = Figures { columns: vec![Column::higher("psnr_db")], values: vec![1.0] };
        assert_eq!(figures.clone().of(&[Column::higher("psnr_db")], "x").expect("same"), [1.0]);
        let said = figures.of(&[Column::higher("ssim")], "WebP").expect_err("another");
        let words = "WebP: its figures are psnr_db (1 values), those of the report are ssim";
        assert_eq!(said.to_string(), words);
    }
}
