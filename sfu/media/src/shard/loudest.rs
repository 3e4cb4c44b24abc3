//! Which speakers of a large room are forwarded: the few loudest, and silence never.
//!
//! The choice is made packet by packet from the sender's own level ([RFC 6464](https://www.rfc-editor.org/rfc/rfc6464)),
//! so that the first packet of a word can be forwarded already. A group has as many seats as speakers are forwarded:
//!
//! - a free seat goes to whoever is audible, at once;
//! - a seat is free again when its holder was not audible for [`HOLD`], so pauses between words keep it;
//! - when all are taken, the packet must be louder by [`MARGIN`] than the quietest holder has been of late.
//!
//! Where a room spans shards, each shard first chooses among its own speakers: the others are handed those only, and rank
//! them with their own. So everybody hears the same few, but for moments in which two are equally loud.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::Shard;
use super::tracks::{StreamKey, TrackKey};
use crate::command::MediaKind;
use crate::drop_reason::DropReason;
use crate::ids::{ExtSeq, SpeakerGroup, TrackId};
use crate::relay::Message;

/// Levels up to this many -dBov are audible. Speech lies around 20 to 45, a quiet room below 60.
const AUDIBLE: u8 = 60;
/// How long a seat is kept without being audible: longer than the pauses inside a sentence.
const HOLD: Duration = Duration::from_millis(400);
/// How much louder than a holder a packet must be to take its seat, in [`Loudness`] units: 6 dB, twice the amplitude.
const MARGIN: Loudness = 6 * UNIT;
/// How long a seat is safe once taken, so that two speakers of one loudness do not cut each other up.
const SAFE: Duration = Duration::from_millis(200);

/// -dBov in sixteenths: 0 is the loudest.
type Loudness = u16;
const UNIT: Loudness = 16;

/// The groups of a shard.
#[derive(Debug, Default)]
pub(crate) struct Loudest {
    groups: HashMap<SpeakerGroup, Ranks>,
}

/// Who is among the loudest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heard {
    /// Of this shard's own tracks: other shards are handed it.
    pub(crate) relayed: bool,
    /// Of all.
    pub(crate) forwarded: bool,
}

impl Heard {
    const BY_ALL: Self = Self { relayed: true, forwarded: true };
}

/// A group as one shard sees it.
#[derive(Debug)]
struct Ranks {
    /// Tracks of this shard among each other.
    own: Group,
    /// All of them; that is the same while there are no others.
    all: Group,
    /// Tracks of other shards.
    relayed: usize,
}

#[derive(Debug, Default)]
struct Group {
    /// How many are forwarded; 0 for all.
    max: usize,
    members: usize,
    seats: Vec<Seat>,
}

#[derive(Debug)]
struct Seat {
    track: TrackKey,
    /// Smoothed: rises fast, falls slowly.
    level: Loudness,
    /// Since when it is taken.
    since: Instant,
    /// When its holder was last audible.
    audible: Instant,
}

impl Loudest {
    /// A track joins a group, whose limit is `max` from now on.
    fn join(&mut self, group: SpeakerGroup, max: usize, relayed: bool) {
        let ranks = self.set_max(group, max);
        ranks.all.members += 1;
        match relayed {
            true => ranks.relayed += 1,
            false => ranks.own.members += 1,
        }
    }

    fn set_max(&mut self, group: SpeakerGroup, max: usize) -> &mut Ranks {
        let ranks = self.groups.entry(group).or_insert_with(|| Ranks {
            own: Group::default(),
            all: Group::default(),
            relayed: 0,
        });
        ranks.own.set_max(max);
        ranks.all.set_max(max);
        ranks
    }

    /// A track is gone.
    pub(super) fn leave(&mut self, group: SpeakerGroup, track: TrackKey, relayed: bool) {
        let Some(have) = self.groups.get_mut(&group) else { return };
        have.all.leave(track);
        match relayed {
            true => have.relayed = have.relayed.saturating_sub(1),
            false => have.own.leave(track),
        }
        if have.all.members == 0 {
            self.groups.remove(&group);
        }
    }

    /// Where a packet of this level, in -dBov, goes.
    fn admits(
        &mut self,
        group: SpeakerGroup,
        track: TrackKey,
        relayed: bool,
        level: u8,
        now: Instant,
    ) -> Heard {
        let Some(ranks) = self.groups.get_mut(&group) else { return Heard::BY_ALL };
        let own = relayed || ranks.own.admits(track, level, now);
        let forwarded = own && (ranks.relayed == 0 || ranks.all.admits(track, level, now));
        Heard { relayed: own && !relayed, forwarded }
    }
}

