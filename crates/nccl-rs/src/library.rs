//! Finding NCCL and looking up its functions.

use std::ffi::{CStr, OsStr, OsString, c_int, c_void};
use std::fmt;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use libloading::os::unix as loader;

use crate::error::Attempt;
use crate::sys::{self, Code, Functions, RawComm, RawId};
use crate::{Error, elf, submitted};

/// Environment variable with the full path of the library to use.
pub const LIBRARY_VARIABLE: &str = "NCCL_RS_LIBRARY";

/// Under which names NCCL is looked for: pip wheels ship the first alone.
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

/// What every NCCL 2 has, and hardly another library.
const NAMES_OF_ALL: [&str; 4] =
    ["ncclGetVersion", "ncclGetErrorString", "ncclCommDestroy", "ncclAllReduce"];

/// The first version with non-blocking communicators and `ncclCommFinalize`.
const OLDEST: Version = Version { major: 2, minor: 14, patch: 3 };

/// A version of NCCL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// 2.
    pub major: u32,
    /// 28 in 2.28.9.
    pub minor: u32,
    /// 9 in 2.28.9.
    pub patch: u32,
}

impl Version {
    /// From the number that `ncclGetVersion` gives: 22809 is 2.28.9, and 2804 is 2.8.4.
    pub fn from_code(code: u32) -> Self {
        let unit = if code < 10_000 { 1_000 } else { 10_000 };
        Self { major: code / unit, minor: code % unit / 100, patch: code % 100 }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// What the ranks of one communicator have in common: made on one rank, sent to all.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct UniqueId(pub(crate) RawId);

impl UniqueId {
    /// Bytes of an id.
    pub const LEN: usize = 128;

    /// The id that was turned into these bytes by [`Self::to_bytes`].
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(RawId(bytes))
    }

    /// The bytes to send to the other ranks.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        self.0.0
    }
}

impl fmt::Debug for UniqueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("UniqueId(..)")
    }
}

/// NCCL, loaded. Cheap to clone; stays loaded until the process ends, since NCCL keeps threads.
#[derive(Clone)]
pub struct Library(Arc<Loaded>);

struct Loaded {
    functions: Functions,
    version: Version,
    path: PathBuf,
}

impl fmt::Debug for Library {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NCCL {} from {}", self.version(), self.path().display())
    }
}

