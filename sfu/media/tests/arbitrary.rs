//! Arbitrary datagrams and arbitrary sequences of commands: nothing panics, time goes on, and a bystanding call flows.
#![allow(clippy::unwrap_used)]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use common::{assert_full_call, full_call, millis, secs};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use sfu_media::command::{
    Codec, CodecParams, DataChannelSpec, DataLabel, Extension, ExtensionMap, Fingerprint, IceCredentials,
    MediaKind, ReceiveSection, RemoteTransport, SendSection, ShardCommand, SsrcPair, SubscriptionTarget,
    TrackPolicy,
};
use sfu_media::ids::{Mid, PeerId, Pt, Rid, Ssrc, SubId, TrackId};
use sfu_media::sim::world::World;

/// Few ids, so that commands meet. Those of the bystanders are others, but for their peers 1 and 2, of which 2 may be
/// named; the bystanders' own ids lie above 1000.
fn peer() -> impl Strategy<Value = PeerId> {
    (2..6u64).prop_map(PeerId)
}

fn track() -> impl Strategy<Value = TrackId> {
    (0..5u64).prop_map(TrackId)
}

fn sub() -> impl Strategy<Value = SubId> {
    (0..6u64).prop_map(SubId)
}

fn mid() -> impl Strategy<Value = Mid> {
    "[abc]".prop_map(|text| Mid::new(&text).unwrap())
}

fn ssrc() -> impl Strategy<Value = Ssrc> {
    (0..12u32).prop_map(Ssrc)
}

fn ice() -> impl Strategy<Value = IceCredentials> {
    ("[a-d]{4}", "[a-z]{22}").prop_map(|(ufrag, pwd)| IceCredentials { ufrag, pwd })
}

fn kind() -> impl Strategy<Value = MediaKind> {
    prop_oneof![Just(MediaKind::Audio), Just(MediaKind::Video)]
}

fn codecs() -> impl Strategy<Value = Vec<CodecParams>> {
    let codec = prop_oneof![
        Just(Codec::Opus),
        Just(Codec::Red),
        Just(Codec::Vp8),
        Just(Codec::Vp9),
        Just(Codec::Av1),
        Just(Codec::H264)
    ];
    let params = (90..100u8, codec, prop_oneof![Just(0), Just(48_000), Just(90_000)], option::of(95..105u8));
    let params = params.prop_map(|(pt, codec, clock_rate, rtx)| CodecParams {
        pt: Pt(pt),
        codec,
        clock_rate,
        rtx: rtx.map(Pt),
        variant: 0,
    });
    vec(params, 0..4)
}

fn extensions() -> impl Strategy<Value = ExtensionMap> {
    vec((0..Extension::ALL.len(), any::<u8>()), 0..8).prop_map(|ids| {
        let mut map = ExtensionMap::default();
        for (extension, id) in ids {
            map.set(Extension::ALL[extension], id);
        }
        map
    })
}

fn receive() -> impl Strategy<Value = ReceiveSection> {
    let pair = (ssrc(), option::of(ssrc())).prop_map(|(primary, rtx)| SsrcPair { primary, rtx });
    let rid = "[qhfx]".prop_map(|text| Rid::new(&text).unwrap());
    (mid(), kind(), codecs(), extensions(), vec(pair, 0..6), vec(rid, 0..6)).prop_map(
        |(mid, kind, codecs, extensions, ssrcs, rids)| ReceiveSection {
            mid,
            kind,
            codecs,
            extensions,
            ssrcs,
            rids,
        },
    )
}

fn send() -> impl Strategy<Value = SendSection> {
    (mid(), kind(), ssrc(), option::of(ssrc()), codecs(), extensions(), "[a-z]{0,300}").prop_map(
        |(mid, kind, ssrc, rtx_ssrc, codecs, extensions, cname)| SendSection {
            mid,
            kind,
            ssrc,
            rtx_ssrc,
            codecs,
            extensions,
            cname: Arc::from(cname),
        },
    )
}

fn target() -> impl Strategy<Value = SubscriptionTarget> {
    any::<(bool, u8, u8, u32)>().prop_map(|(enabled, max_spatial, max_temporal, priority)| {
        SubscriptionTarget { enabled, max_spatial, max_temporal, priority }
    })
}

