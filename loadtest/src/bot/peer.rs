//! One PeerConnection: a `str0m` instance with its own UDP socket.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcError};
use tokio::net::UdpSocket;

const MTU: usize = 2048;

/// The client's end of one PeerConnection.
pub(crate) struct Peer {
    pub(crate) rtc: Rtc,
    socket: UdpSocket,
    local: SocketAddr,
    buffer: Vec<u8>,
    deadline: Instant,
    pending: Option<SdpPendingOffer>,
}

impl Peer {
    /// Opens a socket on `ip` and offers it as the only candidate.
    pub(crate) async fn new(ip: Ipv4Addr) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind((ip, 0)).await?;
        let local = socket.local_addr()?;
        let now = Instant::now();
        let mut rtc = Rtc::builder()
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(true)
            .enable_vp9(true)
            .build(now);
        rtc.add_local_candidate(Candidate::host(local, "udp").map_err(RtcError::from)?);
        Ok(Self { rtc, socket, local, buffer: vec![0; MTU], deadline: now, pending: None })
    }

    /// An offer that adds one sending section, with the section's mid.
    pub(crate) fn offer_track(&mut self, kind: MediaKind, track: &str) -> Option<(Mid, String)> {
        let mut api = self.rtc.sdp_api();
        let mid = api.add_media(kind, Direction::SendOnly, Some(track.into()), Some(track.into()), None);
        let (offer, pending) = api.apply()?;
        self.pending = Some(pending);
        Some((mid, offer.to_sdp_string()))
    }

    /// Takes the answer to the last offer.
    pub(crate) fn accept_answer(&mut self, sdp: &str) -> anyhow::Result<()> {
        let pending = self.pending.take().ok_or_else(|| anyhow::anyhow!("an answer without an offer"))?;
        Ok(self.rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(sdp)?)?)
    }

    /// Answers an offer.
    ///
    /// Browsers start the DTLS handshake when the offerer leaves it open (RFC 8842 section 5.3 recommends it), and the
    /// relay, an ICE-lite server, relies on it; `str0m` would wait. It is told that the offerer waits.
    pub(crate) fn answer(&mut self, sdp: &str) -> anyhow::Result<String> {
        let offer = SdpOffer::from_sdp_string(&sdp.replace("a=setup:actpass", "a=setup:passive"))?;
        Ok(self.rtc.sdp_api().accept_offer(offer)?.to_sdp_string())
    }

    /// Sends what is due and returns events, until nothing is left to do before the next deadline or datagram.
    pub(crate) async fn drain(&mut self, events: &mut Vec<Event>) -> anyhow::Result<()> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) => {
                    self.deadline = at;
                    return Ok(());
                }
                Output::Transmit(datagram) => {
                    // A full buffer is a lost packet, as on any network.
                    let _ = self.socket.send_to(&datagram.contents, datagram.destination).await;
                }
                Output::Event(event) => events.push(event),
            }
        }
    }

    /// Waits for a datagram or the deadline and hands it in. Dropping the future loses nothing.
    pub(crate) async fn wait(&mut self) -> anyhow::Result<()> {
        let sleep = self.deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        tokio::select! {
            received = self.socket.recv_from(&mut self.buffer) => {
                let (len, source) = received?;
                let now = Instant::now();
                // What str0m cannot take for a datagram of its own is none.
                if let Ok(contents) = self.buffer[..len].try_into() {
                    let receive = Receive { proto: Protocol::Udp, source, destination: self.local, contents };
                    let input = Input::Receive(now, receive);
                    if self.rtc.accepts(&input) {
                        self.rtc.handle_input(input)?;
                    }
                }
            }
            () = tokio::time::sleep(sleep) => self.rtc.handle_input(Input::Timeout(Instant::now()))?,
        }
        Ok(())
    }
}