impl Group {
    fn set_max(&mut self, max: usize) {
        self.max = max;
        self.seats.truncate(max);
        self.seats.reserve_exact(max - self.seats.len());
    }

    fn leave(&mut self, track: TrackKey) {
        self.seats.retain(|seat| seat.track != track);
        self.members = self.members.saturating_sub(1);
    }

    fn admits(&mut self, track: TrackKey, level: u8, now: Instant) -> bool {
        let (audible, small) = (level <= AUDIBLE, self.is_small());
        let loud = Loudness::from(level) * UNIT;
        if let Some(seat) = self.seats.iter_mut().find(|seat| seat.track == track) {
            seat.hear(loud);
            if audible {
                seat.audible = now;
            }
            return small || !seat.is_free(now);
        }
        if !audible {
            return small;
        }
        let seat = Seat { track, level: loud, since: now, audible: now };
        if self.seats.len() < self.max {
            self.seats.push(seat);
            return true;
        }
        // A free seat, else the quietest.
        let weakest = self.seats.iter_mut().max_by_key(|held| (held.is_free(now), held.level));
        if let Some(held) = weakest
            && (held.is_free(now) || held.yields_to(loud, now))
        {
            *held = seat;
            return true;
        }
        small
    }

    /// Everybody is forwarded.
    fn is_small(&self) -> bool {
        self.max == 0 || self.members <= self.max
    }
}

impl Seat {
    fn hear(&mut self, loud: Loudness) {
        self.level = match loud < self.level {
            true => loud.midpoint(self.level),
            false => self.level + (loud - self.level).div_ceil(8),
        };
    }

    fn is_free(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.audible) > HOLD
    }

    fn yields_to(&self, loud: Loudness, now: Instant) -> bool {
        loud + MARGIN < self.level && now.saturating_duration_since(self.since) >= SAFE
    }
}

impl Shard {
    /// An audio track takes part in the choice.
    pub(super) fn limit_speakers(&mut self, track: TrackId, group: SpeakerGroup, max: u16) {
        let Some(track) = self.tracks.key(track).and_then(|key| self.tracks.get_mut(key)) else { return };
        match track.group {
            Some(group) => {
                self.loudest.set_max(group, usize::from(max));
            }
            None => {
                track.group = Some(group);
                self.loudest.join(group, usize::from(max), track.is_relayed());
            }
        }
    }

