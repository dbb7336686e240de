//! What can be enqueued: the operations, their element types, and where they read and write.

use std::ffi::{c_int, c_void};

use crate::Error;
use crate::sys::{Code, Functions, RawComm};

/// Type of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[repr(i32)]
pub enum DataType {
    /// 8 bits, signed.
    I8 = 0,
    /// 8 bits, unsigned.
    U8 = 1,
    /// 32 bits, signed.
    I32 = 2,
    /// 32 bits, unsigned.
    U32 = 3,
    /// 64 bits, signed.
    I64 = 4,
    /// 64 bits, unsigned.
    U64 = 5,
    /// IEEE half precision.
    F16 = 6,
    /// IEEE single precision.
    F32 = 7,
    /// IEEE double precision.
    F64 = 8,
    /// bfloat16.
    Bf16 = 9,
}

impl DataType {
    /// Bytes of an element.
    pub fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 => 1,
            Self::F16 | Self::Bf16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }
}

/// How elements of several ranks become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[repr(i32)]
pub enum ReduceOp {
    /// Their sum.
    Sum = 0,
    /// Their product.
    Product = 1,
    /// The largest.
    Max = 2,
    /// The smallest.
    Min = 3,
    /// Their mean; integers are rounded towards zero.
    Mean = 4,
}

/// Address in the memory of the communicator's device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DevicePointer(pub usize);

impl<T> From<*mut T> for DevicePointer {
    fn from(pointer: *mut T) -> Self {
        Self(pointer as usize)
    }
}

impl<T> From<*const T> for DevicePointer {
    fn from(pointer: *const T) -> Self {
        Self(pointer as usize)
    }
}

/// A `cudaStream_t` (or `CUstream`, which is the same thing).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream(usize);

impl Stream {
    /// The device's default stream.
    pub const DEFAULT: Self = Self(0);

    /// The stream behind a handle.
    ///
    /// # Safety
    ///
    /// The handle is that of a stream on the device of every communicator it is used with, and
    /// the stream outlives what is enqueued on it.
    pub unsafe fn from_raw(stream: *mut c_void) -> Self {
        Self(stream as usize)
    }

    fn raw(self) -> *mut c_void {
        self.0 as *mut c_void
    }
}

/// One operation of one rank. `count` is in elements of `kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Op {
    /// Every rank gets the reduction of all ranks' `send`. In place when `send` is `receive`.
    AllReduce {
        /// `count` elements.
        send: DevicePointer,
        /// `count` elements.
        receive: DevicePointer,
        /// Elements of each rank.
        count: usize,
        /// Their type.
        kind: DataType,
        /// How they are reduced.
        op: ReduceOp,
    },
    /// Rank `r` gets part `r` of the reduction of all ranks' `send`.
    ReduceScatter {
        /// `world_size * count` elements.
        send: DevicePointer,
        /// `count` elements.
        receive: DevicePointer,
        /// Elements of each part.
        count: usize,
        /// Their type.
        kind: DataType,
        /// How they are reduced.
        op: ReduceOp,
    },
    /// Every rank gets all ranks' `send`, one after another in order of ranks.
    AllGather {
        /// `count` elements.
        send: DevicePointer,
        /// `world_size * count` elements.
        receive: DevicePointer,
        /// Elements of each rank.
        count: usize,
        /// Their type.
        kind: DataType,
    },
    /// Every rank gets the root's `send`. In place when `send` is `receive`.
    Broadcast {
        /// `count` elements; read on the root alone.
        send: DevicePointer,
        /// `count` elements.
        receive: DevicePointer,
        /// Elements.
        count: usize,
        /// Their type.
        kind: DataType,
        /// The rank that sends.
        root: usize,
    },
    /// Goes to a [`Op::Recv`] of rank `peer` with the same count and type.
    Send {
        /// `count` elements.
        from: DevicePointer,
        /// Elements.
        count: usize,
        /// Their type.
        kind: DataType,
        /// The rank that receives.
        peer: usize,
    },
    /// Comes from a [`Op::Send`] of rank `peer` with the same count and type.
    Recv {
        /// `count` elements.
        to: DevicePointer,
        /// Elements.
        count: usize,
        /// Their type.
        kind: DataType,
        /// The rank that sends.
        peer: usize,
    },
}

impl Op {
    /// NCCL's function for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::AllReduce { .. } => "ncclAllReduce",
            Self::ReduceScatter { .. } => "ncclReduceScatter",
            Self::AllGather { .. } => "ncclAllGather",
            Self::Broadcast { .. } => "ncclBroadcast",
            Self::Send { .. } => "ncclSend",
            Self::Recv { .. } => "ncclRecv",
        }
    }

    /// What can be seen to be wrong from one rank.
    pub(crate) fn check(&self, world_size: usize) -> Result<(), Error> {
        let (pointers, count, peer) = match *self {
            Self::AllReduce { send, receive, count, .. }
            | Self::ReduceScatter { send, receive, count, .. }
            | Self::AllGather { send, receive, count, .. } => ([send, receive], count, 0),
            Self::Broadcast { send, receive, count, root, .. } => ([send, receive], count, root),
            Self::Send { from: at, count, peer, .. } | Self::Recv { to: at, count, peer, .. } => {
                ([at, at], count, peer)
            }
        };
        let problem = if peer >= world_size {
            format!("there is no rank {peer} among {world_size}")
        } else if count > 0 && pointers.contains(&DevicePointer(0)) {
            format!("a null pointer cannot hold {count} elements")
        } else {
            return Ok(());
        };
        Err(Error::Invalid { op: self.name(), problem })
    }

    /// Calls NCCL's function.
    ///
    /// # Safety
    ///
    /// `comm` is a live communicator of the library of `functions`, no other thread is inside
    /// NCCL with it, and what [`crate::Communicator::submit`] asks for holds.
    pub(crate) unsafe fn enqueue(
        &self,
        functions: &Functions,
        comm: RawComm,
        stream: Stream,
    ) -> Code {
        let from = |pointer: DevicePointer| pointer.0 as *const c_void;
        let into = |pointer: DevicePointer| pointer.0 as *mut c_void;
        let stream = stream.raw();
        // SAFETY: the caller's promise, handed on; numbers are those of nccl.h.
        unsafe {
            match *self {
                Self::AllReduce { send, receive, count, kind, op } => (functions.all_reduce)(
                    from(send),
                    into(receive),
                    count,
                    kind as c_int,
                    op as c_int,
                    comm,
                    stream,
                ),
                Self::ReduceScatter { send, receive, count, kind, op } => (functions
                    .reduce_scatter)(
                    from(send),
                    into(receive),
                    count,
                    kind as c_int,
                    op as c_int,
                    comm,
                    stream,
                ),
                Self::AllGather { send, receive, count, kind } => (functions.all_gather)(
                    from(send),
                    into(receive),
                    count,
                    kind as c_int,
                    comm,
                    stream,
                ),
                Self::Broadcast { send, receive, count, kind, root } => (functions.broadcast)(
                    from(send),
                    into(receive),
                    count,
                    kind as c_int,
                    root as c_int,
                    comm,
                    stream,
                ),
                Self::Send { from: at, count, kind, peer } => {
                    (functions.send)(from(at), count, kind as c_int, peer as c_int, comm, stream)
                }
                Self::Recv { to: at, count, kind, peer } => {
                    (functions.recv)(into(at), count, kind as c_int, peer as c_int, comm, stream)
                }
            }
        }
    }
}
