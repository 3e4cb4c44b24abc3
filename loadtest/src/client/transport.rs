//! One PeerConnection of a bot: `str0m` with packets in and out, on a socket of its own; on two where the server offers IPv4 and
//! IPv6.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use sfu_udp::{LONGEST_RUN, join_arrivals, recv_stamped, stamp_arrivals};
use socket2::SockRef;
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::media::{Direction, MediaKind, Mid, Simulcast};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, IceConnectionState, Input, Output, Rtc, RtcError};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use super::link::{FAR, Link, LinkSpec};
use crate::run::Local;

/// Messages of the kernel taken in one go before the thread's other bots have their turn: a datagram each, or a run of them.
const BATCH: usize = 64;
/// A page's stack has buffers of about this size; the kernel may grant less.
const SOCKET_BUFFER: usize = 1 << 20;

/// An ICE check without an answer is repeated after this, as by browsers: libwebrtc checks every 48 ms until a pair works. A
/// server drops the first one where it has not read the answer yet.
const CHECK_AGAIN: Duration = Duration::from_millis(50);

thread_local! {
    /// What a thread's bots receive, one after the other.
    static RECEIVED: RefCell<Vec<u8>> = RefCell::new(vec![0; LONGEST_RUN]);
}

/// The client's end of one PeerConnection.
pub(crate) struct Transport {
    pub(crate) rtc: Rtc,
    first: Door,
    /// Of the other family (IPv4, IPv6), opened when the server offers an address there.
    second: Option<Door>,
    /// Where that would be.
    spare: Option<IpAddr>,
    deadline: Instant,
    pending: Option<SdpPendingOffer>,
    link: Option<Box<BadLink>>,
    /// ICE and DTLS were done once. Until then that no candidate works says nothing: others may be on their way.
    pub(crate) up: bool,
    /// How far it came until then.
    stage: Stage,
    /// Addresses at which the server offers media.
    offered: BTreeSet<IpAddr>,
    /// Datagrams that the own socket did not take.
    pub(crate) unsent: u64,
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The server has not described its end.
    Undescribed,
    /// It has, but nothing came through yet.
    Described,
    /// ICE found a path.
    Path,
}

/// A socket and its address.
struct Door {
    socket: UdpSocket,
    local: SocketAddr,
}

struct BadLink {
    inward: Link<(SocketAddr, Vec<u8>)>,
    outward: Link<(SocketAddr, Vec<u8>)>,
}

impl Transport {
    /// Opens a socket and offers it as the only candidate.
    pub(crate) fn new(local: Local, link: Option<LinkSpec>, seed: u64) -> anyhow::Result<Self> {
        let first = Door::open(local.first())?;
        let now = Instant::now();
        let mut config =
            Rtc::builder().clear_codecs().enable_opus(true, false).enable_vp8(true).set_rtp_mode(true);
        config.set_initial_stun_rto(CHECK_AGAIN);
        let mut rtc = config.build(now);
        rtc.add_local_candidate(first.candidate()?);
        let link = link.map(|spec| {
            Box::new(BadLink { inward: Link::new(spec, seed), outward: Link::new(spec, seed ^ 0x5555) })
        });
        let (second, spare) = (None, local.other());
        Ok(Self {
            rtc,
            first,
            second,
            spare,
            deadline: now,
            pending: None,
            link,
            up: false,
            stage: Stage::Undescribed,
            offered: BTreeSet::new(),
            unsent: 0,
        })
    }

