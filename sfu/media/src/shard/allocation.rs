//! Which layer of each video track a peer gets of what its path carries.

use std::time::{Duration, Instant};

use super::Shard;
use super::peers::PeerKey;
use super::sending::Work;
use super::subscriptions::{SubKey, Subscription};
use super::tracks::{StreamKey, TrackKey, Tracks};
use crate::bwe::allocator::{Budget, Claim, Layer, Steps, given_bps};
use crate::command::{MediaKind, ShardEvent, SubscriptionTarget};
use crate::drop_reason::DropReason;
use crate::tx::TxQueue;

/// Time between looks at a peer's allocation where nothing else calls for one: rates and layers change by themselves.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// .. and while a change of layers is under way.
const LOOK_SOON: Duration = Duration::from_millis(50);
/// How long nothing must fit before a track is paused. A picture that comes and goes is worse than one that is late.
const PAUSE_AFTER: Duration = Duration::from_millis(600);
/// How long something must fit before a paused track goes on, on a path that was full not long ago: its key frame is what a
/// path that was held for too much cannot take, and the next probe tells, ..
const RESUME_AFTER: Duration = Duration::from_millis(2000);
/// .. unless the budget is so many times what it takes.
const PLENTY: u64 = 3;
/// What a layer is taken for before it was measured, by its place among the track's: what browsers send.
const EXPECTED_BPS: [u64; 4] = [150_000, 500_000, 1_500_000, 3_000_000];
/// .. or so many times the layer below.
const EXPECTED_GROWTH: u64 = 3;
/// What goes on while a queue drains takes at most this share of the budget, in percent.
const LEAST_PERCENT: u64 = 60;
/// With more than this in a pacer's queue while the path has one, too, a layer that is to go goes before there is another
/// to show.
const TOO_LONG: Duration = Duration::from_millis(200);

impl Shard {
    /// Shares a peer's budget among its video subscriptions and does what follows from that.
    pub(super) fn allocate(&mut self, key: PeerKey, tx: &mut TxQueue, now: Instant) {
        let mut claims = std::mem::take(&mut self.claims);
        let mut claimants = std::mem::take(&mut self.claimants);
        self.collect_claims(key, &mut claims, &mut claimants, now);
        if let Some(peer) = self.peers.get_mut(key)
            && let Some(budget) = peer.sending.budget(now)
        {
            let mut shared = peer.sending.allocator.share(budget, &mut claims, now);
            for (claim, sub) in claims.iter_mut().zip(&claimants) {
                self.put_off(*sub, claim, budget, now);
            }
            shared.allocated = given_bps(&claims);
            if let Some(peer) = self.peers.get_mut(key) {
                peer.sending.set_shared(shared, now);
                peer.sending.set_pace(now);
            }
            let full = self.is_leaving(&claims, &claimants);
            for (claim, sub) in claims.iter().zip(&claimants) {
                self.give(*sub, claim, budget.bps, full, now);
            }
        } else {
            for sub in &claimants {
                self.unbind(*sub);
            }
        }
        self.claims = claims;
        self.claimants = claimants;
        let subs = self.peers.get(key).map_or(0, |peer| peer.subs.len());
        for at in 0..subs {
            let sub = self.peers.get(key).and_then(|peer| peer.subs.get(at)).copied();
            if let Some(sub) = sub {
                // What was asked for may have been lost on the way: as long as it is needed it is asked for.
                self.serve_subscription(sub, tx, now);
            }
        }
    }

    /// What of a peer's video there is and is wanted.
    fn collect_claims(
        &mut self,
        key: PeerKey,
        claims: &mut Vec<Claim>,
        claimants: &mut Vec<SubKey>,
        now: Instant,
    ) {
        claims.clear();
        claimants.clear();
        let Self { peers, subs, tracks, .. } = self;
        let Some(peer) = peers.get_mut(key) else { return };
        let bound = peer.sending.budget(now).is_some();
        let mut video = false;
        for sub_key in &peer.subs {
            let Some(sub) = subs.get_mut(*sub_key) else { continue };
            if sub.forwarder.section().kind != MediaKind::Video {
                continue;
            }
            video = true;
            let muted = tracks.get(sub.track).is_none_or(|track| track.policy.muted);
            if !sub.wanted.enabled {
                sub.aim(sub.wanted);
                continue;
            }
            let steps = if muted { Steps::default() } else { steps(tracks, sub.track, sub.wanted, now) };
            if bound && steps.as_slice().is_empty() {
                // Nothing to give of it now; what it had or was told stays.
                continue;
            }
            let key_frames = tracks.get(sub.track).map(|track| {
                let bits =
                    |key: StreamKey| tracks.streams.get(key).map_or(0, |stream| stream.key_frame.likely());
                track.streams.map(|stream| stream.map_or(0, bits))
            });
            claims.push(Claim {
                priority: sub.wanted.priority,
                steps,
                key_frames: key_frames.unwrap_or_default(),
                current: sub.current,
                given: None,
            });
            claimants.push(*sub_key);
        }
        peer.sending.next_look = video.then_some(now + LOOK_EVERY);
    }

