//! Sending a queue of datagrams: segmentation offload per run, `sendmmsg` over runs.

use std::io;
use std::net::{SocketAddr, SocketAddrV6};
use std::os::fd::RawFd;

use arrayvec::ArrayVec;
use sfu_media::tx::{Transmit, TxQueue};

use crate::cmsg::Control;

/// Messages handed to the kernel in one call.
const MESSAGES: usize = 64;

/// What became of a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SendReport {
    /// Datagrams that the kernel took.
    pub sent: u64,
    /// Datagrams that it did not: its buffer was full or the destination cannot be reached.
    pub dropped: u64,
    /// Segmentation offload failed in this call and is off from now on.
    pub gso_disabled: bool,
}

/// How to reach destinations of this socket.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sender {
    pub(crate) fd: RawFd,
    pub(crate) gso: bool,
    /// The kernel has segmented a run of this socket: it can, and where it refuses one, that run is the reason.
    pub(crate) gso_works: bool,
    pub(crate) dual_stack: bool,
}

impl Sender {
    pub(crate) fn send(&mut self, queue: &TxQueue) -> SendReport {
        let mut report = SendReport::default();
        let mut rest = queue.runs();
        while !rest.is_empty() {
            let used = if self.gso { rest.len().min(MESSAGES) } else { 1 };
            let (now, later) = rest.split_at(used);
            if self.gso {
                self.send_runs(queue.buffer(), now, &mut report);
            } else {
                self.send_singly(queue.buffer(), &now[0], &mut report);
            }
            rest = later;
        }
        report
    }

    fn send_runs(&mut self, buffer: &[u8], runs: &[Transmit], report: &mut SendReport) {
        let mut rest = runs;
        while let Some(first) = rest.first() {
            let segmented = first.len > first.segment;
            match self.sendmmsg(buffer, rest.iter().map(Part::of)) {
                Ok(sent) => {
                    let (gone, later) = rest.split_at(sent.min(rest.len()));
                    self.gso_works |= gone.iter().any(|run| run.len > run.segment);
                    report.sent += gone.iter().map(|run| run.datagrams() as u64).sum::<u64>();
                    rest = later;
                    continue;
                }
                // EINVAL or, from Linux 6.14 on, EMSGSIZE: the segments exceed the MTU of the way to this destination, which
                // one receiver's tunnel or one sender's large packets bring about. Singly they are fragmented.
                Err(e)
                    if segmented
                        && self.gso_works
                        && matches!(e.raw_os_error(), Some(libc::EMSGSIZE | libc::EINVAL)) =>
                {
                    self.send_singly(buffer, first, report);
                }
                // EIO: the device cannot checksum; EINVAL: it cannot segment. Plain datagrams from here on.
                Err(e) if segmented && matches!(e.raw_os_error(), Some(libc::EIO | libc::EINVAL)) => {
                    self.gso = false;
                    report.gso_disabled = true;
                    for run in rest {
                        self.send_singly(buffer, run, report);
                    }
                    return;
                }
                // The first message failed: a full buffer or an unreachable destination costs that message only.
                Err(_) => report.dropped += first.datagrams() as u64,
            }
            rest = &rest[1..];
        }
    }

    fn send_singly(&self, buffer: &[u8], run: &Transmit, report: &mut SendReport) {
        let end = run.offset + run.len;
        let part = |offset| Part { dst: run.dst, offset, len: run.segment.min(end - offset), segment: 0 };
        let count = run.datagrams().min(MESSAGES);
        let mut next = 0;
        while next < count {
            let offsets = (run.offset..end).step_by(run.segment.max(1)).take(count).skip(next);
            match self.sendmmsg(buffer, offsets.map(part)) {
                Ok(sent) => {
                    report.sent += sent as u64;
                    next += sent;
                }
                Err(_) => {
                    report.dropped += 1;
                    next += 1;
                }
            }
        }
    }