    /// The sockets' ports.
    pub(crate) fn ports(&self) -> impl Iterator<Item = u16> + '_ {
        [Some(&self.first), self.second.as_ref()].into_iter().flatten().map(|door| door.local.port())
    }

    /// Whether there is a socket for an address of the server's; opens the second one where that has been missing.
    fn reaches(&mut self, remote: IpAddr) -> anyhow::Result<bool> {
        self.offered.insert(remote);
        if remote.is_ipv4() == self.first.local.is_ipv4() || self.second.is_some() {
            return Ok(true);
        }
        let Some(ip) = self.spare.take() else { return Ok(false) };
        let door = Door::open(ip)?;
        self.rtc.add_local_candidate(door.candidate()?);
        self.second = Some(door);
        Ok(true)
    }

    /// Opens what the candidates in a description ask for.
    fn prepare(&mut self, sdp: &str) -> anyhow::Result<()> {
        // Later ones, of which a large room has many, say nothing new.
        if self.up {
            return Ok(());
        }
        if self.stage == Stage::Undescribed {
            self.stage = Stage::Described;
        }
        for line in sdp.lines().filter_map(|line| line.strip_prefix("a=")) {
            let candidate =
                line.starts_with("candidate:").then(|| Candidate::from_sdp_string(line).ok()).flatten();
            if let Some(candidate) = candidate.filter(|candidate| candidate.proto() == Protocol::Udp) {
                self.reaches(candidate.addr().ip())?;
            }
        }
        Ok(())
    }

    /// An offer with a sending section for each of the tracks.
    pub(crate) fn offer(
        &mut self,
        tracks: &[(MediaKind, String, Option<Simulcast>)],
    ) -> Option<(Vec<Mid>, String)> {
        let mut api = self.rtc.sdp_api();
        let add = |(kind, id, simulcast): &(MediaKind, String, Option<Simulcast>)| {
            api.add_media(*kind, Direction::SendOnly, Some(id.clone()), Some(id.clone()), simulcast.clone())
        };
        let mids = tracks.iter().map(add).collect();
        let (offer, pending) = api.apply()?;
        self.pending = Some(pending);
        Some((mids, offer.to_sdp_string()))
    }

    /// Takes the answer to the last offer.
    pub(crate) fn accept_answer(&mut self, sdp: &str) -> anyhow::Result<()> {
        let pending = self.pending.take().ok_or_else(|| anyhow::anyhow!("an answer without an offer"))?;
        self.prepare(sdp)?;
        self.rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(sdp)?)?;
        self.deadline = Instant::now(); // there is something to send now
        Ok(())
    }

    /// Takes an address of the server's that is not in its description. It may come before that. One of an address family that
    /// this machine has no address of leads nowhere.
    pub(crate) fn add_candidate(&mut self, candidate: Candidate) -> anyhow::Result<()> {
        if self.reaches(candidate.addr().ip())? {
            self.rtc.add_remote_candidate(candidate);
            self.deadline = Instant::now(); // there may be a check to make
        }
        Ok(())
    }

    /// Answers an offer. `str0m` would wait for the other end to start DTLS where the offer leaves it open; browsers
    /// start it (RFC 8842 section 5.3), and servers with ICE-lite rely on that.
    pub(crate) fn answer(&mut self, sdp: &str) -> anyhow::Result<String> {
        self.prepare(sdp)?;
        let offer = SdpOffer::from_sdp_string(&sdp.replace("a=setup:actpass", "a=setup:passive"))?;
        Ok(self.rtc.sdp_api().accept_offer(offer)?.to_sdp_string())
    }

    /// Sends what is due and collects events.
    fn drain(&mut self, events: &mut Vec<Event>) -> Result<(), RtcError> {
        loop {
            match self.rtc.poll_output()? {
                Output::Timeout(at) => {
                    self.deadline = at;
                    return Ok(());
                }
                Output::Transmit(datagram) => match &mut self.link {
                    None => {
                        let door = toward(&self.first, &self.second, datagram.destination);
                        send(&door.socket, &datagram.contents, datagram.destination, &mut self.unsent);
                    }
                    Some(link) => {
                        let datagram = (datagram.destination, datagram.contents.to_vec());
                        link.outward.push(datagram, Instant::now());
                    }
                },
                Output::Event(event) => {
                    match &event {
                        Event::Connected => self.up = true,
                        Event::IceConnectionStateChange(
                            IceConnectionState::Connected | IceConnectionState::Completed,
                        ) => self.stage = Stage::Path,
                        _ => {}
                    }
                    events.push(event);
                }
            }
        }
    }

    /// Lets time pass: timers, and what a bad link held back.
    pub(crate) fn advance(&mut self, now: Instant, events: &mut Vec<Event>) -> Result<(), RtcError> {
        if let Some(link) = &mut self.link {
            while let Some((to, datagram)) = link.outward.pop(now) {
                let door = toward(&self.first, &self.second, to);
                send(&door.socket, &datagram, to, &mut self.unsent);
            }
            let mut due = Vec::new();
            while let Some(datagram) = link.inward.pop(now) {
                due.push(datagram);
            }
            for (source, datagram) in due {
                self.take(source, &datagram, now, events)?;
            }
        }
        self.rtc.handle_input(Input::Timeout(now))?;
        self.drain(events)
    }

    /// Takes the datagrams that have arrived, up to a batch of them. They count from when the kernel had them: that this
    /// thread has other bots to look after is not the relay's delay.
    pub(crate) fn receive(&mut self, events: &mut Vec<Event>) -> Result<(), RtcError> {
        self.receive_at(|transport| Some(&transport.first), events)?;
        self.receive_at(|transport| transport.second.as_ref(), events)
    }

    fn receive_at(
        &mut self,
        door: impl Fn(&Self) -> Option<&Door>,
        events: &mut Vec<Event>,
    ) -> Result<(), RtcError> {
        RECEIVED.with_borrow_mut(|buffer| {
            let clocks = Clocks::read();
            for _ in 0..BATCH {
                let Some(Door { socket, .. }) = door(self) else { return Ok(()) };
                match socket.try_io(Interest::READABLE, || recv_stamped(socket, buffer)) {
                    Ok(got) => {
                        let arrived = clocks.arrival(got.arrived);
                        for datagram in buffer[..got.len].chunks(got.segment) {
                            match &mut self.link {
                                None => self.take(got.from, datagram, arrived, events)?,
                                Some(link) => link.inward.push((got.from, datagram.to_vec()), arrived),
                            }
                        }
                    }
                    // A port that nobody listens on shows as an error of a later call; ICE notices silence by itself.
                    Err(error) if error.kind() != ErrorKind::WouldBlock => {}
                    Err(_) => return Ok(()),
                }
            }
            Ok(())
        })
    }

    fn take(
        &mut self,
        source: SocketAddr,
        datagram: &[u8],
        now: Instant,
        events: &mut Vec<Event>,
    ) -> Result<(), RtcError> {
        // What str0m cannot take for a datagram of its own is none.
        let Ok(contents) = datagram.try_into() else { return Ok(()) };
        let destination = toward(&self.first, &self.second, source).local;
        let receive = Receive { proto: Protocol::Udp, source, destination, contents };
        let input = Input::Receive(now, receive);
        if self.rtc.accepts(&input) {
            self.rtc.handle_input(input)?;
            // It keeps one packet at a time for whoever asks.
            self.drain(events)?;
        }
        Ok(())
    }

    /// Why it is not up yet, and what to do.
    pub(crate) fn trouble(&self) -> String {
        let reached = |ip: &&IpAddr| ip.is_ipv4() == self.first.local.is_ipv4() || self.second.is_some();
        let list = |all: Vec<&IpAddr>| all.iter().map(|ip| ip.to_string()).collect::<Vec<_>>().join(", ");
        let within: Vec<&IpAddr> = self.offered.iter().filter(reached).collect();
        match self.stage {
            Stage::Undescribed => "the server did not describe its end of the connection: is its media relay up?".to_owned(),
            Stage::Path => {
                "ICE found a path, but DTLS came to no end: does something in between drop UDP datagrams by their size or what \
                 is in them?"
                    .to_owned()
            }
            Stage::Described if self.offered.is_empty() => {
                "the server names no UDP address for media: is its media relay set up for UDP?".to_owned()
            }
            Stage::Described if within.is_empty() => format!(
                "the server takes media at {} only, and this machine has no address of that family towards it: name one with \
                 --local",
                list(self.offered.iter().collect())
            ),
            Stage::Described => format!(
                "nothing came back from {}: is the relay's UDP port open from here, and is that the address (`advertise`) under \
                 which it is reached?",
                list(within)
            ),
        }
    }

    /// When [`Transport::advance`] is due.
    pub(crate) fn deadline(&self) -> Instant {
        let link = self.link.as_ref().and_then(|link| {
            let deadlines = [link.inward.deadline(), link.outward.deadline()];
            deadlines.into_iter().flatten().min()
        });
        link.map_or(self.deadline, |link| link.min(self.deadline)).min(Instant::now() + FAR)
    }

    /// Waits for a datagram. Dropping the future loses nothing.
    pub(crate) async fn readable(&self) {
        // An error is met again, and handled, where the datagram is taken.
        let first = self.first.socket.readable();
        match &self.second {
            None => drop(first.await),
            Some(second) => tokio::select! {
                _ = first => {}
                _ = second.socket.readable() => {}
            },
        }
    }
}

