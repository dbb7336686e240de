//! Drawn images: soft-edged ellipses and bars on a gradient, for tests and first runs.
//!
//! A sample is a pure function of (seed, split, id), through ChaCha8 with the id as its
//! stream. The images have structure that a codebook can learn (edges, flat regions, a few
//! colors) and no noise that it cannot. Only additions, products, quotients and square
//! roots are used, which IEEE 754 rounds the same everywhere: no sine, no exponential.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

use crate::config::SyntheticConfig;
use crate::draw::Draw;
use crate::error::DataError;
use crate::file;
use crate::samples::{Source, assert_read};
use crate::shape::SampleShape;

/// Width of a soft edge in pixels.
const EDGE_PIXELS: f32 = 1.5;

/// Drawn images of one split.
pub struct SyntheticSource {
    shape: SampleShape,
    num_samples: u64,
    key: [u8; 32],
    fingerprint: String,
}

impl SyntheticSource {
    /// The images of `split` (`"train"` or `"test"`) that `config` describes.
    ///
    /// # Errors
    ///
    /// [`DataError::Config`] if the split does not exist or is empty.
    pub fn new(config: &SyntheticConfig, split: &str) -> Result<Self, DataError> {
        let (tag, num_samples) = match split {
            "train" => (0u64, config.num_train),
            "test" => (1, config.num_test),
            _ => {
                let problem = format!("has splits train and test, not {split:?}");
                return Err(DataError::Config { key: "synthetic", problem });
            }
        };
        if num_samples == 0 {
            let problem = format!("has no samples in split {split:?}: raise num_{split}");
            return Err(DataError::Config { key: "synthetic", problem });
        }
        let mut key = [0; 32];
        key[..8].copy_from_slice(&config.seed.to_le_bytes());
        key[8..16].copy_from_slice(&tag.to_le_bytes());
        let described = serde_json::to_string(config).expect("a config is plain data");
        let fingerprint = file::sha256_of(format!("tessera-synthetic-1 {described}").as_bytes());
        Ok(Self { shape: config.shape(), num_samples, key, fingerprint })
    }
}

impl Source for SyntheticSource {
    fn num_samples(&self) -> u64 {
        self.num_samples
    }

    fn shape(&self) -> SampleShape {
        self.shape
    }

