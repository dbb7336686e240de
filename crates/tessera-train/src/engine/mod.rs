//! What is the same for every training: steps, sums over ranks, the optimiser, checkpoints, rows.
//!
//! What is trained is a [`Task`](crate::task::Task), of which nothing here knows more than that trait says. Every
//! collective of a step is in `step.rs`.

pub(crate) mod agreement;
pub(crate) mod average;
pub(crate) mod batch;
pub mod checkpoint;
pub(crate) mod clip;
pub(crate) mod clock;
pub(crate) mod coordinator;
pub mod evaluate;
pub(crate) mod evaluate_saved;
pub(crate) mod faults;
pub mod figures;
pub(crate) mod first_batch;
mod memory;
pub mod metrics;
pub(crate) mod optim;
pub(crate) mod run;
pub(crate) mod run_folder;
mod saving;
pub(crate) mod scalars;
pub(crate) mod schedule;
pub(crate) mod settings;
pub(crate) mod setup;
pub(crate) mod step;
pub(crate) mod trace;
pub(crate) mod training;
pub(crate) mod warm_start;
pub(crate) mod window;
