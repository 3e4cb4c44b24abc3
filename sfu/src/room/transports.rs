//! The PeerConnections of a participant, as the relay's ends of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use rand::Rng as _;
use rand::rngs::StdRng;
use sfu_media::command::{
    DataChannelSpec, DataLabel, IceCredentials, ReceiveSection, RemoteTransport, ShardCommand,
};
use sfu_media::ids::{Mid, PeerId, ShardId, Ssrc};

use super::api::MediaHost;
use super::sdp::{CodecPolicy, LocalTransport, Negotiation, RemoteTrack, Role};
use super::tracks::MAX_TRACK_TEXT;

/// What the shard knows of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Nothing yet: it is opened with its first description.
    New,
    /// Opened; ICE and DTLS are not up.
    Opened,
    /// Up.
    Connected,
    /// Over.
    Closed,
}

/// One PeerConnection.
pub(super) struct Connection {
    pub(super) peer: PeerId,
    pub(super) stage: Stage,
    pub(super) negotiation: Negotiation,
    /// The credentials that the relay's next description announces.
    pub(super) ice: IceCredentials,
    ufrag_prefix: Arc<str>,
    pub(super) remote: Option<RemoteTransport>,
    /// Sections of the last description that the client may send on, and what it sends there.
    pub(super) receive: Vec<ReceiveSection>,
    pub(super) remote_tracks: HashMap<Mid, RemoteTrack>,
    /// Id of the last offer that the relay sent, and whether its answer is awaited.
    pub(super) offer_id: u32,
    pub(super) in_flight: bool,
    /// A client's offer was answered.
    pub(super) answered: bool,
    /// Audio and video sections that the client was asked for since its last offer.
    pub(super) requested: Option<(usize, usize)>,
    ssrcs: HashSet<u32>,
    /// Client ids of tracks that were refused lately: their sections stay without a track.
    refused: Vec<String>,
}

/// Refused client ids that are remembered.
const MAX_REFUSED: usize = 32;

impl Connection {
    pub(super) fn new(
        peer: PeerId,
        host: &MediaHost,
        codecs: CodecPolicy,
        role: Role,
        rng: &mut StdRng,
    ) -> Self {
        let ice = credentials(&host.ufrag_prefix, rng);
        let local = LocalTransport {
            ice: ice.clone(),
            fingerprint: host.fingerprint,
            candidates: host.candidates.clone(),
            tcp_candidates: host.tcp_candidates.clone(),
            restarts: 0,
        };
        Self {
            peer,
            stage: Stage::New,
            negotiation: Negotiation::new(local, codecs, role),
            ice,
            ufrag_prefix: Arc::clone(&host.ufrag_prefix),
            remote: None,
            receive: Vec::new(),
            remote_tracks: HashMap::new(),
            offer_id: 0,
            in_flight: false,
            answered: false,
            requested: None,
            ssrcs: HashSet::new(),
            refused: Vec::new(),
        }
    }

