//! The training program of Tessera, as a library: the only place where tensors between ranks
//! (`tessera-comm`), the mathematics (`tessera-nn`) and samples (`tessera-data`) meet.
//!
//! [`resolve`] makes a configuration, [`train`] runs it, [`evaluate_run`] measures the result.
//! One optimiser step, with its only collective, is [`Training::step`].

pub mod checkpoint;
mod clock;
mod config;
mod coordinator;
mod error;
mod evaluate;
mod first_batch;
pub mod metrics;
mod optim;
mod resolve;
mod run_folder;
mod schedule;
mod step;
mod trainer;

pub use clock::{Clock, Lap, StepTimes};
pub use config::{CheckpointConfig, EvalConfig, LoopConfig, MetricsConfig, Precision, TrainConfig};
pub use coordinator::agree_on;
pub use error::TrainError;
pub use evaluate::{Evaluation, Split, Which, evaluate, evaluate_run, reconstruct};
pub use first_batch::start_from;
pub use optim::{AdamW, OptimizerConfig};
pub use resolve::{Resolved, resolve};
pub use run_folder::{Resume, RunFolder};
pub use schedule::{ScheduleConfig, ScheduleKind};
pub use step::{Reduced, StepInput, Training, batch_images, read_scalars};
pub use trainer::{Ending, Worker, check, train};
