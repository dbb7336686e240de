//! The build script of every crate that links libtorch: programs and tests find it where the
//! build found it, without LD_LIBRARY_PATH. The old tag (RPATH, not RUNPATH) also serves the
//! libraries that libtorch itself needs.

#![allow(clippy::print_stdout)] // how a build script talks to cargo

pub(crate) fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    let prefix = std::env::var("LIBTORCH").unwrap_or_default();
    match std::fs::canonicalize(&prefix) {
        Ok(prefix) => println!(
            "cargo:rustc-link-arg=-Wl,--disable-new-dtags,-rpath,{}",
            prefix.join("lib").display()
        ),
        Err(_) => println!("cargo:warning=no libtorch at LIBTORCH='{prefix}': run launch/setup.sh"),
    }
}
