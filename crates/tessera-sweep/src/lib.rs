//! Sweeps: many trainings that differ in some values, and what comes of them.
//!
//! A [`Sweep`] names a base configuration, a [`Space`] of values, how points of it are chosen and how
//! long each is trained, and a metric. [`run`] trains each point as a run of its own, by a launcher in a
//! process of its own, several at a time, until all is done; [`report`] shows what has come of it.
//!
//! Three parts decide, each a function of what has been written down: `sampler` which point a new trial
//! gets, `schedule` which trial goes on, `run` what is started when. Decisions are in a SQLite file before
//! they are acted on, so a sweep that was killed goes on as it would have; with one trial at a time, or
//! a strategy that does not look at results out of order, it ends with the same table.
//!
//! Links no torch: a trial is a program.

mod display;
mod ending;
mod error;
mod identity;
pub mod report;
mod run;
mod sampler;
mod schedule;
mod space;
mod spec;
mod store;
mod tpe;
mod trial;

pub use ending::Ending;
pub use error::SweepError;
pub use run::{Options, run};
pub use sampler::{Points, Tried};
pub use schedule::{Next, Schedule, Standing};
pub use space::{Domain, Parameter, Point, Space};
pub use spec::{Budget, FIGURES, Goal, Metric, Report, Sampler, Search, Strategy, Sweep, Trials};
pub use store::{About, Job, Outcome, Store, Trial};
pub use trial::{Slot, run_dir, slots};

/// Name of the file of a sweep's state in its folder.
pub const STATE: &str = "sweep.db";
