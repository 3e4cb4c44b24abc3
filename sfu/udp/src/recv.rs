//! A batch of received datagrams.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::RawFd;

use arrayvec::ArrayVec;

use crate::cmsg::{Control, SPACE};

/// Messages taken from the kernel in one call at most ..
const MESSAGES: usize = 32;
/// .. and at least, unless fewer are asked for: a frame. What describes them is made for each call; for all of them that is 40
/// lines of memory, which a thread that slept for a while finds cold.
const FEW: usize = 12;
/// Bytes of the longest message: with receive offload the kernel joins a run of datagrams up to this.
pub const LONGEST_RUN: usize = 65_536;
/// From one message's memory to the next. A power of two would put the starts of all into the same few sets of the caches, where
/// they displace each other: so beside each other lie what datagrams mostly have, 20 lines.
const STRIDE: usize = LONGEST_RUN + 20 * 64;

/// Memory for one `recvmmsg`, reused for ever.
pub struct RecvBatch {
    buffers: Vec<u8>,
    controls: Vec<Control>,
    addresses: Vec<libc::sockaddr_storage>,
    /// Length, and the size of the datagrams joined in it.
    received: Vec<(SocketAddr, usize, usize)>,
    /// Messages to ask for the next time: more after there were many.
    ask: usize,
}

impl std::fmt::Debug for RecvBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecvBatch").field("messages", &self.received.len()).finish_non_exhaustive()
    }
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl RecvBatch {
    /// Reserves all memory that it will ever use: 2 MiB.
    pub fn new() -> Self {
        // SAFETY: an all-zero sockaddr_storage is valid (family AF_UNSPEC).
        let address: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        Self {
            buffers: vec![0; MESSAGES * STRIDE],
            controls: vec![Control::new(); MESSAGES],
            addresses: vec![address; MESSAGES],
            received: Vec::with_capacity(MESSAGES),
            ask: FEW,
        }
    }

    /// Takes what has arrived, without waiting, in at most so many messages. Returns whether there were as many, so that
    /// more may be there.
    pub(crate) fn fill(&mut self, fd: RawFd, most: usize) -> io::Result<bool> {
        let most = most.min(self.ask);
        self.received.clear();
        let parts = self.buffers.chunks_exact_mut(STRIDE).zip(&mut self.addresses).zip(&mut self.controls);
        let mut iovecs: ArrayVec<libc::iovec, MESSAGES> = ArrayVec::new();
        let mut headers: ArrayVec<libc::mmsghdr, MESSAGES> = ArrayVec::new();
        for ((chunk, address), control) in parts.take(most) {
            iovecs.push(libc::iovec { iov_base: chunk.as_mut_ptr().cast(), iov_len: LONGEST_RUN });
            // SAFETY: an all-zero mmsghdr is valid: null pointers with zero lengths.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_name = std::ptr::from_mut(address).cast();
            header.msg_hdr.msg_namelen = std::mem::size_of::<libc::sockaddr_storage>() as _;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = SPACE as _;
            headers.push(header);
        }
        for (header, iovec) in headers.iter_mut().zip(&mut iovecs) {
            header.msg_hdr.msg_iov = iovec;
        }
        // SAFETY: every pointer in `headers` is to live memory of the length beside it: `iovecs` on this stack frame,
        // buffers, addresses and controls owned by `self`, none aliased, all outliving the call.
        let n = unsafe {
            libc::recvmmsg(
                fd,
                headers.as_mut_ptr(),
                headers.len() as u32,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        if n < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                // These alone mean that the socket is broken.
                Some(libc::EBADF | libc::ENOTSOCK | libc::EFAULT | libc::EINVAL) => Err(error),
                // Nothing is there, or the kernel is short of memory; the next readiness tells.
                Some(libc::EAGAIN | libc::EINTR | libc::ENOMEM | libc::ENOBUFS) => Ok(false),
                // ECONNREFUSED and its like report an earlier send; they are no fault of this socket.
                _ => Ok(true),
            };
        }
        let n = n as usize;
        for (i, header) in headers[..n].iter().enumerate() {
            let len = header.msg_len as usize;
            let Some(from) = address_of(&self.addresses[i]) else {
                self.received.push((SocketAddr::from(([0, 0, 0, 0], 0)), 0, 1));
                continue;
            };
            let segment = self.controls[i].gro_segment(header.msg_hdr.msg_controllen).unwrap_or(len);
            self.received.push((from, len, segment.max(1)));
        }
        self.ask = (2 * n).clamp(FEW, MESSAGES);
        Ok(n == most)
    }

    /// Holds nothing from now on, and says that nothing more is there.
    pub(crate) fn clear(&mut self) -> bool {
        self.received.clear();
        false
    }

    /// Every datagram received, joined ones taken apart, to be worked on in place.
    pub fn datagrams(&mut self) -> impl Iterator<Item = (SocketAddr, &mut [u8])> {
        self.buffers.chunks_exact_mut(STRIDE).zip(&self.received).flat_map(|(chunk, (from, len, segment))| {
            chunk[..*len].chunks_mut(*segment).map(move |datagram| (*from, datagram))
        })
    }

    /// Whether nothing was received.
    pub fn is_empty(&self) -> bool {
        self.received.is_empty()
    }
}

pub(crate) fn address_of(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: sockaddr_storage is larger than and aligned for every socket address; for this family the kernel
            // filled in a sockaddr_in, whose fields are plain integers.
            let v4 = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddr::new(ip.into(), u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, with a sockaddr_in6.
            let v6 = unsafe { &*std::ptr::from_ref(storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let address = SocketAddrV6::new(ip, u16::from_be(v6.sin6_port), 0, v6.sin6_scope_id);
            Some(canonical(address.into()))
        }
        _ => None,
    }
}

/// An IPv4 peer of a dual-stack socket as what it is.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::new(v4.into(), address.port()),
        IpAddr::V6(_) => address,
    }
}
