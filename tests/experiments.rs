//! The experiments of `configs/quantizers/`, small.

use std::path::PathBuf;

/// What makes an experiment small: the network, and synthetic data of 16 tokens a sample.
pub(crate) const SMALL: [&str; 11] = [
    "data.kind=synthetic",
    "data.synthetic.height=16",
    "data.synthetic.width=16",
    "data.synthetic.num_train=512",
    "data.synthetic.num_test=32",
    "model.backbone.channels=16",
    "model.backbone.residual_layers=1",
    "model.backbone.residual_channels=8",
    "train.precision=fp64",
    "train.global_batch=101",
    "eval.every=0",
];

pub(crate) fn file(name: &str) -> PathBuf {
    crate::root().join(format!("configs/quantizers/{name}.toml"))
}