    /// One system call with the first [`MESSAGES`] of the parts; how many of them went, at least one.
    fn sendmmsg(&self, buffer: &[u8], parts: impl Iterator<Item = Part>) -> io::Result<usize> {
        // Not arrays: to clear their 20 KiB would take longer than the call of one message.
        let mut iovecs = ArrayVec::<libc::iovec, MESSAGES>::new();
        let mut addresses = ArrayVec::<Address, MESSAGES>::new();
        let mut controls = ArrayVec::<(Control, usize), MESSAGES>::new();
        for part in parts.take(MESSAGES) {
            let bytes = &buffer[part.offset..part.offset + part.len];
            iovecs.push(libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() });
            addresses.push(Address::of(part.dst, self.dual_stack));
            let mut control = Control::new();
            let len = if part.segment > 0 { control.set_segment(part.segment as u16) } else { 0 };
            controls.push((control, len));
        }
        let mut headers = ArrayVec::<libc::mmsghdr, MESSAGES>::new();
        for ((iovec, address), (control, control_len)) in
            iovecs.iter_mut().zip(&mut addresses).zip(&mut controls)
        {
            // SAFETY: an all-zero mmsghdr is valid: null pointers with zero lengths.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            let (name, name_len) = address.raw();
            header.msg_hdr.msg_name = name;
            header.msg_hdr.msg_namelen = name_len;
            header.msg_hdr.msg_iov = iovec;
            header.msg_hdr.msg_iovlen = 1;
            if *control_len > 0 {
                header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
                header.msg_hdr.msg_controllen = *control_len as _;
            }
            headers.push(header);
        }
        // SAFETY: all headers point to live memory of the lengths beside them (the queue's buffer, and addresses, controls
        // and iovecs on this stack frame, which do not move any more); sendmmsg only reads what they point to.
        let sent = unsafe {
            libc::sendmmsg(self.fd, headers.as_mut_ptr(), headers.len() as u32, libc::MSG_DONTWAIT as _)
        };
        if sent <= 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
    }
}

/// One message of a call: a run with its segment size, or one datagram of a run with none.
struct Part {
    dst: SocketAddr,
    offset: usize,
    len: usize,
    segment: usize,
}

impl Part {
    fn of(run: &Transmit) -> Self {
        let segment = if run.len > run.segment { run.segment } else { 0 };
        Self { dst: run.dst, offset: run.offset, len: run.len, segment }
    }
}

/// A destination as the kernel reads it.
enum Address {
    V4(libc::sockaddr_in),
    V6(libc::sockaddr_in6),
}

impl Address {
    fn of(dst: SocketAddr, dual_stack: bool) -> Self {
        match dst {
            SocketAddr::V4(v4) if dual_stack => {
                Self::v6(&SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0))
            }
            SocketAddr::V4(v4) => Self::V4(libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from(*v4.ip()).to_be() },
                sin_zero: [0; 8],
            }),
            SocketAddr::V6(v6) => Self::v6(&v6),
        }
    }

    fn v6(v6: &SocketAddrV6) -> Self {
        Self::V6(libc::sockaddr_in6 {
            sin6_family: libc::AF_INET6 as libc::sa_family_t,
            sin6_port: v6.port().to_be(),
            sin6_flowinfo: v6.flowinfo(),
            sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
            sin6_scope_id: v6.scope_id(),
        })
    }

    fn raw(&mut self) -> (*mut libc::c_void, libc::socklen_t) {
        match self {
            Self::V4(v4) => ((&raw mut *v4).cast(), std::mem::size_of_val(v4) as _),
            Self::V6(v6) => ((&raw mut *v6).cast(), std::mem::size_of_val(v6) as _),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;

    use super::*;

    /// The kernel refuses what has more segments than it takes with the same error as segments beyond the path's MTU.
    #[test]
    fn a_run_that_cannot_be_segmented_costs_no_other_run_its_offload() {
        let to = UdpSocket::bind("127.0.0.1:0").unwrap();
        let from = UdpSocket::bind("127.0.0.1:0").unwrap();
        let dst = to.local_addr().unwrap();
        let mut sender = Sender { fd: from.as_raw_fd(), gso: true, gso_works: false, dual_stack: false };
        let buffer = vec![7; 2000];
        let good = Transmit { dst, offset: 0, len: 100, segment: 40 };
        let refused = Transmit { dst, offset: 0, len: 1000, segment: 1 };
        let mut report = SendReport::default();
        sender.send_runs(&buffer, &[good, refused, good], &mut report);
        assert!(sender.gso && !report.gso_disabled, "{report:?}");
        assert_eq!(report.dropped, 0);
        // The refused run went singly, as far as one call takes it.
        assert_eq!(report.sent, 3 + MESSAGES as u64 + 3);
        to.set_read_timeout(Some(std::time::Duration::from_secs(1))).unwrap();
        let mut sizes = vec![];
        for _ in 0..6 + MESSAGES {
            sizes.push(to.recv(&mut [0; 100]).unwrap());
        }
        assert_eq!(
            (sizes[..3].to_vec(), sizes[3 + MESSAGES..].to_vec()),
            (vec![40, 40, 20], vec![40, 40, 20])
        );
    }
}
