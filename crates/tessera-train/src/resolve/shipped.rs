//! Configurations that the program brings, so that one that was installed without its sources has them too: `--config @fashion_mnist`.

use std::path::Path;

use tessera_control::{SHIPPED_MARK, shipped_name};

use crate::error::TrainError;

/// Names and texts of the files in `configs`.
macro_rules! shipped {
    ($($name:literal),* $(,)?) => {
        const SHIPPED: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../../configs/", $name, ".toml")))),*];
    };
}

shipped![
    "fashion_mnist",
    "fashion_mnist_classifier",
    "fashion_mnist_gan",
    "fashion_mnist_masked",
    "fashion_mnist_prior",
    "fashion_mnist_probe",
    "fashion_mnist_tokenizer",
    "film_64",
    "film_64_classifier",
    "film_64_prior",
    "photo_patches",
    "photos_64",
    "photos_hierarchy",
    "photos_prior",
    "quantizers/bsq",
    "quantizers/cosine",
    "quantizers/ema",
    "quantizers/ema_anchors",
    "quantizers/ema_entropy",
    "quantizers/ema_kmeans",
    "quantizers/ema_projected",
    "quantizers/ema_rotation",
    "quantizers/ema_sampled",
    "quantizers/ema_split",
    "quantizers/fsq",
    "quantizers/fsq_symmetric",
    "quantizers/gradient",
    "quantizers/gradient_cosine",
    "quantizers/gradient_orthogonal",
    "quantizers/grouped",
    "quantizers/grouped_residual",
    "quantizers/heads",
    "quantizers/lfq",
    "quantizers/residual",
    "quantizers/residual_fsq",
    "quantizers/residual_lfq",
    "quantizers/residual_projected",
    "quantizers/residual_shared",
    "quantizers/simvq",
    "smoke",
    "speech_8k",
    "speech_8k_classifier",
    "speech_8k_gan",
    "speech_8k_prior",
    "titok_64",
];

/// Names of the configurations that the program brings, as they are given, such as `@smoke`.
pub fn shipped_names() -> impl Iterator<Item = String> {
    SHIPPED.iter().map(|(name, _)| format!("{SHIPPED_MARK}{name}"))
}

/// The text of a configuration that is named so; none where the path is one of a file.
///
/// # Errors
///
/// [`TrainError::BadInput`] names those that there are.
pub(super) fn text_of(path: &Path) -> Result<Option<&'static str>, TrainError> {
    let Some(name) = shipped_name(path) else {
        return Ok(None);
    };
    let name = name.strip_suffix(".toml").unwrap_or(name);
    match SHIPPED.iter().find(|(shipped, _)| *shipped == name) {
        Some((_, text)) => Ok(Some(text)),
        None => {
            let names: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
            Err(TrainError::BadInput(format!(
                "no configuration @{name} comes with Tessera: name a file, or one of @{}",
                names.join(", @")
            )))
        }
    }
}

/// The name of a configuration, without the mark of a shipped one.
pub(super) fn plain(name: &std::ffi::OsStr) -> &std::ffi::OsStr {
    match shipped_name(name.as_ref()) {
        Some(name) => name.as_ref(),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve;

    #[test]
    fn every_configuration_for_one_run_is_shipped() {
        let configs =
            Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap()).join("../../configs");
        let in_folder = |folder: &str| {
            let entries = std::fs::read_dir(configs.join(folder)).unwrap();
            let paths = entries.map(|entry| entry.unwrap().path());
            let files = paths.filter(|path| path.extension().is_some_and(|end| end == "toml"));
            let name = |path: std::path::PathBuf| {
                Path::new(folder).join(path.file_stem().unwrap()).to_str().unwrap().to_owned()
            };
            files.map(name).collect::<Vec<String>>()
        };
        let mut names = [in_folder(""), in_folder("quantizers")].concat();
        names.sort();
        assert_eq!(names, SHIPPED.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    }

    #[test]
    fn a_shipped_configuration_is_the_one_of_its_file() {
        let file = Path::new(&std::env::var("CARGO_MANIFEST_DIR").unwrap())
            .join("../../configs/quantizers/fsq.toml");
        let shipped = resolve(Some(Path::new("@quantizers/fsq")), [], &[], None).unwrap();
        let of_file = resolve(Some(&file), [], &[], None).unwrap();
        assert_eq!(shipped.config, of_file.config);
        assert_eq!(shipped.run_dir, Path::new("runs/fsq"));
        let reference = resolve(Some(Path::new("@fashion_mnist")), [], &[], None).unwrap();
        assert_eq!(reference.run_dir, Path::new("runs/fashion_mnist"));
        let error = resolve(Some(Path::new("@nothing")), [], &[], None).unwrap_err();
        assert!(error.to_string().contains("@fashion_mnist"), "{error}");
    }
}
