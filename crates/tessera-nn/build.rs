//! Finds libtorch as every crate does that links it, and compiles the functions of `src/fused` against the headers
//! beside the library that torch-sys found: their loops once for each instruction set, the rest once.

#![allow(clippy::print_stdout)] // how a build script talks to cargo

use std::env;
use std::path::{Path, PathBuf};

#[path = "../../launch/rpath.rs"]
mod rpath;

const FOLDER: &str = "src/fused";

/// Name, and flags on x86-64. What libtorch calls AVX2 and AVX512 are these.
const SETS: [(&str, &[&str]); 3] = [
    ("baseline", &[]),
    ("avx2", &["-mavx2", "-mfma"]),
    ("avx512", &["-mavx2", "-mfma", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq"]),
];

fn main() {
    rpath::main();
    // One by one: a folder has a time of its own in every clone.
    for entry in std::fs::read_dir(FOLDER).expect("it is in the package") {
        println!("cargo:rerun-if-changed={}", entry.expect("it is readable").path().display());
    }
    for variable in ["LIBTORCH_INCLUDE", "LIBTORCH_CXX11_ABI"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let is_x86 = env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    let num_sets = if is_x86 { SETS.len() } else { 1 };
    let mut compiler = cc::Build::new();
    compiler.cpp(true).std("c++17").opt_level(3).debug(false).flag_if_supported("-Wno-psabi");
    if is_x86 {
        compiler.define("TESSERA_X86", None);
    }

    let mut function = compiler.clone();
    let loops = {
        let compiler = compiler.clone();
        std::thread::spawn(move || {
            SETS[..num_sets].iter().flat_map(|set| loops(compiler.clone(), set)).collect::<Vec<_>>()
        })
    };
    let abi = env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".into());
    let include = include();
    for folder in [include.join("torch/csrc/api/include"), include] {
        // Their warnings are not ours.
        function.flag("-isystem").flag(folder);
    }
    function.define("_GLIBCXX_USE_CXX11_ABI", abi.as_str()).flag("-fopenmp");
    function.file(Path::new(FOLDER).join("fused.cpp"));
    let functions = function.compile_intermediates();
    let mut all = compiler;
    all.objects(functions).objects(loops.join().expect("the loops compile"));
    all.compile("tessera_fused");
}

/// The loops for one instruction set.
fn loops(mut compiler: cc::Build, (name, flags): &(&str, &[&str])) -> Vec<PathBuf> {
    compiler.file(Path::new(FOLDER).join("kernels.cpp")).define("TESSERA_SET", *name);
    // Off in ISO C++, and the half of what these sets are for.
    compiler
        .flags(*flags)
        .flags(["-ffp-contract=fast", "-fno-math-errno"])
        .out_dir(out().join(name))
        .compile_intermediates()
}

fn out() -> PathBuf {
    env::var_os("OUT_DIR").expect("cargo says where").into()
}

/// The headers of the libtorch that torch-sys links, which a Python wheel has at the same place.
fn include() -> PathBuf {
    if let Some(prefix) = env::var_os("LIBTORCH_INCLUDE") {
        return Path::new(&prefix).join("include");
    }
    let lib = env::var_os("DEP_TCH_LIBTORCH_LIB").expect("torch-sys says where its library is");
    Path::new(&lib).with_file_name("include")
}
