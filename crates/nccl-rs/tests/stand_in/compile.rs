// Compiles the stand-in for NCCL; taken in by the tests of every crate that runs on it.

/// The stand-in with these faults, such as `HANG="ncclAllReduce"`, in `folder`; see `nccl.c`.
pub(crate) fn compile(folder: &std::path::Path, defines: &[&str]) -> std::path::PathBuf {
    let (source, library) = (folder.join("nccl.c"), folder.join("libnccl-stand-in.so"));
    std::fs::write(&source, include_str!("nccl.c")).unwrap();
    let built = std::process::Command::new("cc")
        .args(["-std=gnu11", "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-pthread", "-o"])
        .args([&library, &source])
        .args(defines.iter().map(|define| format!("-D{define}")))
        .output()
        .expect("cc, which rustc links with");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    library
}
