//! The part of `nccl.h` that this crate uses.
//!
//! C enums are plain integers here: a newer NCCL may answer with a code that this header lacks,
//! and a Rust enum that holds it would be undefined behaviour. (cudarc's `sys` module declares
//! enums, and picks one configuration layout per cargo feature; that is why it is not used.)

use std::ffi::{c_char, c_int, c_uint, c_void};

/// `ncclResult_t`.
pub(crate) type Code = c_int;
/// `ncclComm_t`.
pub(crate) type RawComm = *mut c_void;
/// `cudaStream_t`.
pub(crate) type RawStream = *mut c_void;

pub(crate) const SUCCESS: Code = 0;
pub(crate) const IN_PROGRESS: Code = 7;
pub(crate) const SPLIT_NO_COLOR: c_int = -1;
/// `NCCL_CONFIG_UNDEF_INT`: NCCL's own default.
pub(crate) const UNDEFINED: c_int = c_int::MIN;

/// `ncclUniqueId`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawId(pub(crate) [u8; 128]);

/// `ncclConfig_t` as of NCCL 2.18. NCCL reads `size` bytes at most and takes its own defaults for
/// fields that are younger than `version`, so this layout serves older and newer ones.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) size: usize,
    pub(crate) magic: c_uint,
    pub(crate) version: c_uint,
    pub(crate) blocking: c_int,
    pub(crate) cga_cluster_size: c_int,
    pub(crate) min_ctas: c_int,
    pub(crate) max_ctas: c_int,
    pub(crate) net_name: *const c_char,
    pub(crate) split_share: c_int,
}

impl Config {
    /// Everything as NCCL likes it, but non-blocking.
    pub(crate) fn non_blocking() -> Self {
        Self {
            size: size_of::<Self>(),
            magic: 0xcafe_beef,
            version: 21801,
            blocking: 0,
            cga_cluster_size: UNDEFINED,
            min_ctas: UNDEFINED,
            max_ctas: UNDEFINED,
            net_name: std::ptr::null(),
            split_share: UNDEFINED,
        }
    }
}

/// The functions, as found in one library.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Functions {
    pub(crate) get_unique_id: unsafe extern "C" fn(*mut RawId) -> Code,
    pub(crate) get_error_string: unsafe extern "C" fn(Code) -> *const c_char,
    pub(crate) get_last_error: unsafe extern "C" fn(RawComm) -> *const c_char,
    pub(crate) comm_init_rank_config:
        unsafe extern "C" fn(*mut RawComm, c_int, RawId, c_int, *mut Config) -> Code,
    pub(crate) comm_finalize: unsafe extern "C" fn(RawComm) -> Code,
    pub(crate) comm_destroy: unsafe extern "C" fn(RawComm) -> Code,
    pub(crate) comm_abort: unsafe extern "C" fn(RawComm) -> Code,
    pub(crate) comm_get_async_error: unsafe extern "C" fn(RawComm, *mut Code) -> Code,
    pub(crate) comm_count: unsafe extern "C" fn(RawComm, *mut c_int) -> Code,
    pub(crate) comm_user_rank: unsafe extern "C" fn(RawComm, *mut c_int) -> Code,
    pub(crate) group_start: unsafe extern "C" fn() -> Code,
    pub(crate) group_end: unsafe extern "C" fn() -> Code,
    pub(crate) all_reduce: Reduction,
    pub(crate) reduce_scatter: Reduction,
    pub(crate) all_gather:
        unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, RawComm, RawStream) -> Code,
    pub(crate) broadcast: unsafe extern "C" fn(
        *const c_void,
        *mut c_void,
        usize,
        c_int,
        c_int,
        RawComm,
        RawStream,
    ) -> Code,
    pub(crate) send:
        unsafe extern "C" fn(*const c_void, usize, c_int, c_int, RawComm, RawStream) -> Code,
    pub(crate) recv:
        unsafe extern "C" fn(*mut c_void, usize, c_int, c_int, RawComm, RawStream) -> Code,
    /// Since 2.18.1.
    pub(crate) comm_split:
        Option<unsafe extern "C" fn(RawComm, c_int, c_int, *mut RawComm, *mut Config) -> Code>,
    /// Since 2.28.7.
    pub(crate) comm_revoke: Option<unsafe extern "C" fn(RawComm, c_int) -> Code>,
}

/// `ncclAllReduce` and `ncclReduceScatter`: send, receive, count, kind, operation.
pub(crate) type Reduction = unsafe extern "C" fn(
    *const c_void,
    *mut c_void,
    usize,
    c_int,
    c_int,
    RawComm,
    RawStream,
) -> Code;
