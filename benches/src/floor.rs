//! The floor: receive a frame, open its packets once, and for each receiver rewrite, seal and send them, with nothing
//! else around it. After the idea of a bare forwarding loop; what it does not do is what a relay adds.

use std::net::{SocketAddr, SocketAddrV4, UdpSocket};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sfu_udp::bare::{BareReceiver, BareSender};

use crate::Shape;
use crate::timing::CpuClock;

/// RTP header with one extension word.
pub(crate) const HEADER: usize = 20;
pub(crate) const TAG: usize = 16;
/// Receivers whose frames go out in one `sendmmsg`.
const MESSAGES: usize = 8;

/// A key with its salt.
pub(crate) struct Cipher {
    key: LessSafeKey,
    salt: [u8; 12],
}

impl Cipher {
    pub(crate) fn new(number: usize) -> Result<Self> {
        let byte = |at: usize| (number * 31 + at * 7 + 1) as u8;
        let key: Vec<u8> = (0..16).map(byte).collect();
        let key = UnboundKey::new(&AES_128_GCM, &key).context("AES-128-GCM")?;
        Ok(Self { key: LessSafeKey::new(key), salt: std::array::from_fn(byte) })
    }

    pub(crate) fn nonce(&self, ssrc: u32, index: u64) -> Nonce {
        let mut iv = self.salt;
        for (a, b) in iv[2..6].iter_mut().zip(ssrc.to_be_bytes()) {
            *a ^= b;
        }
        for (a, b) in iv[6..].iter_mut().zip(&index.to_be_bytes()[2..]) {
            *a ^= b;
        }
        Nonce::assume_unique_for_key(iv)
    }

    /// Seals in place and gives the tag.
    pub(crate) fn seal(&self, nonce: Nonce, header: &[u8], text: &mut [u8]) -> Result<[u8; TAG]> {
        let tag = self.key.seal_in_place_separate_tag(nonce, Aad::from(header), text);
        Ok(tag.ok().context("sealing")?.as_ref().try_into()?)
    }

    /// Opens in place and gives the length.
    pub(crate) fn open(&self, nonce: Nonce, header: &[u8], text: &mut [u8]) -> Result<usize> {
        let plain = self.key.open_in_place(nonce, Aad::from(header), text);
        Ok(plain.ok().context("opening")?.len())
    }
}

/// What one receiver's stream is rewritten by.
pub(crate) struct Egress {
    cipher: Cipher,
    ssrc: u32,
    next: u64,
    twcc: u16,
    timestamp: u32,
}

impl Egress {
    pub(crate) fn new(number: usize) -> Result<Self> {
        Ok(Self {
            cipher: Cipher::new(number)?,
            ssrc: 0x1000_0000 + number as u32,
            next: 65_000 + (number % 400) as u64,
            twcc: 0,
            timestamp: number as u32 * 77,
        })
    }
}

/// The loop and its publisher.
pub struct Floor {
    shape: Shape,
    relay: UdpSocket,
    publisher: UdpSocket,
    receive: BareReceiver,
    send: BareSender,
    /// Receivers in one call.
    messages: usize,
    ingress: Cipher,
    /// Next index of the publisher; highest accepted, and the 64 before it.
    fed: u64,
    highest: u64,
    window: u64,
    egress: Vec<Egress>,
    clock: CpuClock,
}

const SSRC: u32 = 0x5555_0001;

impl Floor {
    /// A loop that sends to these sockets, each receiver's frame in a call of its own or eight in one.
    ///
    /// # Errors
    /// When sockets cannot be had.
    pub fn new(shape: Shape, to: &[SocketAddr], batched: bool) -> Result<Self> {
        ensure!(to.len() >= shape.receivers, "too few receivers");
        let to: Vec<SocketAddrV4> = to[..shape.receivers]
            .iter()
            .filter_map(|to| if let SocketAddr::V4(to) = to { Some(*to) } else { None })
            .collect();
        let relay = UdpSocket::bind("127.0.0.1:0")?;
        relay.set_nonblocking(true)?;
        socket2::SockRef::from(&relay).set_send_buffer_size(4 << 20)?;
        socket2::SockRef::from(&relay).set_recv_buffer_size(4 << 20)?;
        let publisher = UdpSocket::bind("127.0.0.1:0")?;
        publisher.connect(relay.local_addr()?)?;
        let egress = (0..to.len()).map(Egress::new);
        let messages = if batched { MESSAGES } else { 1 };
        let message = shape.frame * (HEADER + shape.payload + TAG);
        Ok(Self {
            shape,
            relay,
            publisher,
            receive: BareReceiver::new(32),
            send: BareSender::new(&to, messages, messages * message),
            messages,
            ingress: Cipher::new(9999)?,
            fed: 65_000,
            highest: 64_999,
            window: !0,
            egress: egress.collect::<Result<_>>()?,
            clock: CpuClock::new(),
        })
    }

