//! Compiles the stand-in for NCCL and runs ranks on it, as threads.

use std::path::PathBuf;
use std::time::Duration;

use nccl_rs::{Communicator, DevicePointer, Error, Library, Options, UniqueId};

#[path = "../stand_in/compile.rs"]
mod compiler;

/// The stand-in with these faults, one file for each test: the loader would give two tests one
/// library, with one state.
pub(crate) fn compile(defines: &[&str]) -> PathBuf {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap().keep();
    compiler::compile(&folder, defines)
}

pub(crate) fn load(defines: &[&str]) -> Library {
    Library::open(&compile(defines)).unwrap()
}

/// Deadlines for a test: long enough for a loaded machine, where nothing is wrong.
pub(crate) fn options() -> Options {
    let deadline = Duration::from_secs(20);
    Options { init_deadline: deadline, deadline, ..Options::default() }
}

/// Deadlines for a test in which something never comes.
pub(crate) fn short() -> Options {
    let deadline = Duration::from_millis(300);
    Options { deadline, ..options() }
}

/// Runs `work` on every rank; the answers in order of ranks.
pub(crate) fn ranks<T: Send>(
    library: &Library,
    world_size: usize,
    options: &Options,
    work: impl Fn(Communicator) -> Result<T, Error> + Sync,
) -> Vec<Result<T, Error>> {
    let id = library.unique_id(Duration::from_secs(20)).unwrap();
    let init = |rank| Communicator::init(library, id, world_size, rank, options, || Ok(()));
    let (init, work) = (&init, &work);
    std::thread::scope(|scope| {
        let ranks: Vec<_> =
            (0..world_size).map(|rank| scope.spawn(move || init(rank).and_then(work))).collect();
        ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
    })
}

pub(crate) fn at<T>(values: &mut [T]) -> DevicePointer {
    values.as_mut_ptr().into()
}

/// An id that no other rank has.
pub(crate) fn lonely_id(library: &Library) -> UniqueId {
    library.unique_id(Duration::from_secs(20)).unwrap()
}
