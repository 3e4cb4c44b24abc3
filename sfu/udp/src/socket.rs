//! The socket of one shard.

use std::io;
use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use sfu_media::tx::TxQueue;
use socket2::{Domain, Protocol, Socket, Type};

use crate::recv::RecvBatch;
use crate::send::{SendReport, Sender};
use crate::sort::Sorted;
use crate::wake::Waker;

/// How to open a socket.
#[derive(Debug, Clone, Copy)]
pub struct UdpSocketConfig {
    /// Local address. Port 0 lets the kernel choose. An IPv6 wildcard also takes IPv4.
    pub bind: SocketAddr,
    /// Size asked of the kernel for each of its two buffers, in bytes. It may give less.
    pub buffer_bytes: usize,
    /// Use segmentation and receive offload where the kernel has it.
    pub offload: bool,
    /// Receive RTCP, and what connections are made of, apart from media, where the kernel can: see
    /// [`UdpSocket::recv_feedback`] and [`UdpSocket::recv_connect`].
    pub sorted: bool,
}

impl UdpSocketConfig {
    /// Four MiB of buffer each way, offload on, all received together.
    pub fn new(bind: SocketAddr) -> Self {
        Self { bind, buffer_bytes: 4 << 20, offload: true, sorted: false }
    }
}

/// What a wait ended with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Datagrams are there.
    pub readable: bool,
    /// RTCP is there that is received apart.
    pub feedback: bool,
    /// STUN or DTLS is there that is received apart.
    pub connect: bool,
    /// The waker was used.
    pub woken: bool,
}

/// A UDP socket that receives and sends in batches.
#[derive(Debug)]
pub struct UdpSocket {
    socket: StdSocket,
    /// Of the same port.
    sorted: Option<Sorted>,
    sender: Sender,
}

impl UdpSocket {
    /// Opens and binds a socket.
    ///
    /// # Errors
    /// When the address is not ours or in use.
    pub fn bind(config: UdpSocketConfig) -> io::Result<Self> {
        let domain = Domain::for_address(config.bind);
        let socket = Socket::new(domain, Type::DGRAM.cloexec().nonblocking(), Some(Protocol::UDP))?;
        let dual_stack = domain == Domain::IPV6 && config.bind.ip().is_unspecified();
        if domain == Domain::IPV6 {
            socket.set_only_v6(!dual_stack)?;
        }
        // The kernel caps these at net.core.{r,w}mem_max without an error.
        let _ = socket.set_recv_buffer_size(config.buffer_bytes);
        let _ = socket.set_send_buffer_size(config.buffer_bytes);
        socket.bind(&config.bind.into())?;
        let fd = socket.as_raw_fd();
        let gso = config.offload && enable_gro(fd);
        let open = || Sorted::open(&socket, domain, dual_stack, config.buffer_bytes).ok();
        let sorted = if config.sorted { open() } else { None };
        if let (true, Some(sorted)) = (gso, &sorted) {
            enable_gro(sorted.feedback.as_raw_fd());
            enable_gro(sorted.connect.as_raw_fd());
        }
        let sender = Sender { fd, gso, gso_works: false, dual_stack };
        Ok(Self { socket: socket.into(), sorted, sender })
    }

    /// The address that it is bound to.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Takes what has arrived, without waiting. Returns whether more may be there.
    ///
    /// # Errors
    /// When the socket itself is broken; errors that belong to earlier sends are passed over.
    pub fn recv_batch(&self, batch: &mut RecvBatch) -> io::Result<bool> {
        batch.fill(self.socket.as_raw_fd(), usize::MAX)
    }

    /// The same for RTCP, where it is received apart; else there is never any.
    ///
    /// # Errors
    /// As [`UdpSocket::recv_batch`].
    pub fn recv_feedback(&self, batch: &mut RecvBatch) -> io::Result<bool> {
        match &self.sorted {
            Some(sorted) => batch.fill(sorted.feedback.as_raw_fd(), usize::MAX),
            None => Ok(batch.clear()),
        }
    }

    /// The same for STUN and DTLS, at most so many (or, joined by the kernel, a few more).
    ///
    /// # Errors
    /// As [`UdpSocket::recv_batch`].
    pub fn recv_connect(&self, batch: &mut RecvBatch, most: usize) -> io::Result<bool> {
        match &self.sorted {
            Some(sorted) => batch.fill(sorted.connect.as_raw_fd(), most),
            None => Ok(batch.clear()),
        }
    }

    /// Whether anything is received apart from media.
    pub fn is_sorted(&self) -> bool {
        self.sorted.is_some()
    }

    /// Sends everything in the queue. What the kernel does not take is dropped and counted, as a network would.
    pub fn send(&mut self, queue: &TxQueue) -> SendReport {
        self.sender.send(queue)
    }

    /// Waits until datagrams arrive, the waker is used, or the time is over. `None` waits without end. RTCP that is received
    /// apart wakes where `for_feedback` says so.
    ///
    /// # Errors
    /// When `poll` fails for another reason than a signal.
    pub fn wait(
        &self,
        waker: &Waker,
        timeout: Option<Duration>,
        for_feedback: bool,
    ) -> io::Result<Readiness> {
        // A negative descriptor is passed over.
        let feedback = self.sorted.as_ref().filter(|_| for_feedback).map_or(-1, |s| s.feedback.as_raw_fd());
        let connect = self.sorted.as_ref().map_or(-1, |s| s.connect.as_raw_fd());
        let mut fds = [
            libc::pollfd { fd: self.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 },
            libc::pollfd { fd: waker.raw_fd(), events: libc::POLLIN, revents: 0 },
            libc::pollfd { fd: feedback, events: libc::POLLIN, revents: 0 },
            libc::pollfd { fd: connect, events: libc::POLLIN, revents: 0 },
        ];
        let timespec = timeout.map(|t| libc::timespec {
            tv_sec: t.as_secs().min(i32::MAX as u64) as _,
            tv_nsec: t.subsec_nanos() as _,
        });
        let pointer = timespec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: `fds` is a live array of the length given; the timespec, where there is one, outlives the call; a null
        // signal mask leaves the mask alone.
        let n = unsafe { libc::ppoll(fds.as_mut_ptr(), fds.len() as _, pointer, std::ptr::null()) };
        if n < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
            return Ok(Readiness::default());
        }
        let woken = fds[1].revents != 0;
        if woken {
            waker.reset();
        }
        Ok(Readiness {
            readable: fds[0].revents != 0,
            feedback: fds[2].revents != 0,
            connect: fds[3].revents != 0,
            woken,
        })
    }

    /// Whether segmentation offload is in use.
    pub fn offload(&self) -> bool {
        self.sender.gso
    }
}

/// Asks for receive offload. Kernels that have it (5.0) also have segmentation offload (4.18).
pub(crate) fn enable_gro(fd: std::os::fd::RawFd) -> bool {
    turn_on(fd, libc::SOL_UDP, libc::UDP_GRO).is_ok()
}

/// Sets an option that is on or off.
pub(crate) fn turn_on(fd: std::os::fd::RawFd, level: libc::c_int, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the pointer and length describe `on`.
    let result = unsafe {
        libc::setsockopt(
            fd,
            level,
            option,
            (&raw const on).cast(),
            std::mem::size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
