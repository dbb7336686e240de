//! What the communication thread and its callers both see of a communicator.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::sys::RawComm;
use crate::{Error, Options};

/// What the communication thread and its callers both see of a communicator.
#[derive(Debug)]
pub(crate) struct State {
    /// Null before its beginning and after its end. Handed to NCCL by the thread alone.
    raw: AtomicPtr<std::ffi::c_void>,
    /// Aborts and revocations so far: what was polled before is given up.
    interruptions: AtomicUsize,
    revoked: AtomicBool,
    failure: Mutex<Option<Error>>,
    /// Lives here since NCCL may keep the pointers of the configuration.
    pub(crate) options: Options,
}

impl State {
    pub(crate) fn new(options: &Options) -> Arc<Self> {
        Arc::new(Self {
            raw: AtomicPtr::new(ptr::null_mut()),
            interruptions: AtomicUsize::new(0),
            revoked: AtomicBool::new(false),
            failure: Mutex::new(None),
            options: options.clone(),
        })
    }

    pub(crate) fn raw(&self) -> RawComm {
        self.raw.load(Ordering::Acquire)
    }

    /// Where NCCL puts the communicator, possibly after the call has returned.
    pub(crate) fn raw_place(&self) -> *mut RawComm {
        self.raw.as_ptr()
    }

    /// The communicator, which from now on has ended.
    pub(crate) fn take_raw(&self) -> RawComm {
        self.raw.swap(ptr::null_mut(), Ordering::AcqRel)
    }

    /// An abort or a revocation begins, on the communication thread.
    pub(crate) fn interrupt(&self) {
        self.interruptions.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn num_interruptions(&self) -> usize {
        self.interruptions.load(Ordering::Acquire)
    }

    pub(crate) fn failure(&self) -> Option<Error> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps the first failure.
    pub(crate) fn fail(&self, error: &Error) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert_with(|| error.clone());
    }

    /// A revoked communicator carries no operation, but can be split and freed.
    pub(crate) fn set_revoked(&self) {
        self.revoked.store(true, Ordering::Release);
        *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    pub(crate) fn is_revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }
}
