//! Rows, pictures and sounds of a run for trackers of other people: W&B, MLflow and Trackio.
//!
//! A run folder is followed from outside, so nothing here can disturb a training. [`Tracking`] takes one run to one
//! tracker: rows in the order of their steps, each once, from a [`Cursor`] that survives kills. A row is sent when
//! a committed checkpoint or the end of the run has made it final, since a resume takes back what is behind its
//! checkpoint; with [`Options::is_eager`] it is sent at once, and may then be there twice. [`Follower`] stays with
//! several runs until they have ended, and waits with growing pauses for a tracker that does not answer.
//!
//! W&B gets an offline run folder, MLflow requests of its REST interface, Trackio a table. No program or library of
//! theirs is needed here. Nothing here knows torch, or what a model is.

mod cursor;
mod error;
mod figures;
mod follow;
mod lines;
mod mlflow;
mod run;
mod source;
mod times;
mod tracker;
mod tracking;
mod trackio;
mod wandb;

pub use cursor::{Cursor, ServerRun, Written};
pub use error::TrackError;
pub use follow::{Follower, Outcome, Pauses};
pub use lines::Mark;
pub use run::Ending;
pub use source::Position;
pub use times::Moment;
pub use tracking::{Options, Target, Tracking};
