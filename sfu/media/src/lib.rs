//! The media core of the relay, without I/O.
//!
//! Nothing here opens a socket, reads a clock or starts a thread: datagrams, commands and instants come in as
//! arguments, and datagrams ([`tx::TxQueue`]) and events ([`command::ShardEvent`]) come out. A [`shard::Shard`] is what
//! a thread drives; everything below it can be driven by a test with a virtual clock.
//!
//! The life of an RTP packet:
//!
//! ```text
//! Shard::handle_datagram -> demux::classify -> PeerIndex::find
//!  -> Transport::open_rtp        parse, extend the sequence number, authenticate and decrypt in place
//!  -> InboundStream::accept      NACK register, TWCC recorder, layer, frame gate
//!  -> PacketStore::insert        one copy of the payload per track
//!  -> Router::fan_out            a flat list of subscriptions
//!  -> Forwarder::forward         choose the layer, rewrite the identifiers
//!  -> SrtpSeal::seal_into        straight into the send queue
//! ```
#![forbid(unsafe_code)]

pub mod bwe;
pub mod command;
pub mod drop_reason;
pub mod ids;
pub mod inbound;
pub mod outbound;
pub mod relay;
pub mod rtcp;
pub mod rtp;
pub mod shard;
#[cfg(any(test, feature = "sim"))]
pub mod sim;
pub mod srtp;
pub mod stats;
pub mod transport;
pub mod tx;