    /// Takes the levels of released audio, and says where it goes. Video goes everywhere.
    pub(super) fn hear(
        &mut self,
        track_key: TrackKey,
        stream_key: StreamKey,
        released: &[ExtSeq],
        now: Instant,
    ) -> Heard {
        let Self { tracks, subs, loudest, stats, .. } = self;
        let Some(stream) = tracks.streams.get(stream_key).filter(|s| s.kind == MediaKind::Audio) else {
            return Heard::BY_ALL;
        };
        let store = stream.inbound.store();
        let heard = released.iter().filter_map(|index| {
            let (meta, _) = store.get(*index)?;
            Some((meta.audio_level?.level, meta.timestamp, meta.clock_rate))
        });
        // The meter is in the track, the levels in a stream of it: a few at a time cross over.
        let heard: arrayvec::ArrayVec<_, 16> = heard.take(16).collect();
        let Some(track) = tracks.get_mut(track_key) else { return Heard::BY_ALL };
        let relayed = track.is_relayed();
        // The publisher's shard tells the room.
        if !relayed {
            for (level, timestamp, clock_rate) in &heard {
                track.meter.record(*level, *timestamp, *clock_rate);
            }
        }
        let Some(group) = track.group else { return Heard::BY_ALL };
        // Who says nothing of its loudness cannot be ranked, and is better heard than cut off.
        let Some(level) = heard.iter().map(|(level, ..)| *level).min() else { return Heard::BY_ALL };
        let heard = loudest.admits(group, track_key, relayed, level, now);
        if !heard.forwarded {
            stats.drops[DropReason::NotLoudest as usize] += released.len() as u64;
            if !track.withheld {
                // What comes next follows on without a gap in the numbers; its timestamps show the silence.
                for sub in &track.subs {
                    if let Some(sub) = subs.get_mut(*sub) {
                        sub.forwarder.require_key_frame();
                    }
                }
            }
        }
        track.withheld = !heard.forwarded;
        if !heard.relayed && !std::mem::replace(&mut track.unrelayed, true) {
            self.relay_message(track_key, |track| Message::Pause { track });
        } else if heard.relayed {
            track.unrelayed = false;
        }
        heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shard::slots::Key;
    use crate::sim::clock;

    const GROUP: SpeakerGroup = SpeakerGroup(1);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn key(n: u32) -> TrackKey {
        Key::for_test(n, 1)
    }

    fn admits(loudest: &mut Loudest, track: TrackKey, level: u8, now: Instant) -> bool {
        loudest.admits(GROUP, track, false, level, now).forwarded
    }

    /// A group of five that forwards two.
    fn five() -> Loudest {
        let mut loudest = Loudest::default();
        (0..5).for_each(|_| loudest.join(GROUP, 2, false));
        loudest
    }

    #[test]
    fn the_first_audible_packet_takes_a_free_seat_and_silence_none() {
        let t = clock::epoch();
        let mut l = five();
        assert!(!admits(&mut l, key(0), 127, t));
        assert!(!admits(&mut l, key(0), AUDIBLE + 1, t));
        assert!(admits(&mut l, key(0), 50, t));
        assert!(admits(&mut l, key(1), 50, t));
        assert!(!admits(&mut l, key(2), 50, t), "all seats are taken");
    }

    #[test]
    fn a_pause_keeps_the_seat_and_silence_gives_it_up() {
        let t = clock::epoch();
        let mut l = five();
        admits(&mut l, key(0), 30, t);
        admits(&mut l, key(1), 30, t);
        assert!(admits(&mut l, key(0), 127, t + HOLD), "between words");
        assert!(!admits(&mut l, key(0), 127, t + HOLD + ms(1)));
        // Nobody wants the seat: it is there for the next word.
        assert!(admits(&mut l, key(0), 50, t + ms(900)));
        // One who stopped sending altogether holds nothing.
        assert!(admits(&mut l, key(2), 59, t + ms(900)));
    }

    #[test]
    fn a_louder_speaker_takes_over_only_by_the_margin_and_not_at_once() {
        let t = clock::epoch();
        let mut l = five();
        for i in 0..20 {
            admits(&mut l, key(0), 30, t + ms(20 * i));
            admits(&mut l, key(1), 40, t + ms(20 * i));
        }
        let now = t + ms(400);
        assert!(!admits(&mut l, key(2), 34, now), "six dB are not more than six");
        assert!(admits(&mut l, key(2), 33, now));
        assert!(!admits(&mut l, key(1), 40, now), "the quietest lost its seat");
        assert!(admits(&mut l, key(0), 30, now));
        assert!(!admits(&mut l, key(3), 0, now + ms(10)) || !admits(&mut l, key(0), 30, now + ms(10)));
        assert!(admits(&mut l, key(2), 33, now + ms(20)), "safe for a while");
    }

    #[test]
    fn small_groups_have_no_limit_and_members_that_leave_make_room() {
        let t = clock::epoch();
        let mut l = five();
        admits(&mut l, key(0), 30, t);
        admits(&mut l, key(1), 30, t);
        assert!(!admits(&mut l, key(2), 30, t));
        l.leave(GROUP, key(0), false);
        assert!(admits(&mut l, key(2), 30, t), "its seat is free");
        l.leave(GROUP, key(3), false);
        l.leave(GROUP, key(4), false);
        assert!(admits(&mut l, key(1), 127, t + ms(9000)), "two of two: silence as well");
        l.leave(GROUP, key(1), false);
        l.leave(GROUP, key(2), false);
        assert!(l.groups.is_empty());
        assert!(admits(&mut l, key(1), 127, t), "no group, no limit");
        l.join(GROUP, 0, false);
        l.join(GROUP, 0, false);
        assert!(admits(&mut l, key(1), 127, t) && admits(&mut l, key(1), 10, t), "zero is no limit");
    }

    #[test]
    fn levels_beyond_the_scale_do_no_harm() {
        let t = clock::epoch();
        let mut l = five();
        for level in [0, 255, 127, 60, 255, 0] {
            for track in 0..5 {
                admits(&mut l, key(track), level, t);
            }
        }
        assert!(l.groups[&GROUP].own.seats.len() <= 2);
    }
}
