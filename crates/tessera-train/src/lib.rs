//! The training program of Tessera, as a library: the only place where tensors between ranks
//! (`tessera-comm`), the mathematics (`tessera-nn`) and samples (`tessera-data`) meet.
//!
//! [`resolve`] makes a configuration, [`train`] runs it, [`evaluate_run`] measures the result. The [`engine`] knows steps,
//! sums, checkpoints and rows; a [`task`] knows what is trained. One optimiser step, with its only collective, is
//! [`Training::step`].

pub mod bench;
mod config;
pub mod engine;
mod error;
pub mod reference;
mod resolve;
pub mod task;

/// The worked examples of `docs/extending.md`, which are compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/extending.md")]
mod extending {}

pub use config::features::{FeatureKind, FeaturesConfig};
pub use config::groups::{Decays, GroupConfig, GroupsConfig};
pub use config::{CheckpointConfig, EvalConfig, LoopConfig, MetricsConfig, TrainConfig};
pub use engine::agreement::agree_on;
pub use engine::batch::{part_of, training_batches};
pub use engine::checkpoint;
pub use engine::clock::{Clock, Lap, StepTimes};
pub use engine::evaluate::{Split, evaluate};
pub use engine::evaluate_saved::{Request, evaluate_model, evaluate_run};
pub use engine::faults::Faults;
pub use engine::figures::{Figure, Row, Value};
pub use engine::metrics;
pub use engine::optim::{AdamW, OptimizerConfig};
pub use engine::run::{Ending, train};
pub use engine::run_folder::{Resume, RunFolder, Tenure};
pub use engine::scalars::{Arriving, NotFinite, Reduced, StepInput, read_scalars};
pub use engine::schedule::{ScheduleConfig, ScheduleKind};
pub use engine::setup::{Worker, check};
pub use engine::step::{Stepped, Sums};
pub use engine::trace::Trace;
pub use engine::training::Training;
pub use error::TrainError;
pub use resolve::{Resolved, resolve, resolve_data, shipped_names};
pub use task::autoencoder::{Autoencoder, reconstruct};
pub use task::networks::open_features;
pub use task::probe::Classifier;
pub use task::{Samples, Task};
pub use tessera_model::{Precision, Weights, Which};