impl Library {
    /// The library named by `NCCL_RS_LIBRARY`; without that, the copy that the process has
    /// loaded already (libtorch's, for instance); without that, the one that the loader finds.
    ///
    /// This trusts the variable, or the folders in which the loader looks (`LD_LIBRARY_PATH`, the
    /// program's own run path, the system's): see [`Self::open`].
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`], [`Error::TwoCopies`], [`Error::TooOld`], [`Error::TooNew`],
    /// [`Error::MissingSymbol`].
    pub fn load() -> Result<Self, Error> {
        if let Some(path) = std::env::var_os(LIBRARY_VARIABLE).filter(|path| !path.is_empty()) {
            return Self::open(Path::new(&path));
        }
        let mut tried = Vec::new();
        for name in NAMES {
            // A name without a slash finds a loaded library of that name before any file.
            match open(OsStr::new(name), libc::RTLD_NOW) {
                Ok(library) => return Self::from_loaded(library),
                Err(attempt) => tried.push(attempt),
            }
        }
        Err(Error::NotFound { tried })
    }

    /// The library at `path`.
    ///
    /// # Trust
    ///
    /// A library is code. Loading one runs its constructors and those of the libraries it names,
    /// with all rights of this process, and every later call believes that its functions have
    /// the types of `nccl.h` and do what NVIDIA's documentation says. No check can replace that
    /// belief, so whoever chooses the path answers for the file, as for a program that is
    /// started. This function (like [`Self::load`]) is not `unsafe` since what has to hold is
    /// about a file and not about the caller's code, which could write nothing to make it true;
    /// do not pass it a path that somebody can choose whom you would not let run programs.
    ///
    /// What can be checked is:
    ///
    /// * before anything of the file is run: if it is an ELF library of 64 bits, that it exports
    ///   functions that every NCCL 2 has. A wrong path to some other library runs none of it.
    /// * after loading: that it calls itself NCCL 2, of 2.14.3 or newer, that it has all
    ///   functions that this crate needs, and that the process has no second NCCL.
    ///
    /// # Errors
    ///
    /// As [`Self::load`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        let already = NAMES.iter().find_map(|name| {
            let library = open(OsStr::new(name), libc::RTLD_NOW | libc::RTLD_NOLOAD).ok()?;
            Some(location(&library))
        });
        if let Some(loaded) = already
            && loaded.canonicalize().ok() != path.canonicalize().ok()
        {
            return Err(Error::TwoCopies { loaded, asked: path.to_owned() });
        }
        if let Some(symbol) = elf::lacks(path, &NAMES_OF_ALL) {
            return Err(Error::MissingSymbol { symbol, path: path.to_owned() });
        }
        match open(path.as_os_str(), libc::RTLD_NOW) {
            Ok(library) => Self::from_loaded(library),
            Err(attempt) => Err(Error::NotFound { tried: vec![attempt] }),
        }
    }

    fn from_loaded(library: loader::Library) -> Result<Self, Error> {
        let path = location(&library);
        let (functions, version) = look_up(&library, &path)?;
        std::mem::forget(library);
        Ok(Self(Arc::new(Loaded { functions, version, path })))
    }

    /// Its version.
    pub fn version(&self) -> Version {
        self.0.version
    }

    /// The file it was loaded from.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// A new id, for one communicator. Call it on one rank and send the bytes to the others.
    ///
    /// # Errors
    ///
    /// [`Error::Nccl`] where there is no network interface, or [`Error::Stuck`] if NCCL has not
    /// answered within `deadline`.
    pub fn unique_id(&self, deadline: Duration) -> Result<UniqueId, Error> {
        const OP: &str = "ncclGetUniqueId";
        let library = self.clone();
        submitted::on_own_thread(OP, deadline, move || {
            let mut id = RawId([0; UniqueId::LEN]);
            // SAFETY: `id` is a live local of NCCL's type.
            let code = unsafe { (library.functions().get_unique_id)(&mut id) };
            library.check(OP, code)?;
            Ok(UniqueId(id))
        })
    }

    pub(crate) fn functions(&self) -> &Functions {
        &self.0.functions
    }

    /// Success, or the error with NCCL's texts.
    pub(crate) fn check(&self, op: &'static str, code: Code) -> Result<(), Error> {
        if code == sys::SUCCESS {
            return Ok(());
        }
        let functions = self.functions();
        // SAFETY: both take any argument (the communicator is unused since 2.13), and answer
        // with a null pointer or text that lives as long as the library, which is never unloaded.
        let (name, last) = unsafe {
            (
                text((functions.get_error_string)(code)),
                text((functions.get_last_error)(std::ptr::null_mut())),
            )
        };
        Err(Error::Nccl { op, code, text: name, last_error: last })
    }

    /// The communicator's state as NCCL sees it.
    pub(crate) fn state_of(&self, comm: RawComm) -> Code {
        let mut state = sys::SUCCESS;
        // SAFETY: the only callers are on the communication thread, with a live communicator.
        let asked = unsafe { (self.functions().comm_get_async_error)(comm, &mut state) };
        if asked == sys::SUCCESS { state } else { asked }
    }
}

/// Text of NCCL's; empty for null.
///
/// # Safety
///
/// `pointer` is null or points to text that ends with a zero.
unsafe fn text(pointer: *const std::ffi::c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: the caller's promise.
    let text = unsafe { CStr::from_ptr(pointer) }.to_string_lossy();
    text.trim().replace('\n', " ")
}

fn open(name: &OsStr, flags: c_int) -> Result<loader::Library, Attempt> {
    // SAFETY: loading runs the library's constructors; the names are NCCL's, or a path of which
    // whoever chose it says that it is NCCL (see the documentation of `Library::open`).
    unsafe { loader::Library::open(Some(name), flags) }.map_err(|error| Attempt {
        name: name.to_string_lossy().into_owned(),
        reason: match std::error::Error::source(&error) {
            Some(cause) => cause.to_string(),
            None => error.to_string(),
        },
    })
}

/// The file that a library was loaded from; empty if the loader does not know.
fn location(library: &loader::Library) -> PathBuf {
    // SAFETY: the symbol is used as an address alone.
    let Ok(symbol) = (unsafe { library.get::<*const c_void>(b"ncclGetVersion\0") }) else {
        return PathBuf::new();
    };
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: `info` is a live local that dladdr fills; zeroes are valid for its pointers.
    let info = unsafe {
        libc::dladdr(symbol.as_raw_ptr(), info.as_mut_ptr());
        info.assume_init()
    };
    if info.dli_fname.is_null() {
        return PathBuf::new();
    }
    // SAFETY: dladdr's names end with a zero and live as long as the library is loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    PathBuf::from(OsString::from_vec(name.to_bytes().to_vec()))
}

/// Looks the version up first, so that an old library is called old and not incomplete.
fn look_up(library: &loader::Library, path: &Path) -> Result<(Functions, Version), Error> {
    type GetVersion = unsafe extern "C" fn(*mut c_int) -> Code;
    // SAFETY: the type is that of nccl.h for this name.
    let get_version: GetVersion = unsafe { required(library, path, "ncclGetVersion") }?;
    let mut code = 0;
    // SAFETY: `code` is a live local.
    let status = unsafe { get_version(&mut code) };
    let found = Version::from_code(code.unsigned_abs());
    if status != sys::SUCCESS || found < OLDEST {
        return Err(Error::TooOld { path: path.to_owned(), found, needed: OLDEST });
    }
    if found.major > OLDEST.major {
        return Err(Error::TooNew { path: path.to_owned(), found });
    }
    // SAFETY: the types of the fields are those of nccl.h for these names, in every NCCL 2; that the
    // library is one, its user has said and its version does not contradict.
    let functions = unsafe {
        Functions {
            get_unique_id: required(library, path, "ncclGetUniqueId")?,
            get_error_string: required(library, path, "ncclGetErrorString")?,
            get_last_error: required(library, path, "ncclGetLastError")?,
            comm_init_rank_config: required(library, path, "ncclCommInitRankConfig")?,
            comm_finalize: required(library, path, "ncclCommFinalize")?,
            comm_destroy: required(library, path, "ncclCommDestroy")?,
            comm_abort: required(library, path, "ncclCommAbort")?,
            comm_get_async_error: required(library, path, "ncclCommGetAsyncError")?,
            comm_count: required(library, path, "ncclCommCount")?,
            comm_user_rank: required(library, path, "ncclCommUserRank")?,
            group_start: required(library, path, "ncclGroupStart")?,
            group_end: required(library, path, "ncclGroupEnd")?,
            all_reduce: required(library, path, "ncclAllReduce")?,
            reduce_scatter: required(library, path, "ncclReduceScatter")?,
            all_gather: required(library, path, "ncclAllGather")?,
            broadcast: required(library, path, "ncclBroadcast")?,
            send: required(library, path, "ncclSend")?,
            recv: required(library, path, "ncclRecv")?,
            comm_split: optional(library, "ncclCommSplit"),
            comm_revoke: optional(library, "ncclCommRevoke"),
        }
    };
    Ok((functions, found))
}

/// # Safety
///
/// `T` is the function type of `symbol`.
unsafe fn required<T: Copy>(
    library: &loader::Library,
    path: &Path,
    symbol: &'static str,
) -> Result<T, Error> {
    // SAFETY: the caller's promise.
    unsafe { optional(library, symbol) }
        .ok_or_else(|| Error::MissingSymbol { symbol, path: path.to_owned() })
}

/// # Safety
///
/// `T` is the function type of `symbol`.
unsafe fn optional<T: Copy>(library: &loader::Library, symbol: &str) -> Option<T> {
    // SAFETY: the caller's promise.
    unsafe { library.get::<T>(symbol.as_bytes()) }.ok().map(|symbol| *symbol)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_in_both_of_nccls_encodings() {
        let text = |code| Version::from_code(code).to_string();
        assert_eq!(text(22809), "2.28.9");
        assert_eq!(text(21403), "2.14.3");
        assert_eq!(text(2804), "2.8.4");
        assert!(Version::from_code(2804) < Version::from_code(21403));
    }
}