    /// Opened and not over: the shard takes commands for it.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Opened | Stage::Connected)
    }

    pub(super) fn is_connected(&self) -> bool {
        self.stage == Stage::Connected
    }

    /// The command that opens it, the first time.
    pub(super) fn open(&mut self, data_channels: Vec<DataChannelSpec>) -> Option<ShardCommand> {
        if self.stage != Stage::New {
            return None;
        }
        self.stage = Stage::Opened;
        Some(ShardCommand::OpenPeer { peer: self.peer, ice: self.ice.clone(), data_channels })
    }

    /// New credentials for the next description, and the command when the shard has to know.
    pub(super) fn restart_ice(&mut self, rng: &mut StdRng) -> Option<ShardCommand> {
        self.ice = credentials(&self.ufrag_prefix, rng);
        self.negotiation.set_local_ice(self.ice.clone());
        self.is_open().then(|| ShardCommand::RestartIce { peer: self.peer, ice: self.ice.clone() })
    }

    /// The command that tells the client's transport, when it is news.
    pub(super) fn set_remote(&mut self, remote: &RemoteTransport) -> Option<ShardCommand> {
        if !self.is_open() || self.remote.as_ref() == Some(remote) {
            return None;
        }
        self.remote = Some(remote.clone());
        Some(ShardCommand::SetRemote { peer: self.peer, remote: remote.clone() })
    }

    /// Remembers that a track of this client id was refused.
    pub(super) fn refuse(&mut self, cid: &str) {
        if self.refused.len() >= MAX_REFUSED {
            self.refused.remove(0);
        }
        if cid.len() <= MAX_TRACK_TEXT {
            self.refused.push(cid.to_owned());
        }
    }

    /// A track of this client id is accepted after all.
    pub(super) fn accept(&mut self, cid: &str) {
        self.refused.retain(|r| r != cid);
    }

    pub(super) fn is_refused(&self, cid: &str) -> bool {
        self.refused.iter().any(|r| r == cid)
    }

    /// An SSRC that this connection never had.
    pub(super) fn ssrc(&mut self, rng: &mut StdRng) -> Ssrc {
        // What the client announced counts as well: one SSRC in both directions confuses statistics.
        let announced: HashSet<u32> = self
            .receive
            .iter()
            .flat_map(|s| s.ssrcs.iter())
            .flat_map(|pair| [Some(pair.primary.0), pair.rtx.map(|r| r.0)])
            .flatten()
            .collect();
        loop {
            let ssrc: u32 = rng.random_range(1..u32::MAX);
            if !announced.contains(&ssrc) && self.ssrcs.insert(ssrc) {
                return Ssrc(ssrc);
            }
        }
    }
}

/// The PeerConnections of one participant.
pub(super) struct Transports {
    /// Both are there.
    pub(super) shard: ShardId,
    /// The one that the client offers: it publishes there, and with `/rtc/v1` it receives there as well.
    pub(super) publisher: Connection,
    /// The one that the relay offers. `None` with `/rtc/v1`.
    pub(super) subscriber: Option<Connection>,
}

impl Transports {
    /// The connection that the participant receives on.
    pub(super) fn receiving(&mut self) -> &mut Connection {
        self.subscriber.as_mut().unwrap_or(&mut self.publisher)
    }

    /// The same, to look at.
    pub(super) fn receiving_ref(&self) -> &Connection {
        self.subscriber.as_ref().unwrap_or(&self.publisher)
    }

    pub(super) fn is_single(&self) -> bool {
        self.subscriber.is_none()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Connection> {
        std::iter::once(&self.publisher).chain(&self.subscriber)
    }

    pub(super) fn by_peer(&mut self, peer: PeerId) -> Option<&mut Connection> {
        std::iter::once(&mut self.publisher).chain(&mut self.subscriber).find(|c| c.peer == peer)
    }

    pub(super) fn any_connected(&self) -> bool {
        self.all().any(Connection::is_connected)
    }

    pub(super) fn any_closed(&self) -> bool {
        self.all().any(|c| c.stage == Stage::Closed)
    }

    /// Where data for the participant goes: the channels that the relay opened, else those that the client did.
    pub(super) fn data_peer(&self) -> Option<PeerId> {
        [self.receiving_ref(), &self.publisher].into_iter().find(|c| c.is_connected()).map(|c| c.peer)
    }
}

/// The channels that the relay opens where it offers.
pub(super) fn relay_channels() -> Vec<DataChannelSpec> {
    vec![
        DataChannelSpec { label: DataLabel::Reliable, ordered: true, max_retransmits: None },
        DataChannelSpec { label: DataLabel::Lossy, ordered: false, max_retransmits: Some(0) },
    ]
}

/// Fresh ICE credentials: 16 and 32 characters of `ice-char`.
fn credentials(ufrag_prefix: &str, rng: &mut StdRng) -> IceCredentials {
    IceCredentials { ufrag: format!("{ufrag_prefix}{}", token(rng, 16)), pwd: token(rng, 32) }
}

/// Random letters and digits.
pub(super) fn token(rng: &mut StdRng, length: usize) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    (0..length).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect()
}