fn policy() -> impl Strategy<Value = TrackPolicy> {
    any::<(bool, bool)>().prop_map(|(require_encryption, muted)| TrackPolicy { require_encryption, muted })
}

fn label() -> impl Strategy<Value = DataLabel> {
    prop_oneof![Just(DataLabel::Reliable), Just(DataLabel::Lossy), Just(DataLabel::DataTrack)]
}

fn command() -> impl Strategy<Value = ShardCommand> {
    let channel = (label(), any::<bool>(), option::of(any::<u16>()))
        .prop_map(|(label, ordered, max_retransmits)| DataChannelSpec { label, ordered, max_retransmits });
    prop_oneof![
        (peer(), ice(), vec(channel, 0..4)).prop_map(|(peer, ice, data_channels)| ShardCommand::OpenPeer {
            peer,
            ice,
            data_channels
        }),
        (peer(), ice(), any::<[u8; 32]>()).prop_map(|(peer, ice, fingerprint)| ShardCommand::SetRemote {
            peer,
            remote: RemoteTransport { ice, fingerprint: Fingerprint(fingerprint) }
        }),
        (peer(), ice()).prop_map(|(peer, ice)| ShardCommand::RestartIce { peer, ice }),
        (peer(), vec(receive(), 0..4))
            .prop_map(|(peer, sections)| ShardCommand::SetReceive { peer, sections }),
        (peer(), mid(), track(), policy()).prop_map(|(peer, mid, track, policy)| ShardCommand::Publish {
            peer,
            mid,
            track,
            policy
        }),
        (track(), policy()).prop_map(|(track, policy)| ShardCommand::SetTrackPolicy { track, policy }),
        track().prop_map(|track| ShardCommand::Unpublish { track }),
        (sub(), track(), peer(), send(), target()).prop_map(|(sub, track, peer, section, target)| {
            ShardCommand::Subscribe { sub, track, peer, section, target }
        }),
        (sub(), target()).prop_map(|(sub, target)| ShardCommand::SetTarget { sub, target }),
        sub().prop_map(|sub| ShardCommand::Unsubscribe { sub }),
        (peer(), label(), vec(any::<u8>(), 0..2000)).prop_map(|(peer, label, payload)| {
            ShardCommand::SendData { peer, label, payload: Bytes::from(payload) }
        }),
        peer().prop_map(|peer| ShardCommand::ClosePeer { peer }),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    Command(ShardCommand),
    /// From a bystander's address or a stranger's.
    Datagram(bool, Vec<u8>),
    /// Authentic RTP of the second bot.
    Rtp(Vec<u8>),
    /// Authentic RTCP of the second bot.
    Rtcp(Vec<u8>),
    Wait(u64),
}

/// Bytes that look like one of the protocols more often than chance would have it.
fn datagram() -> impl Strategy<Value = Vec<u8>> {
    let head = prop_oneof![
        Just(vec![0x00, 0x01, 0x00, 0x08, 0x21, 0x12, 0xa4, 0x42]),
        Just(vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20]),
        Just(vec![0x90, 96]),
        Just(vec![0x80, 200, 0, 6]),
        vec(any::<u8>(), 0..2)
    ];
    (head, vec(any::<u8>(), 0..200)).prop_map(|(mut head, tail)| {
        head.extend(tail);
        head
    })
}

/// RTP whose SSRC and payload type often meet what the commands negotiate.
fn rtp() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![Just(0x80u8), Just(0x90), Just(0xa0), Just(0xb0)];
    (first, 88..106u8, any::<(bool, u16, u32)>(), ssrc(), vec(any::<u8>(), 0..80)).prop_map(
        |(first, pt, (marker, seq, timestamp), ssrc, tail)| {
            let mut out = vec![first, u8::from(marker) << 7 | pt];
            out.extend(seq.to_be_bytes());
            out.extend(timestamp.to_be_bytes());
            out.extend(ssrc.0.to_be_bytes());
            out.extend(tail);
            out
        },
    )
}

