//! The server over real connections, with a model whose answers can be checked by hand.

#![allow(clippy::unwrap_used)] // the lint knows `#[test]` functions, not their helpers

#[path = "../../examples/stand_in/engine.rs"]
mod engine;
#[path = "../../examples/stand_in/media.rs"]
mod media;

mod bad_input;
mod batching;
mod client;
mod kserve;
mod lifecycle;
mod limits;
mod plain;
mod server;
