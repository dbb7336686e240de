//! Finds libtorch as every crate does that links it, and compiles the one constant of MPI that neither mpi-sys nor
//! bindgen carries over, by the mpicc that mpi-sys takes.

#![allow(clippy::print_stdout)] // how a build script talks to cargo

#[path = "../../launch/rpath.rs"]
mod rpath;

const SOURCE: &str = "src/backend/in_place.c";

fn main() {
    rpath::main();
    println!("cargo:rerun-if-changed={SOURCE}");
    for variable in ["MPICC", "MPI_PKG_CONFIG", "CRAY_MPICH_DIR"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let mpi = build_probe_mpi::probe().expect("mpi-sys has found an MPI in the same way");
    let mut compiler = cc::Build::new();
    match mpi.mpicc {
        Some(mpicc) => drop(compiler.compiler(mpicc)),
        None => drop(compiler.includes(mpi.include_paths)),
    }
    compiler.file(SOURCE).compile("tessera_in_place");
}
