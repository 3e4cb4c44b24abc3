//! Data packets: from one participant's data channel to those of others.

use bytes::Bytes;
use livekit_protocol as proto;
use prost::Message as _;
use proto::data_packet::{Kind, Value};
use proto::signal_response::Message;
use sfu_media::command::{DataLabel, ShardCommand};
use sfu_media::ids::PeerId;

use super::participant::{Key, Participant};
use super::{Room, Step};

/// What became of data packets that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DataCounters {
    /// Forwarded; a packet to many counts once.
    pub forwarded: u64,
    /// Refused: the sender may not publish data.
    pub not_permitted: u64,
    /// Refused: clear text in a room that requires encryption.
    pub not_encrypted: u64,
    /// Refused: longer than allowed.
    pub too_large: u64,
    /// Refused: not a data packet, or of a kind that participants do not send.
    pub malformed: u64,
    /// Dropped: a reliable packet that had been taken before, sent again after a resume.
    pub duplicate: u64,
}

/// What a packet carries, as far as the relay judges it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// Words and deeds of people: SDKs encrypt these once data-channel encryption is on.
    Private,
    /// Clear by design: figures of the connection, for whoever may see them.
    Metrics,
    /// Ciphertext.
    Encrypted,
    /// Only servers send it.
    Foreign,
}

fn content(value: &Value) -> Content {
    #[allow(deprecated)] // `Speaker` was sent by servers of old
    match value {
        Value::EncryptedPacket(p) if p.encrypted_value.is_empty() || p.iv.is_empty() => Content::Private,
        Value::EncryptedPacket(_) => Content::Encrypted,
        Value::Metrics(_) => Content::Metrics,
        Value::Speaker(_) => Content::Foreign,
        // Transcriptions are what was said, and DTMF digits are what was typed. SDKs have no encrypted form for the two
        // (transcriptions as text streams have), so they do not pass where encryption is required.
        Value::Transcription(_) | Value::SipDtmf(_) => Content::Private,
        Value::User(_)
        | Value::ChatMessage(_)
        | Value::RpcRequest(_)
        | Value::RpcAck(_)
        | Value::RpcResponse(_)
        | Value::StreamHeader(_)
        | Value::StreamChunk(_)
        | Value::StreamTrailer(_) => Content::Private,
    }
}

impl Room {
    pub(super) fn data_received(
        &mut self,
        peer: PeerId,
        label: DataLabel,
        payload: &Bytes,
        step: &mut Step<'_>,
    ) {
        let Some(key) = self.peers.get(&peer).copied() else { return };
        let Some(p) = self.participants.get_mut(&key) else { return };
        if !p.permissions.can_publish_data {
            self.data.not_permitted += 1;
            return;
        }
        if payload.len() > self.config.max_data_bytes {
            self.data.too_large += 1;
            return;
        }
        let kind = match label {
            DataLabel::Reliable => Kind::Reliable,
            DataLabel::Lossy => Kind::Lossy,
            DataLabel::DataTrack => {
                self.data.malformed += 1; // frames of data tracks, which nobody could announce
                return;
            }
        };
        let Ok(mut packet) = proto::DataPacket::decode(payload.clone()) else {
            self.data.malformed += 1;
            return;
        };
        let Some(content) = packet.value.as_ref().map(content).filter(|c| *c != Content::Foreign) else {
            self.data.malformed += 1;
            return;
        };
        if kind == Kind::Reliable && packet.sequence > 0 {
            if packet.sequence <= p.last_reliable_seq {
                self.data.duplicate += 1;
                return;
            }
            p.last_reliable_seq = packet.sequence;
        }
        if content == Content::Private && self.requires_encryption() {
            self.data.not_encrypted += 1;
            return self.warn_plain_data(key, step);
        }
        let Some(p) = self.participants.get(&key) else { return };
        let to = stamp(&mut packet, kind, p);
        self.forward(&packet, label, key, &to, content == Content::Metrics, step);
    }

