//! One TCP connection: two directions, both bounded.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sfu_media::ids::Remote;
use sfu_media::transport::demux::{self, Protocol};
use sfu_media::transport::stun;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Semaphore, mpsc};

use super::frame::Frames;
use super::links::{Outgoing, PROOF_TIME, TcpInput};
use super::table::Ticket;
use crate::metrics;
use crate::shard_thread::TcpInlet;

/// Bytes of one read.
const READ: usize = 4096;
/// Datagrams of one connection that may wait for the shard; reading stops there.
const INWARD: usize = 16;
/// Datagrams that may wait for the socket.
const OUTWARD: usize = 256;
/// Media older than this is not sent any more: the queue in front of a slow path stays short, in time, at any rate.
const STALE: Duration = Duration::from_millis(200);
/// Unsent bytes that the kernel may hold, so that the queue is here, where it is bounded in time. It looks at them only where
/// it begins a segment, which without `MSG_EOR` takes 64 KiB.
const NOTSENT_LOWAT: u32 = 16 * 1024;

/// Serves a connection to its end.
pub(super) async fn serve(stream: TcpStream, remote: Remote, ticket: Ticket, shards: Arc<[TcpInlet]>) {
    let accepted = Instant::now();
    // A kernel without the option still works, with more delay.
    let _ = stream.set_nodelay(true);
    let _ = SockRef::from(&stream).set_tcp_notsent_lowat(NOTSENT_LOWAT);
    let (mut reader, writer) = stream.into_split();
    let mut frames = Frames::default();
    let first = tokio::select! {
        first = tokio::time::timeout(PROOF_TIME, first_frame(&mut reader, &mut frames)) => first,
        () = ticket.standing.ended() => return metrics::tcp_ended("room"),
    };
    let first = match first {
        Ok(Some(first)) => first,
        Ok(None) => return metrics::tcp_ended("unproven"),
        Err(_) => return metrics::tcp_ended("timeout"),
    };
    let Some(inlet) = shard_of(&first).and_then(|shard| shards.get(shard)) else {
        return metrics::tcp_ended("unproven");
    };
    let (out, outward) = mpsc::channel(OUTWARD);
    inlet.push(TcpInput::Opened { remote, accepted, out, standing: Arc::clone(&ticket.standing) });
    let reason = tokio::select! {
        reason = read(reader, frames, first, remote, inlet) => reason,
        reason = write(writer, outward) => reason,
        () = ticket.standing.ended() => "room",
    };
    inlet.push(TcpInput::Closed { remote });
    metrics::tcp_ended(reason);
}

/// Which shard a first frame is for: it must be a STUN request, and the user name fragment names the shard.
fn shard_of(first: &[u8]) -> Option<usize> {
    if demux::classify(first) != Some(Protocol::Stun) {
        return None;
    }
    super::shard_of_ufrag(stun::local_ufrag(first).ok()?)
}

async fn first_frame(reader: &mut OwnedReadHalf, frames: &mut Frames) -> Option<Vec<u8>> {
    let mut chunk = [0; READ];
    loop {
        if let Some(frame) = frames.next().ok()? {
            return Some(frame.to_vec());
        }
        match reader.read(&mut chunk).await {
            Ok(0) | Err(_) => return None,
            Ok(len) => frames.push(&chunk[..len]),
        }
    }
}

/// Reads until the client ends the connection or breaks the framing. Returns the end's reason.
async fn read(
    mut reader: OwnedReadHalf,
    mut frames: Frames,
    first: Vec<u8>,
    remote: Remote,
    inlet: &TcpInlet,
) -> &'static str {
    let room = Arc::new(Semaphore::new(INWARD));
    let mut chunk = vec![0; READ];
    let mut next = Some(first);
    loop {
        if let Some(datagram) = next.take() {
            let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return "shard" };
            inlet.push(TcpInput::Datagram { remote, datagram, permit });
        }
        match frames.next() {
            Ok(Some(frame)) => {
                next = Some(frame.to_vec());
                continue;
            }
            Ok(None) => {}
            Err(_) => return "framing",
        }
        match reader.read(&mut chunk).await {
            Ok(0) | Err(_) => return "client",
            Ok(len) => frames.push(&chunk[..len]),
        }
    }
}

/// Writes until the shard drops its end or the connection breaks. Returns the end's reason.
async fn write(writer: OwnedWriteHalf, mut outward: mpsc::Receiver<Outgoing>) -> &'static str {
    while let Some(Outgoing { queued, frame }) = outward.recv().await {
        if queued.elapsed() > STALE && is_media(&frame) {
            metrics::tcp_stale();
            continue;
        }
        if send(writer.as_ref(), &frame).await.is_err() {
            return "client";
        }
    }
    "shard"
}

/// Sends a frame as a segment of its own. Those that share one arrive together, and their times tell little of the path.
async fn send(stream: &TcpStream, mut frame: &[u8]) -> io::Result<()> {
    let socket = SockRef::from(stream);
    while !frame.is_empty() {
        let write = || socket.send_with_flags(frame, libc::MSG_EOR | libc::MSG_NOSIGNAL);
        let sent = stream.async_io(Interest::WRITABLE, write).await?;
        frame = &frame[sent..];
    }
    Ok(())
}

/// Whether a frame is RTP, which loses its use with time; all else is small and waited for.
fn is_media(frame: &[u8]) -> bool {
    frame.get(2..).and_then(demux::classify) == Some(Protocol::Rtp)
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    #[tokio::test]
    async fn the_kernel_takes_little_of_what_a_slow_client_leaves_waiting() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(64 * 1024).unwrap();
        let mut client = socket.connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        SockRef::from(&stream).set_tcp_notsent_lowat(NOTSENT_LOWAT).unwrap();
        let (_reader, writer) = stream.into_split();
        let (out, outward) = mpsc::channel(OUTWARD);
        // None of them is RTP, which would be dropped.
        let frame = |n: usize| vec![n as u8 & 0x7f; 1200];
        for n in 0..OUTWARD {
            out.try_send(Outgoing { queued: Instant::now(), frame: frame(n).into() }).unwrap();
        }
        let writing = tokio::spawn(write(writer, outward));
        tokio::time::sleep(Duration::from_millis(200)).await;
        let taken = 1200 * (OUTWARD - (out.max_capacity() - out.capacity()));
        let arrived = client.peek(&mut vec![0; 1200 * OUTWARD]).await.unwrap();
        assert!(arrived > 20_000 && taken > arrived, "{taken} {arrived}");
        // What may be unsent, the segment that passes it, and the frame that waits.
        assert!(taken - arrived < NOTSENT_LOWAT as usize + 2 * 1202, "{taken} {arrived}");
        drop(out);
        let mut all = vec![];
        client.read_to_end(&mut all).await.unwrap();
        assert_eq!(writing.await.unwrap(), "shard");
        assert_eq!(all.len(), 1200 * OUTWARD);
        assert!(all.chunks(1200).enumerate().all(|(n, got)| got == frame(n)));
    }
}
