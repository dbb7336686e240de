//! NCCL for Rust: collectives between GPUs that cannot hang silently.
//!
//! The library is found at run time, so a program that uses this crate builds and starts on
//! machines without a GPU; there, [`Library::load`] answers with an error that says what was
//! tried. A [`Communicator`] is always a non-blocking one and owns the only thread that enters
//! NCCL, which gives three promises that NCCL's C interface leaves to its caller:
//!
//! * **Every call has a deadline.** What NCCL reports as in progress is polled until the deadline
//!   ([`Error::Deadline`]); a call that does not even return is given up ([`Error::Stuck`]).
//! * **Abort works from any thread, at any time.** NCCL allows it only while no other thread is
//!   inside the library; here one thread makes all calls and looks at the request while it polls,
//!   also for another communicator that shares the thread.
//! * **The two ends are two functions.** [`Communicator::finish`] flushes and frees,
//!   [`Communicator::abort`] gives up what is in flight. Dropping without either is an abort.
//!
//! Between calls the thread looks for asynchronous errors, so [`Communicator::failure`] tells of
//! a lost peer without entering NCCL.
//!
//! Collectives are enqueued on a CUDA stream of the caller's, on memory of the caller's: those
//! calls are `unsafe`, and their documentation says what must hold. Streams, events and memory
//! are left to whoever owns them (`cudarc`, libtorch).
//!
//! What a hang was about, NCCL itself can be asked: [`ras`].
//!
//! See NVIDIA's user guide, <https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/>.
#![allow(unsafe_code)] // NCCL's C interface; each block says what must hold

#[cfg(not(target_os = "linux"))]
compile_error!("nccl-rs works on Linux alone, as NCCL does");

#[doc = include_str!("../README.md")]
#[cfg(doctest)]
struct Readme;

mod communicator;
mod elf;
mod error;
mod library;
mod op;
mod options;
pub mod ras;
mod state;
mod submitted;
mod sys;
mod thread;

pub use communicator::Communicator;
pub use error::{Attempt, Error};
pub use library::{LIBRARY_VARIABLE, Library, UniqueId, Version};
pub use op::{DataType, DevicePointer, Op, ReduceOp, Stream};
pub use options::Options;
pub use submitted::Submitted;
