//! When datagrams arrived by the kernel's clock: for measuring, where it must not count when the reader gets round to them.
//! Those that were sent as one, segmented, may be taken as one.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use crate::cmsg::{Control, SPACE};
use crate::recv::address_of;
use crate::socket::{enable_gro, turn_on};

/// One datagram received, or a run of them after [`join_arrivals`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamped {
    /// Bytes of all of them; what did not fit into the buffer is lost.
    pub len: usize,
    /// Bytes of each, the last of which may be shorter.
    pub segment: usize,
    /// Who sent it.
    pub from: SocketAddr,
    /// When the kernel queued it, since 1970 (`CLOCK_REALTIME`); `None` where it does not say.
    pub arrived: Option<Duration>,
}

/// Has the kernel note when datagrams arrive at a socket. Where nobody on the machine had asked for that before, it begins some
/// milliseconds later; until then the time is that of the reading.
///
/// # Errors
/// As the kernel says.
pub fn stamp_arrivals(socket: &impl AsFd) -> io::Result<()> {
    turn_on(socket.as_fd().as_raw_fd(), libc::SOL_SOCKET, libc::SO_TIMESTAMPNS)
}

/// Has the kernel keep together what was sent as one, segmented. Buffers need [`LONGEST_RUN`](crate::LONGEST_RUN) bytes from then on. Returns whether
/// it does so.
pub fn join_arrivals(socket: &impl AsFd) -> bool {
    enable_gro(socket.as_fd().as_raw_fd())
}

/// Takes one datagram, or one run of them, without waiting.
///
/// # Errors
/// As `recvmsg`: `WouldBlock` when nothing is there.
pub fn recv_stamped(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<Stamped> {
    let mut control = Control::new();
    // SAFETY: an all-zero sockaddr_storage is valid (family AF_UNSPEC).
    let mut address: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut iovec = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: an all-zero msghdr is valid: null pointers with zero lengths.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = (&raw mut address).cast();
    header.msg_namelen = std::mem::size_of::<libc::sockaddr_storage>() as _;
    header.msg_iov = &raw mut iovec;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = SPACE as _;
    // SAFETY: every pointer in `header` is to live memory of the length beside it, none aliased, all outliving the call.
    let n = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
    let len = usize::try_from(n).map_err(|_| io::Error::last_os_error())?;
    let from = address_of(&address).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    let segment = control.gro_segment(header.msg_controllen).unwrap_or(len).max(1);
    Ok(Stamped { len, segment, from, arrived: control.arrival(header.msg_controllen) })
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_datagram_has_the_time_of_its_arrival_and_not_that_of_its_reading() {
        let (to, from) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
        stamp_arrivals(&to).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(recv_stamped(&to, &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let unix = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        let mut send_and_read_later = || {
            let before = unix();
            from.send_to(b"hello", to.local_addr().unwrap()).unwrap();
            let after = unix();
            std::thread::sleep(Duration::from_millis(30));
            let read = unix();
            let got = recv_stamped(&to, &mut buffer).unwrap();
            assert_eq!((got.len, got.from), (5, from.local_addr().unwrap()));
            (before, after, read, got.arrived.unwrap())
        };
        // Where nobody on the machine had asked for times, the kernel turns them on in the background; what has none is
        // stamped when it is read.
        let until = unix() + Duration::from_secs(10);
        let (before, after, _, arrived) = loop {
            let got = send_and_read_later();
            let (_, _, read, arrived) = got;
            if arrived < read || read > until {
                break got;
            }
        };
        // Sent and queued in one go on loopback; the clock may be a tick coarser.
        let tick = Duration::from_millis(5);
        assert!(arrived + tick >= before && arrived <= after + tick, "{before:?} {arrived:?} {after:?}");
    }
}