    fn forward(
        &mut self,
        packet: &proto::DataPacket,
        label: DataLabel,
        from: Key,
        to: &Recipients,
        metrics: bool,
        step: &mut Step<'_>,
    ) {
        self.data.forwarded += 1;
        let payload = Bytes::from(packet.encode_to_vec());
        for (key, p) in &self.participants {
            let may = p.permissions.can_subscribe && (!metrics || p.permissions.can_subscribe_metrics);
            if *key == from || !may || !to.includes(p) {
                continue;
            }
            if let Some(peer) = p.transports.data_peer() {
                step.shard(ShardCommand::SendData { peer, label, payload: payload.clone() });
            }
        }
    }

    /// A message from the operator's backend.
    pub(super) fn send_data(&mut self, request: proto::SendDataRequest, step: &mut Step<'_>) {
        let kind = request.kind();
        #[allow(deprecated)] // older server SDKs name sids
        let to = Recipients { identities: request.destination_identities, sids: request.destination_sids };
        #[allow(deprecated)]
        let packet = proto::DataPacket {
            kind: kind as i32,
            value: Some(Value::User(proto::UserPacket {
                payload: request.data,
                topic: request.topic,
                nonce: request.nonce,
                ..Default::default()
            })),
            ..Default::default()
        };
        let label = if kind == Kind::Lossy { DataLabel::Lossy } else { DataLabel::Reliable };
        let payload = Bytes::from(packet.encode_to_vec());
        for p in self.participants.values().filter(|p| to.includes(p)) {
            if let Some(peer) = p.transports.data_peer() {
                step.shard(ShardCommand::SendData { peer, label, payload: payload.clone() });
            }
        }
    }

    /// Told once: a client that does not encrypt would hear it with every keystroke.
    fn warn_plain_data(&mut self, key: Key, step: &mut Step<'_>) {
        let Some(p) = self.participants.get_mut(&key) else { return };
        if std::mem::replace(&mut p.warned_plain_data, true) {
            return;
        }
        step.signal(
            p.session,
            Message::RequestResponse(proto::RequestResponse {
                reason: proto::request_response::Reason::NotAllowed as i32,
                message:
                    "this room requires end-to-end encryption: data that is not encrypted is not forwarded"
                        .to_owned(),
                ..Default::default()
            }),
        );
        let info = self.participants.get(&key).map(|p| self.participant_info(p));
        self.event("data_not_encrypted", info.as_ref(), None, step);
    }
}

/// Whom a packet is for; nobody named means everybody.
struct Recipients {
    identities: Vec<String>,
    sids: Vec<String>,
}

impl Recipients {
    fn includes(&self, p: &Participant) -> bool {
        (self.identities.is_empty() && self.sids.is_empty())
            || self.identities.contains(&p.identity)
            || self.sids.contains(&p.sid)
    }
}

/// Writes the sender over whatever the packet claims, and takes the recipients out: they are not each other's business.
/// A hidden sender has no name, and no sequence that would need one.
#[allow(deprecated)] // old SDKs name sender and recipients inside the user packet
fn stamp(packet: &mut proto::DataPacket, kind: Kind, sender: &Participant) -> Recipients {
    let (sid, identity) = if sender.permissions.hidden {
        packet.sequence = 0;
        (String::new(), String::new())
    } else {
        (sender.sid.clone(), sender.identity.clone())
    };
    let mut to =
        Recipients { identities: std::mem::take(&mut packet.destination_identities), sids: Vec::new() };
    if let Some(Value::User(user)) = &mut packet.value {
        let inner = std::mem::take(&mut user.destination_identities);
        if to.identities.is_empty() {
            to.identities = inner;
        }
        to.sids = std::mem::take(&mut user.destination_sids);
        user.participant_sid.clone_from(&sid);
        user.participant_identity.clone_from(&identity);
    }
    // The browser SDK leaves this unset, and its receivers would show the message as not encrypted. It opens with the key
    // or not at all, whatever stands here.
    if let Some(Value::EncryptedPacket(encrypted)) = &mut packet.value
        && encrypted.encryption_type == proto::encryption::Type::None as i32
    {
        encrypted.encryption_type = proto::encryption::Type::Gcm as i32;
    }
    packet.kind = kind as i32;
    packet.participant_sid = sid;
    packet.participant_identity = identity;
    to
}
