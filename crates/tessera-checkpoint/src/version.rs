//! Versions of the format.

/// Version of the format that is written, and the newest that is read.
///
/// * 1: of some trainings without what version 2 added to the state ([`crate::upgrade`]).
/// * 2: names the attempt that wrote it; fewer files than ranks where the state is small.
pub(crate) const VERSION: u32 = 2;
/// The oldest version that is read.
pub(crate) const OLDEST: u32 = 1;
