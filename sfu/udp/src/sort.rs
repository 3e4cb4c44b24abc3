//! More sockets on the same port: for RTCP, and for what connections are made of. The kernel sorts datagrams among them
//! (`SO_ATTACH_REUSEPORT_CBPF`).
//!
//! Receivers report ten or twenty times a second each, whatever the media does: with many of them a thread that waits for
//! its one socket is woken for reports above all. Apart, they can be collected for some milliseconds while media still
//! wakes at once, and so do requests for retransmissions and key frames. And a handshake costs what hundreds of packets do: when many join at once, media need not stand in one
//! line with them.

use std::io;
use std::net::UdpSocket as StdSocket;
use std::os::fd::{AsRawFd, RawFd};

use socket2::{Domain, Protocol, Socket, Type};

/// Index of a socket in its port's group: the one that was there first, and those opened here.
const MEDIA: u32 = 0;
const FEEDBACK: u32 = 1;
const CONNECT: u32 = 2;

/// The sockets beside that of media.
#[derive(Debug)]
pub(crate) struct Sorted {
    /// RTCP.
    pub(crate) feedback: StdSocket,
    /// STUN, DTLS, and what is none of these.
    pub(crate) connect: StdSocket,
}

impl Sorted {
    /// Opens them beside `first`, which is bound already: that it was bound alone found out whether somebody else has the
    /// port.
    pub(crate) fn open(
        first: &Socket,
        domain: Domain,
        dual_stack: bool,
        buffer_bytes: usize,
    ) -> io::Result<Self> {
        first.set_reuse_port(true)?;
        let address = first.local_addr()?;
        let another = || {
            let socket = Socket::new(domain, Type::DGRAM.cloexec().nonblocking(), Some(Protocol::UDP))?;
            if domain == Domain::IPV6 {
                socket.set_only_v6(!dual_stack)?;
            }
            // The kernel caps it at net.core.rmem_max without an error.
            let _ = socket.set_recv_buffer_size(buffer_bytes);
            socket.set_reuse_port(true)?;
            socket.bind(&address)?;
            Ok(socket)
        };
        let both = another().and_then(|feedback| Ok((feedback, another()?)));
        let sorted = both.and_then(|both| sort(first.as_raw_fd()).map(|()| both));
        let (feedback, connect) = sorted.inspect_err(|_: &io::Error| {
            // Closing the others leaves the first with the port to itself.
            let _ = first.set_reuse_port(false);
        })?;
        Ok(Self { feedback: feedback.into(), connect: connect.into() })
    }
}

/// Tells datagrams by their first two bytes, as [RFC 7983](https://www.rfc-editor.org/rfc/rfc7983) and
/// [RFC 5761 section 4](https://www.rfc-editor.org/rfc/rfc5761#section-4) have it: 128 to 191 is RTP or, with 192 to 223 behind it,
/// RTCP. Both bytes are in clear in SRTP and SRTCP. Of RTCP it collects what begins with a report (200, 201) or transport-wide
/// feedback (205 with format 15); with [reduced size](https://www.rfc-editor.org/rfc/rfc5506) a request begins with
/// itself. A datagram that is too short ends the program with 0, which is the first socket.
fn sort(fd: RawFd) -> io::Result<()> {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        op(LOAD, 0, 0, 0),
        op(AND, 0, 0, 0xc0),
        op(EQUAL, 0, 9, 0x80),
        op(LOAD, 0, 0, 1),
        op(EQUAL, 5, 0, 200),
        op(EQUAL, 4, 0, 201),
        op(EQUAL, 0, 4, 205),
        op(LOAD, 0, 0, 0),
        op(AND, 0, 0, 0x1f),
        op(EQUAL, 0, 1, 15),
        op(RETURN, 0, 0, FEEDBACK),
        op(RETURN, 0, 0, MEDIA),
        op(RETURN, 0, 0, CONNECT),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // SAFETY: `filter` describes the array beside it; both outlive the call, which copies the program.
    let result = unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const filter).cast(),
            std::mem::size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
