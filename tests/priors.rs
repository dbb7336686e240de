//! Priors over codes: exact over ranks and micro-batches, resumed bit for bit, as threads.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::TempDir;
use tessera_data::tokens::{
    PlannedShard, TokenLevel, TokenPlan, TokenSetWriter, TokenShard, Tokenizer,
};
use tessera_data::{DataConfig, DataError, DataKind, Draw, SampleShape, Source};
use tessera_nn::prior::PriorConfig;
use tessera_nn::prior::config::{
    AutoregressiveConfig, Levels, LossWeight, MaskedConfig, NetworkConfig, Positions,
};
use tessera_train::task::TaskKind;
use tessera_train::{Precision, TrainConfig, resolve};

use crate::quantizers::{ALL_STEPS, exact_in_parts, exact_over_ranks};
use crate::root;

/// A number that looks drawn: the same on every machine.
fn mixed(number: u64) -> u64 {
    let mixed = (number ^ (number >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32
}

/// So many small pictures of three classes.
struct Pictures(u64);

impl Source for Pictures {
    fn num_samples(&self) -> u64 {
        self.0
    }

    fn shape(&self) -> SampleShape {
        SampleShape::image(1, 4, 4)
    }

    fn read(&self, id: u64, _draw: Draw, out: &mut [u8]) -> Result<(), DataError> {
        out.fill(id as u8);
        Ok(())
    }

    fn fingerprint(&self) -> String {
        format!("{:064}", self.0)
    }

    fn label(&self, id: u64) -> Result<Option<i64>, DataError> {
        Ok(Some((id % 3) as i64))
    }

    fn has_labels(&self) -> bool {
        true
    }

    fn num_classes(&self) -> Result<Option<u64>, DataError> {
        Ok(Some(3))
    }
}

/// A token set of `levels`, with classes and two variants.
fn token_set(folder: &Path, levels: &[TokenLevel]) -> PathBuf {
    let out = folder.join("tokens");
    let data = DataConfig { kind: DataKind::Synthetic, ..DataConfig::default() };
    let splits: [(&str, Arc<dyn Source>); 2] =
        [("train", Arc::new(Pictures(64))), ("test", Arc::new(Pictures(8)))];
    let tokenizer = Tokenizer { hash: "0".repeat(64), levels: levels.to_vec() };
    let variants = ["plain", "flip"].map(str::to_owned);
    let plan = TokenPlan::new(&tokenizer, &variants, &data, &splits, 32).unwrap();
    let writer = TokenSetWriter::begin(&out, &plan).unwrap();
    for shard in plan.shards() {
        let labels = shard.samples.clone().map(|id| splits[shard.split].1.label(id).unwrap());
        let content = TokenShard {
            codes: levels.iter().enumerate().map(|(at, level)| codes(&shard, at, level)).collect(),
            labels: labels.collect(),
            ids: shard.samples.clone().collect(),
            skipped: Vec::new(),
        };
        writer.write(&shard, &content).unwrap();
    }
    writer.finish().unwrap();
    out
}

/// Codes `[n, 2, N]`, the low ones more often.
fn codes(shard: &PlannedShard, level: usize, of: &TokenLevel) -> Vec<u32> {
    let num = of.num_positions() as u64;
    let mut codes = Vec::new();
    for id in shard.samples.clone() {
        for at in 0..2 * num {
            let key = (id * 1000 + at) * 10 + level as u64 + 7 * shard.split as u64;
            codes.push((mixed(key) % u64::from(of.num_codes)).min(mixed(key + 5) % 9) as u32);
        }
    }
    codes
}

fn level(num_codes: u32, axes: &[u32]) -> TokenLevel {
    TokenLevel { num_codes, axes: axes.to_vec() }
}

/// A small training in float64 of a prior over such codes, with all that is drawn.
fn config(folder: &TempDir, levels: &[TokenLevel], prior: PriorConfig) -> TrainConfig {
    let file = root().join("configs/smoke.toml");
    let mut config = resolve(Some(&file), [], &[], None).unwrap().config;
    config.task = TaskKind::Prior;
    config.data = DataConfig {
        kind: DataKind::Tokens,
        path: token_set(folder.path(), levels),
        ..DataConfig::default()
    };
    config.prior = prior;
    config.train.precision = Precision::Fp64;
    // Five samples and twice four on three ranks, in parts of three and less.
    config.train.global_batch = 13;
    config.train.ema_decay = 0.9;
    let optimizer = &mut config.optimizer;
    (optimizer.learning_rate, optimizer.weight_decay) = (2e-3, 0.05);
    optimizer.clip_grad_norm = 0.5;
    config
}

fn network() -> NetworkConfig {
    NetworkConfig { width: 16, layers: 2, heads: 2, dropout: 0.1, ..NetworkConfig::default() }
}

fn autoregressive(levels: Levels) -> PriorConfig {
    PriorConfig::Autoregressive(AutoregressiveConfig {
        network: network(),
        levels,
        inner_layers: 1,
        keep_input: 0.9,
        hide_class: 0.3,
        label_smoothing: 0.1,
        ..AutoregressiveConfig::default()
    })
}

fn masked(weight: LossWeight) -> PriorConfig {
    let network = NetworkConfig { positions: Positions::Rotary, ..network() };
    PriorConfig::Masked(MaskedConfig {
        network,
        weight,
        hide_class: 0.3,
        ..MaskedConfig::default()
    })
}

/// Every kind of prior, with the codes that it is over.
fn priors() -> Vec<(&'static str, Vec<TokenLevel>, PriorConfig)> {
    let one = || vec![level(32, &[3, 3])];
    let residual = || vec![level(32, &[2, 2]), level(16, &[2, 2])];
    let hierarchy = || vec![level(32, &[4, 4]), level(16, &[2, 2])];
    let factors = match autoregressive(Levels::Flatten) {
        PriorConfig::Autoregressive(config) => {
            PriorConfig::Autoregressive(AutoregressiveConfig { factors: vec![2, 3], ..config })
        }
        PriorConfig::Masked(_) => unreachable!("it is autoregressive"),
    };
    vec![
        ("autoregressive", one(), autoregressive(Levels::Flatten)),
        ("levels after one another", hierarchy(), autoregressive(Levels::Flatten)),
        ("delayed levels", residual(), autoregressive(Levels::Delay)),
        ("levels in depth", residual(), autoregressive(Levels::Depth)),
        ("codes in parts", one(), factors),
        ("masked", hierarchy(), masked(LossWeight::Token)),
        ("masked, by samples", one(), masked(LossWeight::Sample)),
    ]
}

#[test]
fn every_prior_is_exact_over_ranks() {
    for (name, levels, prior) in priors() {
        let folder = TempDir::new().unwrap();
        exact_in_parts(name, config(&folder, &levels, prior));
    }
}

mod full {
    use super::*;

    #[test]
    fn every_prior_is_exact_over_one_to_four_ranks() {
        for (name, levels, prior) in priors() {
            let folder = TempDir::new().unwrap();
            let config = config(&folder, &levels, prior);
            exact_over_ranks(name, config, &[2, 3, 4], &[1, 5, 7], ALL_STEPS);
        }
    }
}