impl Door {
    fn open(ip: IpAddr) -> anyhow::Result<Self> {
        let socket = std::net::UdpSocket::bind((ip, 0))?;
        socket.set_nonblocking(true)?;
        let sock = SockRef::from(&socket);
        sock.set_recv_buffer_size(SOCKET_BUFFER)?;
        sock.set_send_buffer_size(SOCKET_BUFFER)?;
        stamp_arrivals(&socket)?;
        // What a server sends as one run need not be taken apart by the kernel, which on one machine is the server's time.
        join_arrivals(&socket);
        let socket = UdpSocket::from_std(socket)?;
        let local = socket.local_addr()?;
        Ok(Self { socket, local })
    }

    fn candidate(&self) -> anyhow::Result<Candidate> {
        Ok(Candidate::host(self.local, "udp").map_err(RtcError::from)?)
    }
}

/// The socket for an address: that of its family.
fn toward<'a>(first: &'a Door, second: &'a Option<Door>, to: SocketAddr) -> &'a Door {
    second.as_ref().filter(|door| door.local.is_ipv4() == to.is_ipv4()).unwrap_or(first)
}

/// The kernel's clock and the one that everything else here goes by, read at the same moment.
struct Clocks {
    now: Instant,
    unix: Duration,
}

impl Clocks {
    /// Readings further apart than this are read again: the thread was interrupted in between.
    const APART: Duration = Duration::from_micros(50);

