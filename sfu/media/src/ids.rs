//! Identifiers and wire numbers, one type per meaning.

use std::fmt;
use std::net::SocketAddr;

use arrayvec::ArrayString;

macro_rules! wire_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

wire_id! {
    /// One transport: the relay's end of one client `RTCPeerConnection`. Unique in a node, never reused.
    PeerId(u64)
}
wire_id! {
    /// One published track. Unique in a node, never reused.
    TrackId(u64)
}
wire_id! {
    /// One track as sent to one peer. Unique in a node, never reused.
    SubId(u64)
}
wire_id! {
    /// Audio tracks of which the loudest are chosen together: those of one room. Unique in a node, never reused.
    SpeakerGroup(u64)
}
wire_id! {
    /// One shard of a node, by its place among them.
    ShardId(u16)
}
wire_id! {
    /// Synchronisation source ([RFC 3550 section 5.1](https://www.rfc-editor.org/rfc/rfc3550#section-5.1)).
    Ssrc(u32)
}
wire_id! {
    /// RTP payload type, 0 to 127.
    Pt(u8)
}

wire_id! {
    /// One TCP connection of a shard, from its being accepted to its end. Never reused: a client that connects again
    /// from the same port is another.
    TcpId(u64)
}

/// Where a datagram came from or goes to: a UDP address, or a TCP connection that carries datagrams in frames
/// ([RFC 4571](https://www.rfc-editor.org/rfc/rfc4571)). Equal addresses of the two are two paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Remote {
    /// The other end's address.
    pub addr: SocketAddr,
    /// The connection; `None` for UDP.
    pub tcp: Option<TcpId>,
}

impl Remote {
    /// The far end of a TCP connection.
    pub fn tcp(addr: SocketAddr, connection: TcpId) -> Self {
        Self { addr, tcp: Some(connection) }
    }
}

impl From<SocketAddr> for Remote {
    /// A UDP address.
    fn from(addr: SocketAddr) -> Self {
        Self { addr, tcp: None }
    }
}

/// Media section identification, `a=mid` and the SDES MID header extension
/// ([RFC 9143](https://www.rfc-editor.org/rfc/rfc9143)). At most 16 bytes.
pub type Mid = Label<16, MidTag>;
/// RTP stream identification, `a=rid` ([RFC 8852](https://www.rfc-editor.org/rfc/rfc8852)). At most 16 bytes.
pub type Rid = Label<16, RidTag>;

/// Marks a [`Label`] as a [`Mid`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MidTag {}
/// Marks a [`Label`] as a [`Rid`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RidTag {}

/// A short ASCII token held in place, told apart from other tokens by its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label<const N: usize, Tag>(ArrayString<N>, std::marker::PhantomData<Tag>);

impl<const N: usize, Tag> Label<N, Tag> {
    /// Accepts 1 to `N` visible ASCII characters.
    pub fn new(text: &str) -> Option<Self> {
        if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        Some(Self(ArrayString::from(text).ok()?, std::marker::PhantomData))
    }

    /// The same from bytes off the wire.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::new(std::str::from_utf8(bytes).ok()?)
    }

    /// The token.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl<const N: usize, Tag> fmt::Display for Label<N, Tag> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// RTP sequence number as on the wire; wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SeqNo(pub u16);

/// RTP sequence number extended by the rollover counter: the 48-bit SRTP packet index
/// ([RFC 3711 section 3.3.1](https://www.rfc-editor.org/rfc/rfc3711#section-3.3.1)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtSeq(pub u64);

impl ExtSeq {
    /// The 16 bits that travel in the header.
    pub fn seq(self) -> SeqNo {
        SeqNo(self.0 as u16)
    }

    /// The rollover counter.
    pub fn roc(self) -> u32 {
        (self.0 >> 16) as u32
    }

    /// The index closest to `reference` whose low 16 bits are `seq`; never below zero.
    pub fn nearest(reference: ExtSeq, seq: SeqNo) -> ExtSeq {
        let delta = seq.0.wrapping_sub(reference.0 as u16) as i16;
        match reference.0.checked_add_signed(i64::from(delta)) {
            Some(v) => ExtSeq(v),
            None => ExtSeq(u64::from(seq.0)),
        }
    }
}

/// RTP timestamp in units of the codec's clock; wraps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RtpTime(pub u32);

impl RtpTime {
    /// Signed distance `self - other` modulo 2^32.
    pub fn since(self, other: RtpTime) -> i32 {
        self.0.wrapping_sub(other.0) as i32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_index_across_wraps() {
        for (reference, seq, want) in [
            (0u64, 5u16, 5u64),
            (0, 65_535, 65_535),
            (65_535, 0, 65_536),
            (65_536, 65_535, 65_535),
            (0x1_fffe, 3, 0x2_0003),
            (0x2_0003, 0xfffe, 0x1_fffe),
        ] {
            assert_eq!(
                ExtSeq::nearest(ExtSeq(reference), SeqNo(seq)),
                ExtSeq(want),
                "{reference:#x} {seq:#x}"
            );
        }
    }

    #[test]
    fn labels_refuse_what_sdp_could_not_carry() {
        assert!(Mid::new("0").is_some());
        assert!(Mid::new("").is_none());
        assert!(Mid::new("a b").is_none());
        assert!(Mid::new("0123456789abcdefg").is_none());
        assert!(Rid::from_bytes(&[0xff]).is_none());
    }
}
