//! The tracks of the others: who publishes what, what the page shows of it, what arrives.

use std::collections::BTreeMap;
use std::time::Instant;

use livekit_protocol as proto;
use proto::VideoQuality;
use str0m::media::KeyframeRequestKind;
use str0m::rtp::RtpPacket;

use super::{Remote, Session, micros};
use crate::client::signal::Request;
use crate::client::trouble::SignalError;
use crate::client::view::{Tile, wishes};
use crate::measure::{Kind, Meter};

impl Session<'_> {
    pub(super) fn tick(&mut self, now: Instant) {
        let mut board = self.context.board();
        for (track, remote) in &mut self.remotes {
            if remote.meter.tick(&mut board, now)
                && let Some((ssrc, _)) = self.by_ssrc.iter().find(|(_, of)| *of == track)
                && let Some(stream) = self.subscriber.rtc.direct_api().stream_rx(ssrc)
            {
                stream.request_keyframe(KeyframeRequestKind::Pli);
            }
        }
    }

    pub(super) fn on_packet(&mut self, packet: &RtpPacket) {
        let ssrc = packet.header.ssrc;
        if !self.by_ssrc.contains_key(&ssrc) {
            let Some(stream) = self.subscriber.rtc.direct_api().stream_rx(&ssrc).map(|s| s.mid()) else {
                return;
            };
            let Some(track) = self.tracks_by_mid.get(&stream.to_string()).cloned() else { return };
            let Some(remote) = self.remotes.get_mut(&track) else { return };
            if self.by_ssrc.values().any(|known| *known == track) {
                self.by_ssrc.retain(|_, known| *known != track);
                remote.meter.restart_numbers();
            }
            self.by_ssrc.insert(ssrc, track);
        }
        let Some(remote) = self.by_ssrc.get(&ssrc).and_then(|track| self.remotes.get_mut(track)) else {
            return;
        };
        let mut board = self.context.board();
        remote.meter.on_packet(
            *packet.seq_no,
            packet.time.as_seconds(),
            packet.header.marker,
            &packet.payload,
            self.context.cryptor.as_deref(),
            &mut board,
            packet.timestamp,
        );
        if let Some(join) = self.join.as_mut().filter(|join| join.first_media_us.is_none())
            && remote.meter.has_shown()
        {
            join.first_media_us = Some(micros(self.start, packet.timestamp));
        }
    }

    pub(super) fn on_participants(&mut self, participants: Vec<proto::ParticipantInfo>, now: Instant) {
        for participant in participants {
            if participant.sid == self.own_sid {
                continue;
            }
            self.others.retain(|sid, _| *sid != participant.sid);
            let left = participant.state == proto::participant_info::State::Disconnected as i32;
            let has = |sid: &String| !left && participant.tracks.iter().any(|track| track.sid == *sid);
            let gone: Vec<String> = self
                .remotes
                .iter()
                .filter(|(sid, remote)| remote.participant == participant.sid && !has(sid))
                .map(|(sid, _)| sid.clone())
                .collect();
            for sid in gone {
                self.drop_remote(&sid, true, now);
            }
            if left {
                continue;
            }
            self.others.insert(participant.sid.clone(), participant.identity);
            for track in participant.tracks {
                let kind = match proto::TrackType::try_from(track.r#type) {
                    Ok(proto::TrackType::Audio) => Kind::Audio,
                    Ok(proto::TrackType::Video) => Kind::Video,
                    _ => continue,
                };
                let number = self.came;
                let (window, clock) = (self.context.window, self.context.clock);
                let made_up = self.made_up.clone();
                self.remotes.entry(track.sid).or_insert_with(|| {
                    self.came += 1;
                    Remote {
                        participant: participant.sid.clone(),
                        kind,
                        number,
                        wish: None,
                        meter: Meter::new(kind, window, clock, now).without(made_up),
                    }
                });
            }
        }
    }

    pub(super) fn drop_remote(&mut self, track: &str, gone: bool, now: Instant) {
        let Some(remote) = self.remotes.remove(track) else { return };
        self.by_ssrc.retain(|_, known| known != track);
        let mut board = self.context.board();
        let mut result = remote.meter.finish(gone, &mut board, now);
        if result.watched.is_zero() && result.packets == 0 {
            return; // nothing of it falls into the window
        }
        result.viewer.clone_from(&self.plan.identity);
        result.track = track.to_owned();
        board.streams.push(result);
    }

    /// Sections may carry other tracks since the last description.
    pub(super) fn forget_moved(&mut self) {
        let (mids, mut api) = (&self.tracks_by_mid, self.subscriber.rtc.direct_api());
        self.by_ssrc.retain(|ssrc, track| {
            let mid = api.stream_rx(ssrc).map(|stream| stream.mid().to_string());
            mid.and_then(|mid| mids.get(&mid)).is_some_and(|now| now == track)
        });
    }

    /// Asks for what the page shows now, where that has changed.
    pub(super) async fn send_wishes(&mut self, now: Instant) -> Result<(), SignalError> {
        let mut tiles: Vec<(u64, Tile)> = self
            .remotes
            .iter()
            .filter(|(_, remote)| remote.kind == Kind::Video)
            .map(|(sid, r)| (r.number, Tile { track: sid.clone(), participant: r.participant.clone() }))
            .collect();
        tiles.sort_by_key(|(number, _)| *number);
        let tiles: Vec<Tile> = tiles.into_iter().map(|(_, tile)| tile).collect();
        let role = &self.plan.role;
        let mut changed: BTreeMap<Option<i32>, Vec<String>> = BTreeMap::new();
        for (track, wish) in wishes(role.layout, role.tiles, &tiles, self.speaker.as_deref()) {
            let Some(remote) = self.remotes.get_mut(&track) else { continue };
            if remote.wish == Some(wish) {
                continue;
            }
            remote.wish = Some(wish);
            remote.meter.ask(wish.map(|quality| quality as u8), now);
            changed.entry(wish.map(i32::from)).or_default().push(track);
        }
        for (quality, track_sids) in changed {
            // A page names the size of the element; the quality is for servers that do not look at it.
            let (width, height) = match quality.map(VideoQuality::try_from) {
                Some(Ok(VideoQuality::Low)) => (320, 180),
                Some(Ok(VideoQuality::Medium)) => (640, 360),
                Some(_) => (1280, 720),
                None => (0, 0),
            };
            let settings = proto::UpdateTrackSettings {
                track_sids,
                disabled: quality.is_none(),
                quality: quality.unwrap_or_default(),
                width,
                height,
                ..Default::default()
            };
            self.signal.send(Request::TrackSetting(settings)).await?;
        }
        Ok(())
    }
}
