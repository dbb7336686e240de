//! What spectra `loss.mel` and `loss.stft` compare: the `[spectral]` table.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tessera_nn::loss::MelForm;
use tessera_nn::loss::spectral::{RESOLUTIONS, Resolution, Stft, WindowMels};

/// Most instants of a transform.
const MOST_SIZE: i64 = 1 << 16;

/// The `[spectral]` table, for sound: spectrograms that `loss.mel` and `loss.stft` compare. Lists that are empty stand for
/// the published values, as far as a sample is long enough for them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SpectralConfig {
    /// Whose mel distance `loss.mel` is.
    pub form: MelForm,
    /// Instants of each of its windows, multiples of 4 from 8 to 65536; empty: those of `form`, 32 to 2048 or 64 to 1024.
    pub windows: Vec<i64>,
    /// Filters at each of these windows; empty where `windows` is: those of `form`, 5 to 320 or 64 at each.
    pub mels: Vec<i64>,
    /// Instants of each transform of `loss.stft`, 8 to 65536; empty: 1024, 2048 and 512.
    pub stft_sizes: Vec<i64>,
    /// Instants of its windows, 1 to the size of their transform; empty where `stft_sizes` is: 600, 1200 and 240.
    pub stft_windows: Vec<i64>,
    /// Instants from a frame to the next, 1 to the window; empty where `stft_sizes` is: 120, 240 and 50.
    pub stft_hops: Vec<i64>,
}

impl SpectralConfig {
    /// What is wrong with it, whatever its data, if anything.
    pub(super) fn validate(&self) -> Result<(), String> {
        same_len(("windows", &self.windows), ("mels", &self.mels))?;
        same_len(("stft_sizes", &self.stft_sizes), ("stft_windows", &self.stft_windows))?;
        same_len(("stft_sizes", &self.stft_sizes), ("stft_hops", &self.stft_hops))?;
        for &WindowMels { window, mels } in &self.own_scales() {
            if window % 4 != 0 || !(8..=MOST_SIZE).contains(&window) {
                return Err(format!(
                    "spectral.windows should be multiples of 4 from 8 to {MOST_SIZE}, found {window}"
                ));
            }
            let most = window / 2 + 1;
            if !(1..=most).contains(&mels) {
                return Err(format!(
                    "spectral.mels should be from 1 to {most} at a window of {window}, which has so many bins, found {mels}"
                ));
            }
        }
        for &Resolution { size, window, hop } in &self.own_resolutions() {
            for (key, most, found) in [
                ("stft_sizes", MOST_SIZE, size),
                ("stft_windows", size, window),
                ("stft_hops", window, hop),
            ] {
                let least = if key == "stft_sizes" { 8 } else { 1 };
                if !(least..=most).contains(&found) {
                    return Err(format!(
                        "spectral.{key} should be from {least} to {most} at a transform of {size}, found {found}"
                    ));
                }
            }
        }
        Ok(())
    }

    /// The scales of `loss.mel` for sound of `len` instants, `sample_rate` of them a second.
    ///
    /// # Errors
    ///
    /// The key and what is wrong with it for such sound: a window that is longer, filters that hear nothing.
    pub(crate) fn scales(&self, len: i64, sample_rate: i64) -> Result<Vec<WindowMels>, String> {
        if sample_rate == 0 {
            return Err("loss.mel needs sound whose sample rate is known, and these data do not \
                        tell it: set it to 0"
                .to_owned());
        }
        let is_long_enough = |window: i64| Stft::centered(window).fits(len);
        if self.windows.is_empty() {
            // As published, filters without a bin included.
            let mut scales = self.form.scales();
            scales.retain(|scale| is_long_enough(scale.window));
            return match scales.is_empty() {
                true => Err(too_short("windows", len)),
                false => Ok(scales),
            };
        }
        for scale in self.own_scales() {
            let WindowMels { window, mels } = scale;
            if !is_long_enough(window) {
                return Err(too_long("windows", window, len));
            }
            let num_empty = self.form.bank(scale, sample_rate).num_empty();
            if num_empty > 0 {
                return Err(format!(
                    "spectral.mels has {mels} filters at a window of {window}, of which {num_empty} lie between two bins at \
                     {sample_rate} Hz and hear nothing: ask for fewer"
                ));
            }
        }
        Ok(self.own_scales())
    }

    /// The resolutions of `loss.stft` for sound of `len` instants.
    ///
    /// # Errors
    ///
    /// The key and what is wrong with it for such sound: a transform that is longer.
    pub(crate) fn resolutions(&self, len: i64) -> Result<Vec<Resolution>, String> {
        let fits = |resolution: &Resolution| resolution.stft().fits(len);
        if self.stft_sizes.is_empty() {
            let resolutions: Vec<_> = RESOLUTIONS.into_iter().filter(fits).collect();
            return match resolutions.is_empty() {
                true => Err(too_short("stft_sizes", len)),
                false => Ok(resolutions),
            };
        }
        let own = self.own_resolutions();
        match own.iter().find(|resolution| !fits(resolution)) {
            Some(resolution) => Err(too_long("stft_sizes", resolution.size, len)),
            None => Ok(own),
        }
    }

