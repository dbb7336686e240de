//! Pictures at another size, sound at another rate. Numbers in, numbers out: no files, no formats.
//!
//! The two libraries that do it are mostly generic, and are compiled where they are used: megabytes of code. Here
//! that happens once, and not with each change of the crate that decodes.

mod picture;
mod sound;

pub use picture::{Cut, Picture, resize};
pub use sound::resample;
