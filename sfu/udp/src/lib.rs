//! UDP for the relay's shards: batches in both directions, segmentation and receive offload, a wake-up from other
//! threads. The only crate of the workspace with `unsafe`: every block stands beside its safe wrapper.
//!
//! Linux only, like the system calls it is made of: `recvmmsg`, `sendmmsg`, `UDP_SEGMENT`, `UDP_GRO`, `eventfd`, `poll`.
#![deny(unsafe_op_in_unsafe_fn)]

mod affinity;
#[cfg(feature = "bare")]
pub mod bare;
mod cmsg;
mod recv;
mod send;
mod socket;
mod sort;
mod stamp;
mod wake;

pub use affinity::{pin_to_cpu, run_before_others, thread_cpu_time};
pub use recv::{LONGEST_RUN, RecvBatch};
pub use send::SendReport;
pub use socket::{Readiness, UdpSocket, UdpSocketConfig};
pub use stamp::{Stamped, join_arrivals, recv_stamped, stamp_arrivals};
pub use wake::Waker;
