//! Room for one control message, aligned as the kernel wants it.

use std::time::Duration;

/// Bytes for one control message with a `u16` or `c_int` in it, with padding to spare.
pub(crate) const SPACE: usize = 64;

/// A control-message buffer.
#[derive(Clone, Copy)]
#[repr(C, align(16))]
pub(crate) struct Control(pub(crate) [u8; SPACE]);

impl Control {
    pub(crate) const fn new() -> Self {
        Self([0; SPACE])
    }

    /// Writes `UDP_SEGMENT = segment` and returns the length to announce in `msg_controllen`.
    pub(crate) fn set_segment(&mut self, segment: u16) -> usize {
        // SAFETY: CMSG_SPACE computes from its argument alone.
        let space = unsafe { libc::CMSG_SPACE(std::mem::size_of::<u16>() as u32) } as usize;
        assert!(space <= SPACE, "one u16 control message fits the buffer");
        // SAFETY: an all-zero msghdr is valid: null pointers with zero lengths.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_control = self.0.as_mut_ptr().cast();
        header.msg_controllen = space as _;
        // SAFETY: msg_control points to `space` live bytes, aligned to 16, so the first header lies inside them, and
        // CMSG_DATA of it leaves room for a u16 by the definition of CMSG_SPACE.
        unsafe {
            let cmsg = libc::CMSG_FIRSTHDR(&header);
            assert!(!cmsg.is_null(), "the buffer holds one header");
            (*cmsg).cmsg_level = libc::SOL_UDP;
            (*cmsg).cmsg_type = libc::UDP_SEGMENT;
            (*cmsg).cmsg_len = libc::CMSG_LEN(std::mem::size_of::<u16>() as u32) as _;
            libc::CMSG_DATA(cmsg).cast::<u16>().write_unaligned(segment);
        }
        space
    }

    /// The segment size that `UDP_GRO` reported, if it did.
    pub(crate) fn gro_segment(&self, len: usize) -> Option<usize> {
        let size: libc::c_int = self.find(len, libc::SOL_UDP, libc::UDP_GRO)?;
        usize::try_from(size).ok().filter(|s| *s > 0)
    }

    /// The time since 1970 that `SO_TIMESTAMPNS` reported, if it did.
    pub(crate) fn arrival(&self, len: usize) -> Option<Duration> {
        let at: [libc::c_long; 2] = self.find(len, libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS)?;
        Some(Duration::new(
            u64::try_from(at[0]).ok()?,
            u32::try_from(at[1]).ok().filter(|ns| *ns < 1_000_000_000)?,
        ))
    }

    /// The value of the message of a kind, among the first `len` bytes. `T` is made of integers.
    fn find<T: Value>(&self, len: usize, level: libc::c_int, kind: libc::c_int) -> Option<T> {
        // SAFETY: an all-zero msghdr is valid.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_control = self.0.as_ptr().cast_mut().cast();
        header.msg_controllen = len.min(SPACE) as _;
        // SAFETY: msg_control points to at least msg_controllen live bytes that the kernel filled in; the macros stay
        // inside them and return null at the end. They are only read, and a value only where its message is long enough
        // for it; any bytes are a valid `T`.
        unsafe {
            let needed = libc::CMSG_LEN(std::mem::size_of::<T>() as u32) as usize;
            let mut cmsg = libc::CMSG_FIRSTHDR(&header);
            while !cmsg.is_null() {
                let is_it = (*cmsg).cmsg_level == level && (*cmsg).cmsg_type == kind;
                if is_it && (*cmsg).cmsg_len as usize >= needed {
                    return Some(libc::CMSG_DATA(cmsg).cast::<T>().read_unaligned());
                }
                cmsg = libc::CMSG_NXTHDR(&header, cmsg);
            }
        }
        None
    }
}

/// Values of control messages: plain integers.
trait Value: Copy {}
impl Value for libc::c_int {}
impl Value for [libc::c_long; 2] {}
