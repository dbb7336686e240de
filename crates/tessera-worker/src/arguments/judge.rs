//! The arguments of `tessera judge`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use tessera_apply::JudgeOptions;
use tessera_train::{FeatureKind, FeaturesConfig};

use super::apply::{ComputeArguments, DataArguments, ModelArguments};

#[derive(Debug, Args)]
pub(crate) struct JudgeArguments {
    #[command(flatten)]
    pub(crate) model: ModelArguments,
    #[command(flatten)]
    pub(crate) compute: ComputeArguments,
    #[command(flatten)]
    pub(crate) data: DataArguments,
    /// What is judged: a folder of `tessera sample`, a token set, a safetensors file of codes, or a folder of files.
    #[arg(long, value_name = "DIR|FILE")]
    samples: PathBuf,
    /// Split of the data with the samples that no training saw.
    #[arg(long, value_name = "NAME", default_value = "test")]
    reference: String,
    /// Run with task = "probe" that finds classes; where its head is convolutional and reads pixels, spectrograms of sound or frames of film, features are its own too.
    #[arg(long, value_name = "DIR")]
    pub(crate) classifier: Option<PathBuf>,
    /// Network whose features are compared [default: probe where there is a classifier, random otherwise]
    #[arg(long, value_enum, value_name = "KIND")]
    features: Option<Network>,
    /// File or run folder of the network [default for probe: the classifier]
    #[arg(long, value_name = "PATH")]
    features_path: Option<PathBuf>,
    /// Samples at most, and as many of all that they are compared with. Figures of other numbers cannot be compared.
    #[arg(long, value_name = "N", default_value_t = 5000)]
    num: u64,
    /// Training samples at most, among which copies are looked for.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    num_train: u64,
    /// Which neighbour's distance is the size of a ball of precision, recall, density and coverage.
    #[arg(long, value_name = "K", default_value_t = 5)]
    neighbors: i64,
    /// Folder for judge.json and nearest.png [default: the folder of the samples]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// A network whose features are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Network {
    /// A small convolutional network with orthogonal weights from a fixed seed.
    Random,
    /// The convolutional head of a probe on pixels, spectrograms or frames.
    Probe,
    /// VGG16 with the heads of LPIPS, from a safetensors file.
    Vgg,
    /// A TorchScript file; the distance is FID where that is its Inception network.
    Torchscript,
}

impl JudgeArguments {
    /// What is judged, and by how many.
    pub(crate) fn options(&self) -> JudgeOptions {
        let beside = match self.samples.is_dir() {
            true => self.samples.clone(),
            false => self.samples.parent().map(PathBuf::from).unwrap_or_default(),
        };
        JudgeOptions {
            samples: self.samples.clone(),
            split: self.reference.clone(),
            num: self.num,
            num_train: self.num_train,
            neighbors: self.neighbors,
            out: self.out.clone().unwrap_or(beside),
        }
    }

    /// The network whose features are compared.
    pub(crate) fn features(&self) -> FeaturesConfig {
        let kind = self.features.unwrap_or(match self.classifier {
            Some(_) => Network::Probe,
            None => Network::Random,
        });
        let network = match kind {
            Network::Random => FeatureKind::Random,
            Network::Probe => FeatureKind::Probe,
            Network::Vgg => FeatureKind::Vgg,
            Network::Torchscript => FeatureKind::TorchScript,
        };
        let own = self.classifier.as_ref().filter(|_| kind == Network::Probe);
        let path = self.features_path.as_ref().or(own).cloned().unwrap_or_default();
        FeaturesConfig { network, path, ..FeaturesConfig::default() }
    }
}
