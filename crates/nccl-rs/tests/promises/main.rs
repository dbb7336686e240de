//! The crate against a stand-in for NCCL: what it promises without a GPU. None of it says
//! anything about NCCL itself.
#![allow(unsafe_code, clippy::unwrap_used)]

mod collectives;
mod faults;
mod library;
mod ras;
mod split;
mod stand_in;
