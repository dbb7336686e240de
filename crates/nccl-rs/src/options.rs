//! How a communicator is made.

use std::ffi::{CString, c_int};
use std::time::Duration;

use crate::sys;

/// How a communicator is made; the defaults are NCCL's, and deadlines for a cluster.
///
/// Fields may be added in any version: write what you set and `..Options::default()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// For the meeting of all ranks: [`crate::Communicator::init`] and
    /// [`crate::Communicator::split`]. 120 s.
    pub init_deadline: Duration,
    /// For every other call. It covers the time in which NCCL accepts an operation, not that in
    /// which the GPU carries it out: watch that with events. InfiniBand itself takes about 30 s
    /// to report an error; 60 s.
    pub deadline: Duration,
    /// For [`crate::Communicator::abort`], also when dropped, from the moment at which the thread
    /// is inside NCCL without returning. 10 s.
    pub abort_deadline: Duration,
    /// Fewest thread blocks that NCCL uses; `None`: as NCCL likes.
    pub min_ctas: Option<u16>,
    /// Most thread blocks that NCCL uses; `None`: as NCCL likes.
    pub max_ctas: Option<u16>,
    /// Name of the network plug-in, such as "Socket" or "IB"; `None`: as NCCL likes.
    pub net_name: Option<CString>,
    /// Whether a communicator that is split off shares the resources of its parent. NCCL then has
    /// one flag for the abort of both: aborting one stops what is in flight in the other as well.
    pub split_share: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            init_deadline: Duration::from_secs(120),
            deadline: Duration::from_secs(60),
            abort_deadline: Duration::from_secs(10),
            min_ctas: None,
            max_ctas: None,
            net_name: None,
            split_share: false,
        }
    }
}

impl Options {
    /// For NCCL; points into `self`.
    pub(crate) fn config(&self) -> sys::Config {
        let number = |value: Option<u16>| value.map_or(sys::UNDEFINED, c_int::from);
        sys::Config {
            min_ctas: number(self.min_ctas),
            max_ctas: number(self.max_ctas),
            net_name: self.net_name.as_ref().map_or(std::ptr::null(), |name| name.as_ptr()),
            split_share: c_int::from(self.split_share),
            ..sys::Config::non_blocking()
        }
    }
}
