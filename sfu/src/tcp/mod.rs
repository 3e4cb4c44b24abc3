//! Passive ICE-TCP ([RFC 6544](https://www.rfc-editor.org/rfc/rfc6544)): the way for clients whose network lets no UDP
//! through.
//!
//! One listener serves all shards, so that a firewall has one port to open. A connection's first frame must be a check;
//! the user name fragment in it names the shard (see [`ufrag_prefix`]), and the connection stays with that shard. The
//! bytes are moved by tasks of the node's runtime, as such clients are few; the shard gets and gives datagrams as with
//! UDP, over bounded queues:
//!
//! ```text
//! socket ─ Frames ─ 16 datagrams a connection ─> shard's inbox ─ Links ─> Shard::handle_datagram
//! socket <─ drops stale media ── 256 datagrams a connection <── Links <── TxQueue::frames
//! ```
//!
//! Congestion control works as over UDP: it sees the delay that a queue makes. So the queue is kept short: the kernel
//! holds 16 KiB unsent, and media that waited longer than 200 ms in front of that is dropped rather than sent late. And each
//! datagram is a segment of its own: of those that share one the times of arrival are of the segments, and five packets of a
//! probe are too few of these. On a link of 1 Mbit/s probes showed 0.2 to 1.8 Mbit/s with shared ones, 0.81 to 0.91 without.

mod connection;
mod frame;
pub(crate) mod links;
mod table;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sfu_media::ids::{Remote, TcpId};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use self::table::Table;
pub use self::table::TcpLimits;
use crate::metrics;
use crate::shard_thread::TcpInlet;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 256;
/// Rest after an error of `accept`: the process has no file descriptors left.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// What user name fragments of a shard's transports begin with: checks that come over TCP show the shard by it.
pub fn ufrag_prefix(shard: usize) -> String {
    format!("{shard:x}/")
}

/// The reverse of [`ufrag_prefix`].
fn shard_of_ufrag(ufrag: &str) -> Option<usize> {
    usize::from_str_radix(ufrag.split_once('/')?.0, 16).ok()
}

/// An open TCP port. Dropping it ends all its connections.
pub struct TcpPort {
    local: SocketAddr,
    task: JoinHandle<()>,
}

impl fmt::Debug for TcpPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TcpPort").field("port", &self.local.port()).finish_non_exhaustive()
    }
}

impl TcpPort {
    /// Opens the port and serves it. To be called in a Tokio runtime. An IPv6 wildcard also takes IPv4.
    ///
    /// # Errors
    /// When the address is not ours or in use.
    pub fn open(bind: SocketAddr, limits: TcpLimits, shards: Arc<[TcpInlet]>) -> std::io::Result<Self> {
        let domain = Domain::for_address(bind);
        let socket = Socket::new(domain, Type::STREAM.cloexec().nonblocking(), Some(Protocol::TCP))?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(!bind.ip().is_unspecified())?;
        }
        // A relay that starts again takes its port back from connections in TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.bind(&bind.into())?;
        socket.listen(BACKLOG)?;
        let listener = TcpListener::from_std(socket.into())?;
        let local = listener.local_addr()?;
        let task = tokio::spawn(accept(listener, Table::new(limits), shards));
        Ok(Self { local, task })
    }

    /// The address that it is bound to.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

impl Drop for TcpPort {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, table: Arc<Table>, shards: Arc<[TcpInlet]>) {
    // Ends the connections with this task.
    let mut connections = JoinSet::new();
    let mut last = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => {
                metrics::tcp_connections(connections.len());
                continue;
            }
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a TCP connection");
                tokio::time::sleep(ACCEPT_REST).await;
                continue;
            }
        };
        last += 1;
        let id = TcpId(last);
        let from = SocketAddr::new(from.ip().to_canonical(), from.port());
        let Some(ticket) = table.admit(id, from.ip()) else {
            metrics::tcp_ended("refused");
            continue;
        };
        connections.spawn(connection::serve(stream, Remote::tcp(from, id), ticket, Arc::clone(&shards)));
        metrics::tcp_connections(connections.len());
    }
}

#[cfg(test)]
mod tests;