    fn own_scales(&self) -> Vec<WindowMels> {
        let pairs = self.windows.iter().zip(&self.mels);
        pairs.map(|(&window, &mels)| WindowMels { window, mels }).collect()
    }

    fn own_resolutions(&self) -> Vec<Resolution> {
        let sizes = self.stft_sizes.iter().zip(&self.stft_windows).zip(&self.stft_hops);
        sizes.map(|((&size, &window), &hop)| Resolution { size, window, hop }).collect()
    }
}

fn same_len(first: (&str, &[i64]), second: (&str, &[i64])) -> Result<(), String> {
    if first.1.len() == second.1.len() {
        return Ok(());
    }
    Err(format!(
        "spectral.{} has {} numbers and spectral.{} has {}: give as many of both, or leave both out",
        first.0,
        first.1.len(),
        second.0,
        second.1.len()
    ))
}

fn too_long(key: &str, found: i64, len: i64) -> String {
    format!("spectral.{key} has {found}, longer than a sample of {len} instants: leave it out")
}

fn too_short(key: &str, len: i64) -> String {
    format!(
        "a sample of {len} instants is shorter than each of the published windows: set spectral.{key} to shorter ones"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mel(windows: &[i64], mels: &[i64]) -> SpectralConfig {
        let (windows, mels) = (windows.to_vec(), mels.to_vec());
        SpectralConfig { windows, mels, ..SpectralConfig::default() }
    }

    fn stft(sizes: &[i64], windows: &[i64], hops: &[i64]) -> SpectralConfig {
        let [stft_sizes, stft_windows, stft_hops] = [sizes, windows, hops].map(<[i64]>::to_vec);
        SpectralConfig { stft_sizes, stft_windows, stft_hops, ..SpectralConfig::default() }
    }

    #[test]
    fn published_windows_are_those_that_a_sample_is_long_enough_for() {
        let config = SpectralConfig::default();
        let windows = |config: &SpectralConfig, len| -> Vec<i64> {
            config.scales(len, 8000).unwrap().iter().map(|scale| scale.window).collect()
        };
        assert_eq!(windows(&config, 300), [32, 64, 128, 256]);
        assert_eq!(windows(&config, 8000).len(), 7);
        let encodec = SpectralConfig { form: MelForm::Encodec, ..SpectralConfig::default() };
        assert_eq!(windows(&encodec, 8000), [64, 128, 256, 512, 1024]);
        assert_eq!(config.resolutions(1500).unwrap().len(), 2);
        let short = config.scales(31, 8000).unwrap_err();
        assert!(short.ends_with("set spectral.windows to shorter ones"), "{short}");
        assert!(config.resolutions(511).unwrap_err().contains("set spectral.stft_sizes"));
        assert!(config.scales(8000, 0).unwrap_err().starts_with("loss.mel needs sound whose"));
    }

    /// By hand: at 16 kHz a window of 64 has bins 250 Hz apart. Half of the rate is 45.3 of Slaney's mels, so
    /// the first of 30 filters ends at 2 x 45.3 / 31 x 66.7 = 195 Hz, before the first bin.
    #[test]
    fn windows_and_filters_that_hear_nothing_are_named() {
        assert_eq!(mel(&[64], &[10]).scales(64, 8000).map(|scales| scales.len()), Ok(1));
        let long = mel(&[64, 128], &[10, 20]).scales(100, 8000).unwrap_err();
        assert_eq!(
            long,
            "spectral.windows has 128, longer than a sample of 100 instants: leave it out"
        );
        let empty = mel(&[64], &[30]).scales(100, 16_000).unwrap_err();
        assert!(empty.starts_with("spectral.mels has 30 filters at a window of 64, of"), "{empty}");
        let long = stft(&[128], &[100], &[25]).resolutions(100).unwrap_err();
        assert!(long.starts_with("spectral.stft_sizes has 128, longer than a sample"), "{long}");
    }

    #[test]
    fn lists_that_cannot_be_are_refused_with_their_key() {
        for config in [SpectralConfig::default(), mel(&[64], &[10]), stft(&[9], &[8], &[8])] {
            assert_eq!(config.validate(), Ok(()));
        }
        for (config, problem) in [
            (mel(&[64], &[]), "spectral.windows has 1 numbers and spectral.mels has 0"),
            (stft(&[64], &[64], &[]), "spectral.stft_sizes has 1 numbers and spectral.stft_hops"),
            (mel(&[66], &[10]), "spectral.windows should be multiples of 4 from 8 to 65536"),
            (mel(&[64], &[34]), "spectral.mels should be from 1 to 33 at a window of 64"),
            (stft(&[4], &[4], &[1]), "spectral.stft_sizes should be from 8 to 65536"),
            (stft(&[64], &[65], &[1]), "spectral.stft_windows should be from 1 to 64"),
            (stft(&[64], &[60], &[0]), "spectral.stft_hops should be from 1 to 60"),
        ] {
            let found = config.validate().unwrap_err();
            assert!(found.starts_with(problem), "{found}");
        }
    }
}
