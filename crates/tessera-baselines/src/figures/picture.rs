//! PSNR and SSIM of pictures.

use crate::error::BaselineError;
use crate::item::Picture;

const PEAK: f64 = 255.0;
/// Half of SSIM's window, without its middle.
const RADIUS: usize = 5;
const WINDOW: usize = 2 * RADIUS + 1;
const SIGMA: f64 = 1.5;

/// The mean squared error over all values.
///
/// # Errors
///
/// [`BaselineError::Item`] if one is malformed or their sizes differ.
pub fn squared_error(original: &Picture, decoded: &Picture) -> Result<f64, BaselineError> {
    alike(original, decoded)?;
    let pairs = original.bytes.iter().zip(&decoded.bytes);
    let sum: u64 = pairs.map(|(a, b)| u64::from(a.abs_diff(*b)).pow(2)).sum();
    Ok(sum as f64 / original.bytes.len() as f64)
}

/// Decibels of 8-bit values with this mean squared error; infinite of none.
pub fn psnr(squared_error: f64) -> f64 {
    10.0 * (PEAK * PEAK / squared_error).log10()
}

/// Structural similarity, Wang et al. 2004 (<https://doi.org/10.1109/TIP.2003.819861>): range 255,
/// K1 = 0.01, K2 = 0.03, a Gaussian window of 11 x 11 and sigma 1.5, covariances of the population, the
/// mean over the places that the window fits in, of each channel by itself, then over channels.
///
/// `None` if a side is shorter than the window.
///
/// # Errors
///
/// [`BaselineError::Item`] if one is malformed or their sizes differ.
pub fn ssim(original: &Picture, decoded: &Picture) -> Result<Option<f64>, BaselineError> {
    alike(original, decoded)?;
    if (original.height.min(original.width) as usize) < WINDOW {
        return Ok(None);
    }
    let channels = original.channels as usize;
    let sum: f64 = (0..channels).map(|channel| of_channel(original, decoded, channel)).sum();
    Ok(Some(sum / channels as f64))
}

fn of_channel(original: &Picture, decoded: &Picture, channel: usize) -> f64 {
    let (c1, c2) = ((0.01 * PEAK).powi(2), (0.03 * PEAK).powi(2));
    let [x, y] = [original, decoded].map(|picture| plane(picture, channel));
    let size = (original.height as usize, original.width as usize);
    let product = |a: &[f64], b: &[f64]| -> Vec<f64> {
        blurred(&a.iter().zip(b).map(|(a, b)| a * b).collect::<Vec<_>>(), size)
    };
    let (mean_x, mean_y) = (blurred(&x, size), blurred(&y, size));
    let (xx, yy, xy) = (product(&x, &x), product(&y, &y), product(&x, &y));
    let mut sum = 0.0;
    for at in 0..mean_x.len() {
        let (mx, my) = (mean_x[at], mean_y[at]);
        let (vx, vy, vxy) = (xx[at] - mx * mx, yy[at] - my * my, xy[at] - mx * my);
        let above = (2.0 * mx * my + c1) * (2.0 * vxy + c2);
        sum += above / ((mx * mx + my * my + c1) * (vx + vy + c2));
    }
    sum / mean_x.len() as f64
}

fn plane(picture: &Picture, channel: usize) -> Vec<f64> {
    let values = picture.bytes.iter().skip(channel).step_by(picture.channels as usize);
    values.map(|value| f64::from(*value)).collect()
}

/// Weighted means of the window at each place that it fits in.
fn blurred(values: &[f64], (height, width): (usize, usize)) -> Vec<f64> {
    let weights = weights();
    let inner = width - 2 * RADIUS;
    let mut across = Vec::with_capacity(height * inner);
    for row in values.chunks(width) {
        across.extend(row.windows(WINDOW).map(|window| {
            window.iter().zip(&weights).map(|(value, weight)| value * weight).sum::<f64>()
        }));
    }
    let mut down = Vec::with_capacity((height - 2 * RADIUS) * inner);
    for at in 0..(height - 2 * RADIUS) * inner {
        let column = across[at..].iter().step_by(inner);
        down.push(column.zip(&weights).map(|(value, weight)| value * weight).sum());
    }
    down
}

fn weights() -> [f64; WINDOW] {
    let mut weights = [0.0; WINDOW];
    for (at, weight) in weights.iter_mut().enumerate() {
        let away = (at as f64 - RADIUS as f64) / SIGMA;
        *weight = (-0.5 * away * away).exp();
    }
    let sum: f64 = weights.iter().sum();
    weights.map(|weight| weight / sum)
}

fn alike(original: &Picture, decoded: &Picture) -> Result<(), BaselineError> {
    original.check()?;
    decoded.check()?;
    let sizes = |picture: &Picture| {
        format!("{} x {} x {}", picture.height, picture.width, picture.channels)
    };
    let (expected, found) = (sizes(original), sizes(decoded));
    if expected == found {
        return Ok(());
    }
    Err(BaselineError::Item { what: "a decoded picture", expected, found })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The pictures of `tests/figures.py`.
    fn pair(height: u32, width: u32, channels: u32) -> (Picture, Picture) {
        let number = height * width * channels;
        let bytes: Vec<u8> = (0..number).map(|i| (i * 7 + i * i / 11) as u8).collect();
        let near = bytes.iter().zip(0..).map(|(value, i): (&u8, u32)| {
            (i32::from(*value) + (i * 5 % 23) as i32 - 11).clamp(0, 255) as u8
        });
        let decoded = Picture { height, width, channels, bytes: near.collect() };
        (Picture { bytes, ..decoded.clone() }, decoded)
    }

    /// Values of scikit-image 0.26, by `tests/figures.py`.
    #[test]
    fn figures_are_those_of_scikit_image() {
        let (x, y) = pair(20, 17, 3);
        assert!((psnr(squared_error(&x, &y).expect("alike")) - 31.790083129924867).abs() < 1e-9);
        let found = ssim(&x, &y).expect("alike").expect("long enough");
        assert!((found - 0.9957572152876407).abs() < 1e-9, "{found}");
        let (x, y) = pair(11, 28, 1);
        let found = ssim(&x, &y).expect("alike").expect("long enough");
        assert!((found - 0.9958157074682299).abs() < 1e-9, "{found}");
    }

    #[test]
    fn an_exact_picture_has_similarity_one_and_no_end_of_decibels() {
        let (x, _) = pair(12, 12, 3);
        assert!((ssim(&x, &x).expect("alike").expect("long enough") - 1.0).abs() < 1e-12);
        assert_eq!(psnr(squared_error(&x, &x).expect("alike")), f64::INFINITY);
    }

    #[test]
    fn small_pictures_have_no_similarity() {
        let (x, y) = pair(10, 30, 1);
        assert_eq!(ssim(&x, &y).expect("alike"), None);
        assert!(ssim(&x, &pair(30, 10, 1).0).is_err());
    }
}