    /// Keeps the lowest layer for a while when nothing fits any more, and a paused track paused until something did for a
    /// while: estimates dip and overshoot.
    fn put_off(&mut self, key: SubKey, claim: &mut Claim, budget: Budget, now: Instant) {
        let Some(sub) = self.subs.get_mut(key) else { return };
        if claim.given.is_none() == sub.paused || budget.starting {
            sub.turns_since = None;
            return;
        }
        let waited = now.saturating_duration_since(*sub.turns_since.get_or_insert(now));
        let lowest = claim.steps.as_slice().first();
        if !sub.paused && waited < PAUSE_AFTER {
            claim.given = lowest.map(|step| step.layer);
        } else if sub.paused
            && budget.contested
            && waited < RESUME_AFTER
            && lowest.is_some_and(|step| budget.bps < step.bps.saturating_mul(PLENTY))
        {
            claim.given = None;
        }
    }

    /// Whether streams are still sent that are to be left at the next key frame of a lower one.
    fn is_leaving(&self, claims: &[Claim], claimants: &[SubKey]) -> bool {
        claims.iter().zip(claimants).any(|(claim, sub)| {
            let stream = self.subs.get(*sub).and_then(|sub| sub.forwarder.current_stream());
            claim.given.zip(stream).is_some_and(|(given, stream)| stream > given.spatial)
        })
    }

    /// Makes a subscription follow what it was given; while the path is still `full` of what others are leaving, not up
    /// yet.
    fn give(&mut self, key: SubKey, claim: &Claim, budget: u64, full: bool, now: Instant) {
        let Self { subs, peers, events, tracks, stats, .. } = self;
        let Some(sub) = subs.get_mut(key) else { return };
        sub.current = claim.given;
        let halted = peers.get(sub.peer).is_some_and(|peer| peer.sending.is_halted());
        let stream = sub.forwarder.current_stream();
        let rises = claim.given.is_some_and(|given| stream.is_none_or(|stream| stream < given.spatial));
        if halted {
            let least = least(claim, stream, budget);
            sub.aim(SubscriptionTarget {
                enabled: least.is_some(),
                max_temporal: least.map_or(0, |layer| layer.temporal),
                ..target(sub.wanted, claim)
            });
            if let Some(peer) = peers.get_mut(sub.peer).filter(|_| least.is_none()) {
                let dropped = peer.sending.pacer.retain(|work| work.sub() != key);
                stats.drops[DropReason::Congested as usize] += dropped as u64;
            }
        } else if full && rises {
            if let Some(peer) = peers.get_mut(sub.peer) {
                peer.sending.next_look = Some(now + LOOK_SOON);
            }
        } else {
            sub.aim(target(sub.wanted, claim));
        }
        let paused = claim.given.is_none();
        if paused != std::mem::replace(&mut sub.paused, paused) {
            match paused {
                true => stats.pauses += 1,
                false => stats.resumes += 1,
            }
            if let Some(track) = tracks.get(sub.track) {
                events.push_back(ShardEvent::StreamPaused { track: track.id, sub: sub.id, paused });
            }
        }
        let Some(given) = claim.given else { return };
        let Some(peer) = peers.get_mut(sub.peer) else { return };
        if sub.forwarder.current_stream().is_none_or(|stream| stream <= given.spatial) {
            return;
        }
        let full = match peer.sending.drains() {
            true => TOO_LONG,
            // A key frame may take a while.
            false => TOO_LONG * 3,
        };
        if peer.sending.pacer.drain_time() > full {
            // The path is full of what it cannot carry. A moment without a picture is better than all of it late.
            peer.sending.pacer.retain(
                |work| !matches!(work, Work::Packet { sub, layer, .. } if *sub == key && *layer > given.spatial),
            );
            sub.forwarder.require_key_frame();
        } else {
            peer.sending.next_look = Some(now + LOOK_SOON);
        }
    }

    /// Lets a subscription have all that its page wants: nothing tells what the path carries.
    fn unbind(&mut self, key: SubKey) {
        let Self { subs, events, tracks, stats, .. } = self;
        let Some(sub) = subs.get_mut(key) else { return };
        sub.aim(sub.wanted);
        sub.current = Some(Layer { spatial: sub.wanted.max_spatial, temporal: sub.wanted.max_temporal });
        if std::mem::take(&mut sub.paused) {
            stats.resumes += 1;
            if let Some(track) = tracks.get(sub.track) {
                events.push_back(ShardEvent::StreamPaused { track: track.id, sub: sub.id, paused: false });
            }
        }
    }

