//! The training program of Tessera, as a library: the only place where tensors between ranks
//! (`tessera-comm`), the mathematics (`tessera-nn`) and samples (`tessera-data`) meet.
//!
//! [`resolve`] makes a configuration, [`train`] runs it, [`evaluate_run`] measures the result.
//! One optimiser step, with its only collective, is [`Training::step`].

mod batch;
pub mod bench;
pub mod checkpoint;
mod clock;
mod config;
mod coordinator;
mod error;
mod evaluate;
mod faults;
mod first_batch;
pub mod metrics;
mod optim;
mod pictures;
pub mod reference;
mod resolve;
mod run_folder;
mod scalars;
mod schedule;
mod settings;
mod setup;
mod step;
mod trace;
mod trainer;
mod training;

pub use batch::{batch_images, training_batches};
pub use clock::{Clock, Lap, StepTimes};
pub use config::{CheckpointConfig, EvalConfig, LoopConfig, MetricsConfig, Precision, TrainConfig};
pub use coordinator::agree_on;
pub use error::TrainError;
pub use evaluate::{Evaluation, Split, Which, evaluate, evaluate_run, reconstruct};
pub use faults::Faults;
pub use first_batch::start_from;
pub use optim::{AdamW, OptimizerConfig};
pub use resolve::{Resolved, resolve};
pub use run_folder::{Resume, RunFolder, Tenure};
pub use scalars::{Arriving, NotFinite, Reduced, read_scalars};
pub use schedule::{ScheduleConfig, ScheduleKind};
pub use setup::{Worker, check};
pub use step::Stepped;
pub use trace::Trace;
pub use trainer::{Ending, train};
pub use training::{StepInput, Training};
