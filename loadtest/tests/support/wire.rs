//! A TCP proxy before the signalling service that delays what it hands on, and that can be cut.

use std::net::SocketAddr;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

pub struct Wire {
    pub address: SocketAddr,
    /// How often it was cut; what ends it.
    cuts: watch::Sender<Option<u32>>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    /// Stands before `upstream`; what goes through arrives so much later, each way. Connections themselves are taken at once.
    pub fn start(upstream: SocketAddr, delay: Duration) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (cuts, mut told) = watch::channel(Some(0));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                let lines = told.clone();
                tokio::select! {
                    () = serve(listener, upstream, delay, lines) => {}
                    _ = told.wait_for(Option::is_none) => {}
                }
            });
        });
        Self { address, cuts, thread: Some(thread) }
    }

    /// Breaks every connection off; new ones are taken.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts = cuts.map(|cuts| cuts + 1));
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = self.cuts.send(None);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn serve(
    listener: TcpListener,
    upstream: SocketAddr,
    delay: Duration,
    cuts: watch::Receiver<Option<u32>>,
) {
    while let Ok((near, _)) = listener.accept().await {
        let mut cuts = cuts.clone();
        let until = *cuts.borrow_and_update();
        tokio::spawn(async move {
            let far = TcpStream::connect(upstream).await.unwrap();
            near.set_nodelay(true).unwrap();
            far.set_nodelay(true).unwrap();
            let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
            tokio::select! {
                () = later(near_in, far_out, delay) => {}
                () = later(far_in, near_out, delay) => {}
                _ = cuts.wait_for(|now| *now != until) => {}
            }
        });
    }
}

/// Hands on until the end, each piece so much later than it came.
async fn later(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, delay: Duration) {
    let (keep, mut kept) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let take = async {
        let mut buffer = vec![0; 16_384];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let _ = keep.send((Instant::now() + delay, buffer[..length].to_vec()));
        }
        drop(keep);
    };
    let give = async {
        while let Some((due, piece)) = kept.recv().await {
            tokio::time::sleep_until(due.into()).await;
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(take, give);
}