fn rtcp() -> impl Strategy<Value = Vec<u8>> {
    let packet = (0..32u8, 200..208u8, ssrc(), ssrc(), vec(any::<u8>(), 0..20)).prop_map(
        |(count, kind, sender, media, mut fci)| {
            fci.resize(fci.len().next_multiple_of(4), 0);
            let mut out = vec![0x80 | count, kind, 0, fci.len() as u8 / 4 + 2];
            out.extend(sender.0.to_be_bytes());
            out.extend(media.0.to_be_bytes());
            out.extend(fci);
            out
        },
    );
    vec(packet, 1..4).prop_map(|packets| packets.concat())
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => command().prop_map(Step::Command),
        2 => (any::<bool>(), datagram()).prop_map(|(known, bytes)| Step::Datagram(known, bytes)),
        4 => rtp().prop_map(Step::Rtp),
        2 => rtcp().prop_map(Step::Rtcp),
        2 => (0..400u64).prop_map(Step::Wait),
    ]
}

fn take(world: &mut World, step: Step) {
    match step {
        Step::Command(command) => world.command(command),
        Step::Datagram(known, bytes) => {
            let stranger = SocketAddr::from(([192, 0, 2, 66], 6666));
            let from = if known { world.bots[1].addr() } else { stranger };
            world.inject(from, &bytes);
        }
        Step::Rtp(bytes) => world.bots[1].send_rtp(&bytes),
        Step::Rtcp(bytes) => world.bots[1].send_rtcp(&bytes),
        Step::Wait(ms) => world.run(millis(ms)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn datagrams_never_panic_a_shard(datagrams in vec(datagram(), 1..60)) {
        let mut world = World::new(1);
        world.connect(2);
        let from = world.bots[0].addr();
        let in_before = world.stats().datagrams_in;
        for datagram in &datagrams {
            world.inject(from, datagram);
        }
        prop_assert_eq!(world.stats().datagrams_in - in_before, datagrams.len() as u64);
        world.run(millis(50));
        prop_assert!(world.bots[1].is_connected());
    }

    #[test]
    fn steps_never_panic_a_shard(steps in vec(step(), 1..60)) {
        let mut world = World::new(2);
        world.connect(3);
        // The bot whose peer the commands may name publishes as well, so that they meet media; the first is a bystander.
        for bot in 0..2 {
            world.publish(bot, sfu_media::sim::world::Publish::video());
        }
        for step in steps {
            take(&mut world, step);
        }
        let before = world.stats().rtp_in;
        world.run(secs(1));
        prop_assert!(world.stats().rtp_in > before + 80);
    }
}

#[test]
fn a_call_beside_arbitrary_commands_goes_on() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let mut world = World::new(3);
    let tracks = full_call(&mut world, 4);
    world.run(secs(1));
    for _ in 0..300 {
        // The second bot's peer is named by the commands: what it has may break, nothing else.
        let step = step().new_tree(&mut runner).unwrap().current();
        let step = match step {
            Step::Command(command) => Step::Command(spare(command)),
            Step::Wait(ms) => Step::Wait(ms / 10),
            other => other,
        };
        take(&mut world, step);
    }
    world.run(secs(2));
    let others: Vec<_> = tracks
        .into_iter()
        .filter(|(track, _)| [0, 2].contains(&track.bot))
        .map(|(track, subs)| (track, subs.into_iter().filter(|sub| [0, 2].contains(&sub.bot)).collect()))
        .collect();
    assert_eq!(others.len(), 4);
    assert_full_call(&world, &others, 0.98, 4);
}

/// Moves commands away from the peers of the third and fourth bot, which are not to be harmed.
fn spare(mut command: ShardCommand) -> ShardCommand {
    match &mut command {
        ShardCommand::OpenPeer { peer, .. }
        | ShardCommand::SetRemote { peer, .. }
        | ShardCommand::RestartIce { peer, .. }
        | ShardCommand::SetReceive { peer, .. }
        | ShardCommand::Publish { peer, .. }
        | ShardCommand::Subscribe { peer, .. }
        | ShardCommand::SendData { peer, .. }
        | ShardCommand::ClosePeer { peer }
            if peer.0 > 2 =>
        {
            peer.0 += 10;
        }
        _ => {}
    }
    command
}
