//! Tensors between ranks.
//!
//! A [`Communicator`] sums, spreads and gathers tensors over the ranks of a run; [`connect`]
//! picks the one that fits how the process was started. [`Reducer`] is the one flat buffer in
//! which everything that a training step reduces travels together, and [`desync`] the check in
//! it that notices ranks which no longer agree. System libraries and their `unsafe` stop here.
//!
//! Nothing here waits without a deadline: where a library call cannot time out, a [`Watchdog`]
//! is armed around it and ends the process.
#![allow(unsafe_code)] // MPI, NCCL, CUDA and `_exit`; each block says what must hold

mod backend;
mod bytes;
mod calls;
mod config;
pub mod desync;
mod device;
mod download;
mod environment;
mod error;
mod host_bytes;
mod ras;
mod reducer;
mod upload;
mod watchdog;

pub use backend::{
    Communicator, Connection, InFlight, Mpi, Nccl, Solo, Threads, connect, rank_from_env,
};
pub use bytes::{all_gather_bytes, broadcast_bytes};
pub use calls::{Call, Calls};
pub use config::{Backend, CommConfig};
pub use device::{DeviceConfig, Mark, RankDevice, load_cuda};
pub use download::download;
pub use environment::{Environment, Starter, set_variables};
pub use error::CommError;
pub use host_bytes::HostBytes;
pub use nccl_rs::Error as NcclError;
pub use ras::{NcclSays, ask_nccl};
pub use reducer::{Piece, Reducer};
pub use upload::Uploads;
pub use watchdog::{Armed, Hang, Watchdog, aside, exit_now};