    /// One frame. Returns the packets sent; their CPU time is in [`Self::take_cpu`].
    ///
    /// # Errors
    /// When the kernel does not do it.
    pub fn turn(&mut self) -> Result<u64> {
        self.feed()?;
        let start = sfu_udp::thread_cpu_time();
        let sent = self.forward();
        self.clock.stop(start);
        sent
    }

    /// CPU time since the last call.
    pub fn take_cpu(&mut self) -> std::time::Duration {
        self.clock.take()
    }

    fn feed(&mut self) -> Result<()> {
        for at in 0..self.shape.frame {
            let mut packet = vec![0; HEADER + self.shape.payload];
            packet[0] = 0x90;
            packet[1] = 96 | u8::from(at + 1 == self.shape.frame) << 7;
            packet[2..4].copy_from_slice(&(self.fed as u16).to_be_bytes());
            packet[8..12].copy_from_slice(&SSRC.to_be_bytes());
            packet[12..16].copy_from_slice(&[0xbe, 0xde, 0, 1]);
            let (header, text) = packet.split_at_mut(HEADER);
            let nonce = self.ingress.nonce(SSRC, self.fed);
            let tag = self.ingress.seal(nonce, header, text)?;
            packet.extend(tag);
            self.publisher.send(&packet)?;
            self.fed += 1;
        }
        Ok(())
    }

    fn forward(&mut self) -> Result<u64> {
        let count = self.receive.receive(&self.relay)?;
        let mut lens = [0; 32];
        for (at, len) in lens.iter_mut().enumerate().take(count) {
            let packet = self.receive.datagram(at);
            let seq = u16::from_be_bytes([packet[2], packet[3]]);
            let ssrc = u32::from_be_bytes([packet[8], packet[9], packet[10], packet[11]]);
            let ahead = seq.wrapping_sub(self.highest as u16) as i16;
            let index = self.highest.wrapping_add_signed(ahead.into());
            let fresh = index > self.highest
                || (self.highest - index < 64 && self.window >> (self.highest - index) & 1 == 0);
            ensure!(fresh, "replayed");
            let (header, text) = packet.split_at_mut(HEADER);
            let nonce = self.ingress.nonce(ssrc, index);
            *len = HEADER + self.ingress.open(nonce, header, text)?;
            if index > self.highest {
                let by = index - self.highest;
                self.window = if by < 64 { self.window << by } else { 0 } | 1;
                self.highest = index;
            } else {
                self.window |= 1 << (self.highest - index);
            }
        }
        let mut end = 0;
        for (receiver, egress) in self.egress.iter_mut().enumerate() {
            let (start, mut segment) = (end, 0);
            for (at, len) in lens.iter().enumerate().take(count) {
                let packet = &self.receive.datagram(at)[..*len];
                segment = seal(egress, packet, &mut self.send.buffer()[end..])?;
                end += segment;
            }
            self.send.queue(receiver, start, end - start, segment);
            if self.send.queued() == self.messages {
                self.send.flush(&self.relay)?;
                end = 0;
            }
        }
        self.send.flush(&self.relay)?;
        Ok((count * self.egress.len()) as u64)
    }
}

/// Rewrites and seals one packet to the start of `out`; returns its length.
pub(crate) fn seal(egress: &mut Egress, packet: &[u8], out: &mut [u8]) -> Result<usize> {
    let len = packet.len();
    let out = &mut out[..len + TAG];
    out[..HEADER].copy_from_slice(&packet[..HEADER]);
    let index = egress.next;
    egress.next += 1;
    egress.twcc = egress.twcc.wrapping_add(1);
    let timestamp = u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]]);
    out[2..4].copy_from_slice(&(index as u16).to_be_bytes());
    out[4..8].copy_from_slice(&timestamp.wrapping_add(egress.timestamp).to_be_bytes());
    out[8..12].copy_from_slice(&egress.ssrc.to_be_bytes());
    out[16] = 0x31;
    out[17..19].copy_from_slice(&egress.twcc.to_be_bytes());
    let (header, rest) = out.split_at_mut(HEADER);
    let (text, tag) = rest.split_at_mut(len - HEADER);
    let nonce = egress.cipher.nonce(egress.ssrc, index);
    let aad = Aad::from(&*header);
    let sealed = egress.cipher.key.seal_out_of_place_scatter(nonce, aad, &packet[HEADER..], text, &[], tag);
    sealed.ok().context("sealing")?;
    Ok(len + TAG)
}

impl std::fmt::Debug for Floor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Floor").field("shape", &self.shape).finish_non_exhaustive()
    }
}