    /// A subscription begins: what it gets until its path and its track are known better.
    pub(super) fn first_target(sub: &mut Subscription, bound: bool) {
        let SubscriptionTarget { max_spatial, max_temporal, .. } = sub.wanted;
        let spatial = if bound { 0 } else { max_spatial };
        sub.current = Some(Layer { spatial, temporal: max_temporal });
        sub.aim(SubscriptionTarget { max_spatial: spatial, ..sub.wanted });
    }

    /// A track's layers or policy changed: its subscribers' shares do too.
    pub(super) fn reallocate_track(&mut self, key: TrackKey, tx: &mut TxQueue, now: Instant) {
        let subs = self.tracks.get(key).map_or(0, |track| track.subs.len());
        for at in 0..subs {
            let sub = self.tracks.get(key).and_then(|track| track.subs.get(at)).copied();
            let peer = sub.and_then(|sub| self.subs.get(sub)).map(|sub| sub.peer);
            if let Some(peer) = peer {
                self.allocate(peer, tx, now);
            }
        }
    }
}

/// The target by which a forwarder follows what was given.
fn target(wanted: SubscriptionTarget, claim: &Claim) -> SubscriptionTarget {
    let Some(given) = claim.given else { return SubscriptionTarget { enabled: false, ..wanted } };
    let of_layer = |layer: &Layer| layer.spatial == given.spatial;
    let top = claim.steps.as_slice().iter().map(|step| step.layer).rfind(of_layer);
    // All temporal layers are given: also those that may come.
    let whole = top.is_none_or(|top| given.temporal >= top.temporal);
    SubscriptionTarget {
        max_spatial: given.spatial.min(wanted.max_spatial),
        max_temporal: if whole { wanted.max_temporal } else { given.temporal.min(wanted.max_temporal) },
        ..wanted
    }
}

/// What goes on while video waits for a path's queue to drain: the lowest temporal layer of the smallest picture, where that is what
/// is shown and takes little. After it no key frame is needed, of which everyone who watches would get one.
fn least(claim: &Claim, stream: Option<u8>, budget: u64) -> Option<Layer> {
    let step = claim.steps.as_slice().first()?;
    let shown =
        stream == Some(step.layer.spatial) && claim.given.is_some_and(|given| stream == Some(given.spatial));
    (shown && step.bps <= budget / 100 * LEAST_PERCENT).then_some(step.layer)
}

/// What a page that wants this much can be given of a track's layers that are there now.
fn steps(tracks: &mut Tracks, key: TrackKey, wanted: SubscriptionTarget, now: Instant) -> Steps {
    let mut steps = Steps::default();
    let Some(track) = tracks.get(key) else { return steps };
    let streams = track.streams;
    let simulcast = streams.iter().flatten().count() > 1;
    // A publisher that runs short of bits stops its largest pictures. Below one that comes, silence is a pause.
    let top = streams.iter().rposition(|stream| {
        stream.and_then(|key| tracks.streams.get_mut(key)).is_some_and(|stream| !stream.rates.is_silent(now))
    });
    for (layer, stream) in (0u8..).zip(streams).take(top.map_or(0, |top| top + 1)) {
        let Some(stream) = stream.and_then(|key| tracks.streams.get_mut(key)) else { continue };
        let there = stream.rates.highest(now).or_else(|| stream.rates.highest_of_late(now));
        let Some((inner, temporal)) = there else { continue };
        let temporal = temporal.min(wanted.max_temporal);
        let first = if simulcast { inner } else { 0 };
        let inner = if simulcast { inner } else { inner.min(wanted.max_spatial) };
        if layer > wanted.max_spatial && !steps.as_slice().is_empty() {
            break;
        }
        for inner in first.min(inner)..=inner {
            let spatial = if simulcast { layer } else { inner };
            // Above the lowest picture, one at half its frame rate or less is no gain.
            let lowest = if steps.as_slice().is_empty() { 0 } else { temporal.saturating_sub(1) };
            for temporal in lowest..=temporal {
                let Some(bps) = stream.bps_up_to(inner, temporal, now) else { continue };
                steps.push(Layer { spatial, temporal }, bps.max(1));
            }
            if stream.bps_up_to(inner, temporal, now).is_none() {
                let below = steps.as_slice().last().map(|step| step.bps * EXPECTED_GROWTH);
                let expected = EXPECTED_BPS[usize::from(spatial).min(EXPECTED_BPS.len() - 1)];
                steps.push(Layer { spatial, temporal }, below.unwrap_or(expected));
            }
        }
        if layer >= wanted.max_spatial {
            break;
        }
    }
    steps
}
