//! A receive and a send loop with nothing around them: what the system calls cost by themselves. For the floor that the
//! relay's own path is measured against; the relay does not use it. IPv4 only, and every error ends it.

use std::io;
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd;

use crate::cmsg::Control;

/// Bytes of one receive buffer.
const DATAGRAM: usize = 2048;

/// Memory for one `recvmmsg`.
pub struct BareReceiver {
    buffer: Vec<u8>,
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    lens: Vec<usize>,
}

impl BareReceiver {
    /// For at most so many datagrams in one call.
    pub fn new(datagrams: usize) -> Self {
        // SAFETY: an all-zero mmsghdr is valid: null pointers with zero lengths.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        Self {
            buffer: vec![0; datagrams * DATAGRAM],
            iovecs: vec![libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; datagrams],
            headers: vec![header; datagrams],
            lens: Vec::with_capacity(datagrams),
        }
    }

    /// Takes what is there; returns the number of datagrams.
    ///
    /// # Errors
    /// As the kernel says, also when nothing is there.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        for ((chunk, iovec), header) in
            self.buffer.chunks_exact_mut(DATAGRAM).zip(&mut self.iovecs).zip(&mut self.headers)
        {
            *iovec = libc::iovec { iov_base: chunk.as_mut_ptr().cast(), iov_len: DATAGRAM };
            header.msg_hdr.msg_iov = iovec;
            header.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: each header points to one iovec, each iovec to its own DATAGRAM bytes of the buffer; both outlive the
        // call.
        let n = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as u32,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        self.lens.clear();
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        self.lens.extend(self.headers[..n as usize].iter().map(|h| h.msg_len as usize));
        Ok(n as usize)
    }

    /// A datagram of the last [`Self::receive`].
    ///
    /// # Panics
    /// When there were not so many.
    pub fn datagram(&mut self, index: usize) -> &mut [u8] {
        &mut self.buffer[index * DATAGRAM..][..self.lens[index]]
    }
}

/// Memory for one `sendmmsg`, with segmentation offload.
pub struct BareSender {
    addresses: Vec<libc::sockaddr_in>,
    buffer: Vec<u8>,
    iovecs: Vec<libc::iovec>,
    controls: Vec<Control>,
    headers: Vec<libc::mmsghdr>,
    queued: usize,
}

impl BareSender {
    /// Sends to these addresses, at most `messages` in a call, out of a buffer of `bytes`.
    pub fn new(to: &[SocketAddrV4], messages: usize, bytes: usize) -> Self {
        // SAFETY: an all-zero mmsghdr is valid: null pointers with zero lengths.
        let header: libc::mmsghdr = unsafe { std::mem::zeroed() };
        let address = |to: &SocketAddrV4| libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: to.port().to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from(*to.ip()).to_be() },
            sin_zero: [0; 8],
        };
        Self {
            addresses: to.iter().map(address).collect(),
            buffer: vec![0; bytes],
            iovecs: vec![libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; messages],
            controls: vec![Control::new(); messages],
            headers: vec![header; messages],
            queued: 0,
        }
    }

    /// What is sent out of.
    pub fn buffer(&mut self) -> &mut [u8] {
        &mut self.buffer
    }

    /// Messages queued.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Queues `buffer[offset..offset + len]` for the receiver of that index, in segments of so many bytes.
    ///
    /// # Panics
    /// When there is no such receiver, range or message.
    pub fn queue(&mut self, receiver: usize, offset: usize, len: usize, segment: usize) {
        let at = self.queued;
        let bytes = &mut self.buffer[offset..offset + len];
        self.iovecs[at] = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: len };
        let header = &mut self.headers[at].msg_hdr;
        header.msg_name = (&raw mut self.addresses[receiver]).cast();
        header.msg_namelen = std::mem::size_of::<libc::sockaddr_in>() as _;
        header.msg_iov = &raw mut self.iovecs[at];
        header.msg_iovlen = 1;
        header.msg_control = std::ptr::null_mut();
        header.msg_controllen = 0;
        if len > segment {
            header.msg_controllen = self.controls[at].set_segment(segment as u16) as _;
            header.msg_control = self.controls[at].0.as_mut_ptr().cast();
        }
        self.queued += 1;
    }

    /// Sends what is queued.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn flush(&mut self, socket: &UdpSocket) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.queued {
            // SAFETY: the headers up to `queued` were filled by `queue` since the last flush; what they point to is owned
            // by `self`, none of whose vectors has changed its place since.
            let n = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    self.headers.as_mut_ptr().add(sent),
                    (self.queued - sent) as u32,
                    0,
                )
            };
            if n <= 0 {
                self.queued = 0;
                return Err(io::Error::last_os_error());
            }
            sent += n as usize;
        }
        self.queued = 0;
        Ok(())
    }
}

impl std::fmt::Debug for BareReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BareReceiver(..)")
    }
}

impl std::fmt::Debug for BareSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BareSender(..)")
    }
}