    fn read() -> Self {
        let mut tries = 0;
        loop {
            let before = Instant::now();
            let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let now = Instant::now();
            tries += 1;
            if now.saturating_duration_since(before) < Self::APART || tries == 5 {
                return Self { now, unix };
            }
        }
    }

    /// When a datagram came, by the kernel's time of that.
    fn arrival(&self, arrived: Option<Duration>) -> Instant {
        let Some(arrived) = arrived else { return Instant::now() };
        // Longer ago than any queue holds a datagram means that somebody set the clock.
        let near = |age: &Duration| *age < Duration::from_secs(10);
        match self.unix.checked_sub(arrived) {
            Some(age) => self.now.checked_sub(age).filter(|_| near(&age)).unwrap_or(self.now),
            None => self.now + Some(arrived.saturating_sub(self.unix)).filter(near).unwrap_or_default(),
        }
    }
}

fn send(socket: &UdpSocket, datagram: &[u8], to: SocketAddr, unsent: &mut u64) {
    // Straight to the socket: the runtime would call one that it has not looked at yet full.
    if let Err(error) = SockRef::from(socket).send_to(datagram, &to.into())
        && error.kind() == ErrorKind::WouldBlock
    {
        *unsent += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_told_by_the_kernels_clock_on_ours() {
        let clocks = Clocks { now: Instant::now(), unix: Duration::from_secs(1_800_000_000) };
        let ms = Duration::from_millis(7);
        assert_eq!(clocks.arrival(Some(clocks.unix - ms)), clocks.now - ms);
        assert_eq!(clocks.arrival(Some(clocks.unix + ms)), clocks.now + ms, "after the clocks were read");
        // Somebody set the clock by an hour.
        let hour = Duration::from_secs(3600);
        assert_eq!(clocks.arrival(Some(clocks.unix - hour)), clocks.now);
        assert_eq!(clocks.arrival(Some(clocks.unix + hour)), clocks.now);
        assert!(clocks.arrival(None) >= clocks.now);
    }
}