    fn read(&self, id: u64, _draw: Draw, out: &mut [u8]) -> Result<(), DataError> {
        assert_read(self, id, out);
        let mut random = ChaCha8Rng::from_seed(self.key);
        random.set_stream(id);
        draw(&mut random, self.shape, out);
        Ok(())
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

/// Outline of a figure.
enum Outline {
    Ellipse,
    Bar,
}

/// One figure; lengths in pixels.
struct Figure {
    outline: Outline,
    center: (f32, f32),
    /// Half-axes of an ellipse, half-sides of a bar.
    radii: (f32, f32),
    /// Unit vector along the first half-axis.
    direction: (f32, f32),
    colors: Vec<f32>,
}

impl Figure {
    fn random(random: &mut ChaCha8Rng, shape: SampleShape) -> Self {
        let (width, height) = (shape.width as f32, shape.height as f32);
        let side = width.min(height);
        let outline =
            if random.next_u32().is_multiple_of(2) { Outline::Ellipse } else { Outline::Bar };
        let center = (uniform(random, 0.15, 0.85) * width, uniform(random, 0.15, 0.85) * height);
        let radii = match outline {
            Outline::Ellipse => {
                (uniform(random, 0.12, 0.35) * side, uniform(random, 0.12, 0.35) * side)
            }
            Outline::Bar => {
                (uniform(random, 0.25, 0.60) * side, uniform(random, 0.04, 0.10) * side)
            }
        };
        let (x, y) = (uniform(random, -1.0, 1.0), uniform(random, 0.05, 1.0));
        let length = (x * x + y * y).sqrt();
        let direction = (x / length, y / length);
        let colors = (0..shape.channels).map(|_| uniform(random, 0.0, 1.0)).collect();
        Self { outline, center, radii, direction, colors }
    }

    /// How much of a pixel the figure covers, in [0, 1].
    fn coverage(&self, x: f32, y: f32) -> f32 {
        let (dx, dy) = (x - self.center.0, y - self.center.1);
        let along = dx * self.direction.0 + dy * self.direction.1;
        let across = dy * self.direction.0 - dx * self.direction.1;
        let inside_pixels = match self.outline {
            Outline::Ellipse => {
                let (u, v) = (along / self.radii.0, across / self.radii.1);
                (1.0 - (u * u + v * v).sqrt()) * self.radii.0.min(self.radii.1)
            }
            Outline::Bar => (self.radii.0 - along.abs()).min(self.radii.1 - across.abs()),
        };
        (0.5 + inside_pixels / EDGE_PIXELS).clamp(0.0, 1.0)
    }
}

/// Draws one image into `out`: a gradient from top to bottom, then two to four figures.
fn draw(random: &mut ChaCha8Rng, shape: SampleShape, out: &mut [u8]) {
    let channels = shape.channels as usize;
    let top: Vec<f32> = (0..channels).map(|_| uniform(random, 0.0, 0.5)).collect();
    let bottom: Vec<f32> = (0..channels).map(|_| uniform(random, 0.0, 0.5)).collect();
    let num_figures = 2 + random.next_u32() % 3;
    let figures: Vec<Figure> = (0..num_figures).map(|_| Figure::random(random, shape)).collect();
    let width = shape.width as usize;
    for (index, pixel) in out.chunks_exact_mut(channels).enumerate() {
        let (x, y) = ((index % width) as f32 + 0.5, (index / width) as f32 + 0.5);
        let depth = y / shape.height as f32;
        let coverage: Vec<f32> = figures.iter().map(|figure| figure.coverage(x, y)).collect();
        for (channel, byte) in pixel.iter_mut().enumerate() {
            let mut value = top[channel] * (1.0 - depth) + bottom[channel] * depth;
            for (figure, covered) in figures.iter().zip(&coverage) {
                value = value * (1.0 - covered) + figure.colors[channel] * covered;
            }
            *byte = (value * 255.0 + 0.5) as u8;
        }
    }
}

/// Uniform in [low, high) with the 24 bits that a float holds exactly.
fn uniform(random: &mut ChaCha8Rng, low: f32, high: f32) -> f32 {
    let unit = (random.next_u32() >> 8) as f32 / 16_777_216.0;
    low + (high - low) * unit
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(config: &SyntheticConfig, split: &str, id: u64) -> Vec<u8> {
        let source = SyntheticSource::new(config, split).unwrap();
        let mut out = vec![0; source.shape().num_bytes()];
        source.read(id, Draw::NONE, &mut out).unwrap();
        out
    }

    #[test]
    fn an_image_is_a_function_of_seed_split_and_id() {
        let config = SyntheticConfig::default();
        let first = image(&config, "train", 7);
        assert_eq!(first, image(&config, "train", 7));
        assert_ne!(first, image(&config, "train", 8));
        assert_ne!(first, image(&config, "test", 7));
        assert_ne!(first, image(&SyntheticConfig { seed: 1, ..config }, "train", 7));
    }

    /// Pinned: a change here changes every figure measured on synthetic data.
    #[test]
    fn the_first_images_never_change() {
        let gray = image(&SyntheticConfig::default(), "train", 0);
        let config = SyntheticConfig { channels: 3, height: 9, width: 12, ..Default::default() };
        let color = image(&config, "test", 5);
        assert_eq!([crc32fast::hash(&gray), crc32fast::hash(&color)], PINNED);
    }
    const PINNED: [u32; 2] = [60_241_113, 2_242_063_696];

    /// Structure: a flat or a noisy image would leave a codebook nothing to learn.
    #[test]
    fn images_have_contrast_and_smooth_neighborhoods() {
        let config = SyntheticConfig::default();
        let (mut contrast, mut step) = (0.0, 0.0);
        for id in 0..64 {
            let pixels = image(&config, "train", id);
            let (low, high) = (pixels.iter().min().unwrap(), pixels.iter().max().unwrap());
            contrast += f64::from(high - low) / 64.0;
            let steps = pixels.windows(2).map(|pair| f64::from(pair[0].abs_diff(pair[1])));
            step += steps.sum::<f64>() / (64.0 * 784.0);
        }
        assert!(contrast > 80.0, "mean contrast {contrast} of 255");
        assert!(step < contrast / 8.0, "neighbors differ by {step} on average");
    }

    #[test]
    fn fingerprints_tell_configs_apart() {
        let config = SyntheticConfig::default();
        let of =
            |config: &SyntheticConfig| SyntheticSource::new(config, "train").unwrap().fingerprint();
        assert_eq!(of(&config), of(&config.clone()));
        assert_ne!(of(&config), of(&SyntheticConfig { num_test: 1, ..config.clone() }));
        assert!(SyntheticSource::new(&config, "valid").is_err());
    }
}
