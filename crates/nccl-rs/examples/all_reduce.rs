//! Sums a vector over all GPUs of this machine, one thread a GPU, and checks the sum.
//!
//! ```text
//! cargo run --release -p nccl-rs --example all_reduce
//! ```
#![allow(unsafe_code, clippy::print_stdout)] // a person reads it

use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::{CudaContext, DevicePtrMut};
use nccl_rs::{
    Communicator, DataType, DevicePointer, Library, Options, ReduceOp, Stream, UniqueId,
};

const COUNT: usize = 1 << 20;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let library = Library::load()?;
    println!("{library:?}");
    // SAFETY: it only tries to open the library.
    if !unsafe { cudarc::driver::sys::is_culib_present() } {
        return Err("there is no NVIDIA driver on this machine (libcuda.so.1)".into());
    }
    let world_size = usize::try_from(CudaContext::device_count()?)?;
    let id = library.unique_id(Duration::from_secs(20))?;
    std::thread::scope(|scope| {
        let ranks: Vec<_> = (0..world_size)
            .map(|rank| {
                scope.spawn({
                    let library = &library;
                    move || run(library, id, world_size, rank)
                })
            })
            .collect();
        ranks.into_iter().try_for_each(|rank| rank.join().expect("no rank panics"))
    })?;
    println!("the sum over {world_size} GPUs is right");
    Ok(())
}

fn run(library: &Library, id: UniqueId, world_size: usize, rank: usize) -> Result<(), Failure> {
    let context = CudaContext::new(rank)?;
    let stream = context.new_stream()?;
    let theirs = Arc::clone(&context);
    let set_up = move || theirs.bind_to_thread().map_err(|error| error.to_string());
    let comm = Communicator::init(library, id, world_size, rank, &Options::default(), set_up)?;

    let mut values = stream.clone_htod(&vec![rank as f32 + 1.0; COUNT])?;
    let (address, recorded) = values.device_ptr_mut(&stream);
    let buffer = DevicePointer(address as usize);
    // SAFETY: the stream is of this rank's device and outlives the communicator; the buffer holds
    // COUNT floats and is not touched before the stream has been synchronised; all ranks do this.
    unsafe {
        let on = Stream::from_raw(stream.cu_stream().cast());
        comm.all_reduce(buffer, COUNT, DataType::F32, ReduceOp::Sum, on)?.wait()?;
    }
    drop(recorded);
    stream.synchronize()?;

    let expected = (world_size * (world_size + 1) / 2) as f32;
    let sums = stream.clone_dtoh(&values)?;
    comm.finish()?;
    match sums.iter().position(|&sum| sum != expected) {
        None => Ok(()),
        Some(at) => {
            Err(format!("rank {rank}: element {at} is {}, not {expected}", sums[at]).into())
        }
    }
}
