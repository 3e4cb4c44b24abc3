//! Sending a queue of datagrams: segmentation offload per run, `sendmmsg` over runs.

use std::io;
use std::os::fd::RawFd;

use sfu_media::tx::{Transmit, TxQueue};
use socket2::SockAddr;

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
        let mut parts = [Part::EMPTY; MESSAGES];
        for (part, run) in parts.iter_mut().zip(runs) {
            let segment = if run.datagrams() > 1 { run.segment } else { 0 };
            *part = Part { run: *run, offset: run.offset, len: run.len, segment };
        }
        let mut next = 0;
        while next < runs.len() {
            match self.sendmmsg(buffer, &parts[next..runs.len()]) {
                Ok(sent) => {
                    self.gso_works |= parts[next..next + sent].iter().any(|p| p.segment > 0);
                    report.sent +=
                        parts[next..next + sent].iter().map(|p| p.run.datagrams() as u64).sum::<u64>();
                    next += sent;
                }
                // EINVAL or, from Linux 6.14 on, EMSGSIZE: the segments exceed the MTU of the way to this destination, which
                // one receiver's tunnel or one sender's large packets bring about. Singly they are fragmented.
                Err(e)
                    if parts[next].segment > 0
                        && self.gso_works
                        && matches!(e.raw_os_error(), Some(libc::EMSGSIZE | libc::EINVAL)) =>
                {
                    self.send_singly(buffer, &parts[next].run, report);
                    next += 1;
                }
                // EIO: the device cannot checksum; EINVAL: it cannot segment. Plain datagrams from here on.
                Err(e)
                    if parts[next].segment > 0
                        && matches!(e.raw_os_error(), Some(libc::EIO | libc::EINVAL)) =>
                {
                    self.gso = false;
                    report.gso_disabled = true;
                    for part in &parts[next..runs.len()] {
                        self.send_singly(buffer, &part.run, report);
                    }
                    return;
                }
                // The first message failed: a full buffer or an unreachable destination costs that message only.
                Err(_) => {
                    report.dropped += parts[next].run.datagrams() as u64;
                    next += 1;
                }
            }
        }
    }

    fn send_singly(&self, buffer: &[u8], run: &Transmit, report: &mut SendReport) {
        let mut parts = [Part::EMPTY; MESSAGES];
        let mut count = 0;
        let end = run.offset + run.len;
        for (part, offset) in parts.iter_mut().zip((run.offset..end).step_by(run.segment.max(1))) {
            *part = Part { run: *run, offset, len: run.segment.min(end - offset), segment: 0 };
            count += 1;
        }
        let mut next = 0;
        while next < count {
            match self.sendmmsg(buffer, &parts[next..count]) {
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

    /// One system call; how many of the messages went, at least one.
    fn sendmmsg(&self, buffer: &[u8], parts: &[Part]) -> io::Result<usize> {
        debug_assert!(parts.len() <= MESSAGES);
        let count = parts.len().min(MESSAGES);
        // SAFETY: all-zero iovec and mmsghdr are valid: null pointers with zero lengths.
        let mut iovecs: [libc::iovec; MESSAGES] = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        let mut headers: [libc::mmsghdr; MESSAGES] = unsafe { std::mem::zeroed() };
        let mut controls = [Control::new(); MESSAGES];
        let mut addresses: [Option<SockAddr>; MESSAGES] = [const { None }; MESSAGES];
        for (i, part) in parts[..count].iter().enumerate() {
            let bytes = &buffer[part.offset..part.offset + part.len];
            iovecs[i] = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            let address = addresses[i].insert(SockAddr::from(self.destination(part)));
            let header = &mut headers[i].msg_hdr;
            header.msg_name = address.as_ptr().cast_mut().cast();
            header.msg_namelen = address.len();
            header.msg_iov = &raw mut iovecs[i];
            header.msg_iovlen = 1;
            if part.segment > 0 {
                header.msg_controllen = controls[i].set_segment(part.segment as u16) as _;
                header.msg_control = controls[i].0.as_mut_ptr().cast();
            }
        }
        // SAFETY: the first `count` headers point to live memory of the lengths beside them (the queue's buffer, and
        // addresses, controls and iovecs on this stack frame); sendmmsg only reads what they point to.
        let sent =
            unsafe { libc::sendmmsg(self.fd, headers.as_mut_ptr(), count as u32, libc::MSG_DONTWAIT as _) };
        if sent <= 0 { Err(io::Error::last_os_error()) } else { Ok(sent as usize) }
    }

    fn destination(&self, part: &Part) -> std::net::SocketAddr {
        match part.run.dst {
            std::net::SocketAddr::V4(v4) if self.dual_stack => (v4.ip().to_ipv6_mapped(), v4.port()).into(),
            other => other,
        }
    }
}

/// One message of a call: a run with its segment size, or one datagram of a run with none.
#[derive(Clone, Copy)]
struct Part {
    run: Transmit,
    offset: usize,
    len: usize,
    segment: usize,
}

impl Part {
    const EMPTY: Part = Part {
        run: Transmit {
            dst: std::net::SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::UNSPECIFIED, 0)),
            offset: 0,
            len: 0,
            segment: 1,
        },
        offset: 0,
        len: 0,
        segment: 0,
    };
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
