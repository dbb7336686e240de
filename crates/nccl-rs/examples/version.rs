//! Which NCCL this machine has. Needs no GPU.
//!
//! ```text
//! cargo run -p nccl-rs --example version
//! ```
#![allow(clippy::print_stdout)] // a person reads it

use nccl_rs::{Error, Library};

fn main() -> std::process::ExitCode {
    match print_version() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn print_version() -> Result<(), Error> {
    println!("{:?}", Library::load()?);
    Ok(())
}
