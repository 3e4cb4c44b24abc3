//! Whole exchanges: what Chromium 156, Firefox 153 and the native LiveKit SDK wrote when they talked to this code
//! (`fixtures/`), str0m as a live client, and sequences of operations at random.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use sfu_media::command::{Codec, CodecParams, Extension, Fingerprint, IceCredentials, MediaKind};
use sfu_media::ids::{Pt, Ssrc, SubId};

use super::text::{Description, Direction};
use super::*;

macro_rules! fixture {
    ($name:literal) => {
        ($name, include_str!(concat!("fixtures/", $name, ".sdp")))
    };
}

const FIXTURES: [(&str, &str); 33] = [
    fixture!("chromium-publish_simulcast"),
    fixture!("chromium-publish_screen"),
    fixture!("chromium-publish_ice_restart"),
    fixture!("chromium-publish_removed"),
    fixture!("chromium-publish_stopped"),
    fixture!("chromium-publish_recycled"),
    fixture!("chromium-v1_initial"),
    fixture!("chromium-v1_tracks"),
    fixture!("chromium-v1_ice_restart"),
    fixture!("chromium-sub_data"),
    fixture!("chromium-sub_tracks"),
    fixture!("chromium-sub_removed"),
    fixture!("chromium-sub_reused"),
    fixture!("chromium-sub_ice_restart"),
    fixture!("chromium-sub_client_stopped"),
    fixture!("chromium-sub_recycled"),
    fixture!("firefox-publish_simulcast"),
    fixture!("firefox-publish_screen"),
    fixture!("firefox-publish_ice_restart"),
    fixture!("firefox-publish_removed"),
    fixture!("firefox-publish_stopped"),
    fixture!("firefox-publish_recycled"),
    fixture!("firefox-v1_initial"),
    fixture!("firefox-v1_tracks"),
    fixture!("firefox-v1_ice_restart"),
    fixture!("firefox-sub_data"),
    fixture!("firefox-sub_tracks"),
    fixture!("firefox-sub_removed"),
    fixture!("firefox-sub_reused"),
    fixture!("firefox-sub_ice_restart"),
    fixture!("firefox-sub_client_stopped"),
    fixture!("firefox-sub_recycled"),
    fixture!("native-v1_initial"),
];

fn sdp(browser: &str, name: &str) -> &'static str {
    let full = format!("{browser}-{name}");
    FIXTURES.iter().find(|(n, _)| *n == full).expect("a fixture of this name").1
}

fn ice(n: u32) -> IceCredentials {
    IceCredentials { ufrag: format!("relay{n}"), pwd: format!("relaypasswordrelaypassword{n}") }
}

fn negotiation(role: Role) -> Negotiation {
    let candidates = vec!["192.0.2.1:7882".parse().unwrap(), "[2001:db8::1]:7882".parse().unwrap()];
    let tcp_candidates = vec!["192.0.2.1:443".parse().unwrap()];
    let local = LocalTransport {
        ice: ice(0),
        fingerprint: Fingerprint([0xab; 32]),
        candidates,
        tcp_candidates,
        restarts: 0,
    };
    Negotiation::new(local, CodecPolicy::default(), role)
}

const RELAY_OFFERS: Role = Role::RelayOffers { data_channels: true };

fn track(sub: u64, kind: MediaKind, codecs: &[(Codec, u32)]) -> SendTrack {
    let params = |(codec, variant): &(Codec, u32)| CodecParams {
        pt: Pt(1),
        codec: *codec,
        clock_rate: 0,
        rtx: None,
        variant: *variant,
    };
    let ssrc = 1000 + 2 * u32::try_from(sub).unwrap();
    SendTrack {
        sub: SubId(sub),
        kind,
        stream_id: format!("PA_x|TR_{sub}"),
        track_id: format!("TR_{sub}"),
        ssrc: Ssrc(ssrc),
        rtx_ssrc: (kind == MediaKind::Video).then_some(Ssrc(ssrc + 1)),
        cname: "PA_x".into(),
        codecs: codecs.iter().map(params).collect(),
    }
}

fn audio(sub: u64) -> SendTrack {
    track(sub, MediaKind::Audio, &[(Codec::Opus, 0)])
}

fn video(sub: u64) -> SendTrack {
    track(sub, MediaKind::Video, &[(Codec::Vp8, 0)])
}

/// The lines of one section.
fn section<'a>(text: &'a str, mid: &str) -> Vec<&'a str> {
    let wanted = format!("a=mid:{mid}");
    let sections = text.split("\r\nm=").skip(1);
    let found = sections.map(|s| s.lines().collect::<Vec<_>>()).find(|s| s.contains(&wanted.as_str()));
    found.expect("a section with this mid")
}

fn directions(text: &str) -> Vec<(&str, &str)> {
    let d = Description::parse(text).unwrap();
    d.media.iter().map(|m| (m.first("mid").unwrap(), Direction::of(m, &d).as_str())).collect()
}

fn version(text: &str) -> u64 {
    text.lines().find_map(|l| l.strip_prefix("o=- ")?.split(' ').nth(1)?.parse().ok()).unwrap()
}

fn sent(negotiated: &Negotiated) -> Vec<(u64, &str)> {
    negotiated.send.iter().map(|(sub, section)| (sub.0, section.mid.as_str())).collect()
}

fn map(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect()
}

#[test]
fn browsers_publish_simulcast_and_more() {
    for browser in ["chromium", "firefox"] {
        let mut n = negotiation(Role::ClientOffers);
        let first = n.answer(sdp(browser, "publish_simulcast")).unwrap();
        assert!(!first.ice_restarted && first.send.is_empty());
        assert!(first.sdp.contains("\r\na=ice-lite\r\n") && first.sdp.contains("a=group:BUNDLE 0 1 2\r\n"));
        assert_eq!(first.sdp.matches("a=setup:passive").count(), 3);
        assert_eq!(first.sdp.matches("a=end-of-candidates").count(), 1);
        let [microphone, camera] = first.remote_tracks.as_slice() else { panic!("two tracks") };
        assert_eq!((microphone.codecs[0], microphone.layers), (Codec::Opus, 1));
        assert_eq!((camera.codecs[0], camera.layers), (Codec::Vp8, 3));
        assert!(microphone.stream_id == camera.stream_id && microphone.track_id != camera.track_id);
        let lines = section(&first.sdp, "1");
        for line in ["a=recvonly", "a=rid:q recv", "a=rid:f recv", "a=simulcast:recv q;h;f", "a=rtcp-rsize"] {
            assert!(lines.contains(&line), "{browser}: {line}");
        }
        let video = &first.receive[1];
        assert_eq!(video.rids.iter().map(|r| r.as_str()).collect::<Vec<_>>(), ["q", "h", "f"]);
        assert!(video.codecs.iter().all(|c| c.rtx.is_some()));
        for extension in
            [Extension::Mid, Extension::Rid, Extension::RepairedRid, Extension::DependencyDescriptor]
        {
            assert!(video.extensions.id(extension).is_some(), "{browser}: {extension:?}");
        }
        assert!(video.extensions.allow_mixed);
        assert!(first.receive[0].extensions.id(Extension::AudioLevel).is_some());
        assert_eq!(first.receive[0].ssrcs.len(), 1);
        // Only Firefox announces the streams of simulcast.
        assert_eq!(video.ssrcs.len(), if browser == "firefox" { 3 } else { 0 });
        assert!(video.ssrcs.iter().all(|s| s.rtx.is_some()));

        let offer = sdp(browser, "publish_screen");
        let screen = Description::parse(offer).unwrap().media[3].first("msid").unwrap();
        let hint = PublishHint { codec: Some(Codec::Vp9), ..PublishHint::default() };
        n.set_publish_hint(screen.split(' ').nth(1).unwrap(), hint);
        let second = n.answer(offer).unwrap();
        assert_eq!(version(&second.sdp), version(&first.sdp) + 1);
        assert_eq!(second.remote_tracks[2].codecs, [Codec::Vp9]);
        assert_eq!(second.receive[2].ssrcs.len(), 1);
        assert!(second.receive[2].ssrcs[0].rtx.is_some());

        let offer = sdp(browser, "publish_ice_restart");
        assert!(n.restarts_ice(offer) && !n.restarts_ice(sdp(browser, "publish_screen")));
        n.set_local_ice(ice(1));
        let third = n.answer(offer).unwrap();
        assert!(third.ice_restarted && third.sdp.contains("a=ice-ufrag:relay1\r\n"));
        assert!(!third.sdp.contains("a=ice-ufrag:relay0"));

        let removed = n.answer(sdp(browser, "publish_removed")).unwrap();
        assert_eq!(directions(&removed.sdp)[3], ("3", "inactive"));
        assert_eq!((removed.receive.len(), removed.ice_restarted), (3, false));
        let stopped = n.answer(sdp(browser, "publish_stopped")).unwrap();
        assert!(stopped.sdp.contains("m=video 0 ") && !stopped.sdp.contains("BUNDLE 0 1 2 3"));
        let recycled = n.answer(sdp(browser, "publish_recycled")).unwrap();
        let mids: Vec<&str> = recycled.remote_tracks.iter().map(|t| t.mid.as_str()).collect();
        assert_eq!(mids, ["0", "1", "5", "4"]);
    }
}

#[test]
fn browsers_receive_on_the_sections_they_offer() {
    for browser in ["chromium", "firefox"] {
        let mut n = negotiation(Role::ClientOffers);
        let first = n.answer(sdp(browser, "v1_initial")).unwrap();
        assert!(directions(&first.sdp)[..6].iter().all(|(_, d)| *d == "inactive"));
        assert!(first.mid_to_track_id.is_empty() && !n.needs_negotiation());
        n.add_track(audio(1));
        n.add_track(video(2));
        n.add_track(track(3, MediaKind::Video, &[(Codec::Av1, 0), (Codec::Vp9, 0), (Codec::Vp8, 0)]));
        assert!(n.needs_negotiation());
        assert_eq!(n.unassigned(), Unassigned::default());

        let offer = sdp(browser, "v1_tracks");
        let second = n.answer(offer).unwrap();
        assert_eq!(sent(&second), [(1, "0"), (2, "3"), (3, "4")]);
        assert_eq!(second.mid_to_track_id, map(&[("0", "TR_1"), ("3", "TR_2"), ("4", "TR_3")]));
        assert_eq!(second.receive.len(), 1);
        let lines = section(&second.sdp, "3");
        for line in [
            "a=sendonly",
            "a=msid:PA_x|TR_2 TR_2",
            "a=ssrc-group:FID 1004 1005",
            "a=ssrc:1004 cname:PA_x",
            "a=ssrc:1005 msid:PA_x|TR_2 TR_2",
        ] {
            assert!(lines.contains(&line), "{browser}: {line}");
        }
        let section_of = |sub| &second.send.iter().find(|(s, _)| *s == SubId(sub)).unwrap().1;
        assert_eq!(section_of(2).rtx_ssrc, Some(Ssrc(1005)));
        assert_eq!(section_of(2).codecs.len(), 1);
        let codecs: Vec<Codec> = section_of(3).codecs.iter().map(|c| c.codec).collect();
        assert_eq!(codecs, [Codec::Av1, Codec::Vp9, Codec::Vp8]);
        assert!(section_of(3).extensions.id(Extension::Rid).is_none());
        assert!(!n.needs_negotiation());

        // A section that sends goes through inactive before another track has it.
        n.remove_track(SubId(2));
        for sub in [4, 5, 6] {
            n.add_track(video(sub));
        }
        assert_eq!(n.unassigned(), Unassigned { audios: 0, videos: 2 });
        let third = n.answer(offer).unwrap();
        assert_eq!(sent(&third), [(1, "0"), (3, "4"), (4, "5")]);
        assert!(section(&third.sdp, "3").contains(&"a=inactive"));
        assert_eq!(n.unassigned(), Unassigned { audios: 0, videos: 1 });
        let fourth = n.answer(offer).unwrap();
        assert_eq!(sent(&fourth), [(1, "0"), (5, "3"), (3, "4"), (4, "5")]);
        assert!(section(&fourth.sdp, "3").contains(&"a=msid:PA_x|TR_5 TR_5"));

        // Another section, and credentials that change.
        let last = n.answer(sdp(browser, "v1_ice_restart")).unwrap();
        assert!(last.ice_restarted && sent(&last).contains(&(6, "8")));
        assert!(!n.needs_negotiation());
    }
}

#[test]
fn a_track_that_the_client_cannot_decode_is_reported() {
    let mut n = negotiation(Role::ClientOffers);
    n.add_track(track(1, MediaKind::Video, &[(Codec::H264, 0x4201)]));
    n.add_track(video(2));
    assert_eq!(n.unassigned(), Unassigned { audios: 0, videos: 2 });
    let answer = n.answer(sdp("firefox", "v1_initial")).unwrap();
    assert_eq!((answer.unsupported.clone(), sent(&answer).len()), (vec![SubId(1)], 1));
    assert!(!n.needs_negotiation());
}

#[test]
fn the_native_sdk_offers_like_a_browser() {
    let mut n = negotiation(Role::ClientOffers);
    n.add_track(track(1, MediaKind::Audio, &[(Codec::Red, 0), (Codec::Opus, 0)]));
    let answer = n.answer(sdp("native", "v1_initial")).unwrap();
    assert_eq!(
        answer.send[0].1.codecs.iter().map(|c| c.codec).collect::<Vec<_>>(),
        [Codec::Red, Codec::Opus]
    );
    let data = answer.sdp.split("\r\nm=").last().unwrap();
    assert!(data.starts_with("application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"));
    assert!(data.contains("a=sctp-port:5000") && data.contains("a=max-message-size:65536"));
}

#[test]
fn browsers_answer_the_relays_offers() {
    for (browser, h264) in [("chromium", true), ("firefox", false)] {
        let mut n = negotiation(RELAY_OFFERS);
        assert!(n.needs_negotiation());
        let first = n.offer();
        assert!(first.contains("m=application 9 ") && first.contains("a=setup:actpass"));
        assert_eq!(n.accept_answer(sdp(browser, "sub_data")).unwrap().send, []);
        assert!(!n.needs_negotiation());

        n.add_track(audio(1));
        let all = [(Codec::Vp8, 0), (Codec::H264, 0x4201), (Codec::Vp9, 0), (Codec::Av1, 0)];
        n.add_track(track(2, MediaKind::Video, &all));
        n.add_track(track(4, MediaKind::Audio, &[(Codec::Opus, 0), (Codec::Red, 0)]));
        let second = n.offer();
        assert_eq!(version(&second), version(&first) + 1);
        let whole = [("1", "TR_1"), ("2", "TR_2"), ("3", "TR_4")];
        assert_eq!(n.mid_to_track_id(), map(&whole));
        let negotiated = n.accept_answer(sdp(browser, "sub_tracks")).unwrap();
        assert_eq!(negotiated.mid_to_track_id, map(&whole));
        assert_eq!(sent(&negotiated), [(1, "1"), (2, "2"), (4, "3")]);
        let codecs = &negotiated.send[1].1.codecs;
        assert_eq!(codecs.len(), if h264 { 4 } else { 3 });
        assert_eq!((codecs[0].codec, codecs[0].rtx), (Codec::Vp8, Some(Pt(97))));
        assert_eq!(negotiated.send[1].1.extensions.id(Extension::TransportCc), Some(3));

        n.remove_track(SubId(2));
        n.add_track(video(5));
        let third = n.offer();
        assert_eq!(directions(&third)[2], ("2", "inactive"));
        assert_eq!(
            sent(&n.accept_answer(sdp(browser, "sub_removed")).unwrap()),
            [(1, "1"), (4, "3"), (5, "4")]
        );
        n.add_track(track(6, MediaKind::Video, &[(Codec::H264, 0x4201)]));
        assert!(section(&n.offer(), "2").contains(&"a=msid:PA_x|TR_6 TR_6"));
        let reused = n.accept_answer(sdp(browser, "sub_reused")).unwrap();
        if h264 {
            assert_eq!(sent(&reused), [(1, "1"), (6, "2"), (4, "3"), (5, "4")]);
        } else {
            assert_eq!((reused.unsupported.clone(), sent(&reused).len()), (vec![SubId(6)], 3));
        }
        assert!(!n.needs_negotiation());

        n.set_local_ice(ice(1));
        assert!(n.needs_negotiation() && n.offer().contains("a=ice-ufrag:relay1\r\n"));
        assert!(n.accept_answer(sdp(browser, "sub_ice_restart")).unwrap().ice_restarted);
        assert!(!n.needs_negotiation());

        // The client stops a transceiver, which makes its section inactive; what is left goes on. Firefox has its
        // rejected section back as an audio section.
        n.add_track(audio(7));
        n.offer();
        let stopped = n.accept_answer(sdp(browser, "sub_client_stopped")).unwrap();
        let gone = if h264 { 6 } else { 5 };
        assert!(stopped.send.iter().all(|(sub, _)| sub.0 != gone) && stopped.unsupported.is_empty());
        assert!(sent(&stopped).contains(&(7, "5")));
        assert!(!n.needs_negotiation());
        n.add_track(audio(8));
        n.offer();
        assert!(sent(&n.accept_answer(sdp(browser, "sub_recycled")).unwrap()).contains(&(8, "6")));
    }
}

#[test]
fn what_is_refused_changes_nothing() {
    let good = sdp("chromium", "publish_simulcast");
    let fingerprint = good.lines().find(|l| l.starts_with("a=fingerprint")).unwrap();
    let cases = [
        (good.replace("a=group:BUNDLE 0 1 2", "a=group:BUNDLE 0 1"), SdpError::NoBundle),
        (good.replace("a=group:BUNDLE", "a=group:LS"), SdpError::NoBundle),
        (good.replace("a=rtcp-mux\r\n", ""), SdpError::NoRtcpMux { section: 0 }),
        (good.replace("a=mid:1", "a=mid:0"), SdpError::DuplicateMid { section: 1 }),
        (good.replace("a=mid:1", "a=mid:12345678901234567"), SdpError::Mid { section: 1 }),
        (good.replace("a=setup:actpass", "a=setup:passive"), SdpError::DtlsRole),
        (good.replace("a=setup:actpass", "a=setup:holdconn"), SdpError::DtlsRole),
        (good.replace(fingerprint, "a=fingerprint:sha-1 00:11"), SdpError::Fingerprint),
        (good.replace("a=ice-pwd:", "a=ice-pwd:%"), SdpError::IceCredentials),
        (good.replace("a=ice-ufrag:", "a=x:"), SdpError::IceCredentials),
        (good.replace("a=extmap:4 ", "a=extmap:3 "), SdpError::Conflict { section: 0 }),
        (good.split("m=").next().unwrap().to_owned(), SdpError::NoSections),
        (good.replace("m=audio 9", "m=video 9"), SdpError::SectionChanged { section: 0 }),
        (
            good.replace("0 1 2", "7 1 2").replace("a=mid:0", "a=mid:7"),
            SdpError::SectionChanged { section: 0 },
        ),
        (good.split("m=application").next().unwrap().to_owned(), SdpError::SectionChanged { section: 2 }),
        (good.replace("s=-", "s"), SdpError::Malformed { line: 3 }),
    ];
    let mut n = negotiation(Role::ClientOffers);
    n.add_track(audio(1));
    let before = n.answer(good).unwrap();
    for (text, error) in cases {
        assert_eq!(n.answer(&text), Err(error));
    }
    let after = n.answer(good).unwrap();
    assert_eq!(version(&after.sdp), version(&before.sdp) + 1);
    assert_eq!((after.receive, after.send, after.remote), (before.receive, before.send, before.remote));
    assert!(!after.ice_restarted);
}

#[test]
fn answers_must_fit_the_offer() {
    let answer = sdp("chromium", "sub_tracks");
    let mut n = negotiation(RELAY_OFFERS);
    assert_eq!(n.accept_answer(answer), Err(SdpError::Unexpected));
    assert_eq!(n.answer(answer), Err(SdpError::Unexpected));
    n.offer();
    assert_eq!(n.accept_answer(answer), Err(SdpError::SectionChanged { section: 1 }));
    for t in [audio(1), video(2), audio(4)] {
        n.add_track(t);
    }
    n.offer();
    let passive = answer.replace("a=setup:active", "a=setup:passive");
    assert_eq!(n.accept_answer(&passive), Err(SdpError::DtlsRole));
    assert_eq!(n.accept_answer(&answer.replace("a=setup:active\r\n", "")), Err(SdpError::DtlsRole));
    let swapped = answer.replace("a=mid:1", "a=mid:x").replace("BUNDLE 0 1", "BUNDLE 0 x");
    assert_eq!(n.accept_answer(&swapped), Err(SdpError::SectionChanged { section: 1 }));
    assert_eq!(n.accept_answer(answer).unwrap().send.len(), 3);
    assert_eq!(n.accept_answer(answer), Err(SdpError::Unexpected));
    assert_eq!(negotiation(Role::ClientOffers).offer(), "");
}

#[test]
fn a_track_removed_while_the_offer_is_under_way_is_not_sent() {
    let mut n = negotiation(RELAY_OFFERS);
    for t in [audio(1), video(2), audio(4)] {
        n.add_track(t);
    }
    n.offer();
    n.remove_track(SubId(2));
    n.add_track(video(3));
    let negotiated = n.accept_answer(sdp("chromium", "sub_tracks")).unwrap();
    assert_eq!(sent(&negotiated), [(1, "1"), (4, "3")]);
    assert_eq!(negotiated.mid_to_track_id, map(&[("1", "TR_1"), ("3", "TR_4")]));
    assert!(n.needs_negotiation());
    let next = n.offer();
    assert_eq!(directions(&next)[2..], [("2", "inactive"), ("3", "sendonly"), ("4", "sendonly")]);
}

#[test]
fn names_cannot_add_lines() {
    let mut n = negotiation(RELAY_OFFERS);
    let mut evil = video(1);
    evil.stream_id = "PA_x|cam\r\na=setup:passive".into();
    evil.track_id = "TR 1\n".into();
    evil.cname = "c\r\nm=audio 9 x y".into();
    n.add_track(evil);
    let offer = n.offer();
    assert_eq!(Description::parse(&offer).unwrap().media.len(), 2);
    assert!(!offer.lines().any(|l| l == "a=setup:passive"));
    assert!(offer.contains("a=msid:PA_x|cam__a_setup_passive TR_1_\r\n"));
}

#[test]
fn debug_output_has_no_description() {
    let mut n = negotiation(Role::ClientOffers);
    let negotiated = n.answer(sdp("chromium", "publish_simulcast")).unwrap();
    let text = format!("{negotiated:?}");
    assert!(!text.contains("relay0") && !text.contains("192.0.2.1") && !text.contains("ice-pwd"));
}

mod str0m_client {
    use std::time::Instant;

    use str0m::change::{SdpAnswer, SdpOffer};
    use str0m::media::{Direction, MediaKind as Kind, Simulcast, SimulcastLayer};
    use str0m::{Candidate, Rtc};

    use super::*;

    fn rtc() -> Rtc {
        let mut rtc = Rtc::builder().build(Instant::now());
        rtc.add_local_candidate(Candidate::host("192.0.2.9:5000".parse().unwrap(), "udp").unwrap());
        rtc
    }

    #[test]
    fn takes_answers() {
        let mut rtc = rtc();
        let mut n = negotiation(Role::ClientOffers);
        n.add_track(audio(1));
        let mut api = rtc.sdp_api();
        let rids = ["q", "h", "f"];
        let layers: Vec<SimulcastLayer> = rids.iter().map(|r| SimulcastLayer::new(r)).collect();
        let simulcast = Simulcast { send: layers, recv: vec![] };
        let ids = (Some("stream".to_owned()), Some("cid".to_owned()));
        api.add_media(Kind::Video, Direction::SendOnly, ids.0, ids.1, Some(simulcast));
        api.add_media(Kind::Audio, Direction::RecvOnly, None, None, None);
        api.add_channel("_reliable".to_owned());
        let (offer, pending) = api.apply().unwrap();
        let negotiated = n.answer(&offer.to_sdp_string()).unwrap();
        assert_eq!(negotiated.receive[0].rids.len(), 3);
        assert_eq!((negotiated.remote_tracks[0].track_id.as_str(), negotiated.send.len()), ("cid", 1));
        rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&negotiated.sdp).unwrap()).unwrap();
    }

    #[test]
    fn answers_offers() {
        let mut rtc = rtc();
        let mut n = negotiation(RELAY_OFFERS);
        n.add_track(audio(1));
        n.add_track(track(2, MediaKind::Video, &[(Codec::Vp8, 0), (Codec::H264, 0x4201)]));
        for round in 0..3 {
            // To `actpass` str0m answers `passive`, which this relay refuses; so its user has to make up its mind.
            let offer = n.offer().replace("a=setup:actpass", "a=setup:passive");
            let answer = rtc.sdp_api().accept_offer(SdpOffer::from_sdp_string(&offer).unwrap()).unwrap();
            let negotiated = n.accept_answer(&answer.to_sdp_string()).unwrap();
            assert_eq!(negotiated.unsupported, []);
            match round {
                0 => {
                    assert_eq!(sent(&negotiated), [(1, "1"), (2, "2")]);
                    n.remove_track(SubId(2));
                }
                1 => {
                    assert_eq!(sent(&negotiated), [(1, "1")]);
                    n.add_track(video(3));
                }
                _ => assert_eq!(sent(&negotiated), [(1, "1"), (3, "2")]),
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Op {
    Add(MediaKind),
    Remove(usize),
    Exchange,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        Just(Op::Add(MediaKind::Audio)),
        Just(Op::Add(MediaKind::Video)),
        (0_usize..8).prop_map(Op::Remove),
        Just(Op::Exchange),
    ]
}

/// The least that a client offers: `recvonly` sections and nothing else.
fn plain_offer(sections: &[MediaKind]) -> String {
    let mut out = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE".to_owned();
    for i in 0..sections.len() {
        out += &format!(" {i}");
    }
    let digest = vec!["CD"; 32].join(":");
    for (i, kind) in sections.iter().enumerate() {
        let (media, rtpmap) = match kind {
            MediaKind::Audio => ("audio", "opus/48000/2"),
            MediaKind::Video => ("video", "VP8/90000"),
        };
        out += &format!(
            "\r\nm={media} 9 UDP/TLS/RTP/SAVPF 96\r\na=mid:{i}\r\na=recvonly\r\na=rtcp-mux\r\na=rtpmap:96 {rtpmap}\
             \r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=setup:actpass\r\na=fingerprint:sha-256 {digest}"
        );
    }
    out + "\r\n"
}

/// Adds, removes and exchanges as told, then exchanges until nothing is left to settle. Every exchange gives what is sent
/// by it, and checks that no section changes from one track to another at once.
fn run(ops: &[Op], n: &mut Negotiation, mut exchange: impl FnMut(&mut Negotiation) -> Negotiated) {
    let mut wanted: Vec<SubId> = Vec::new();
    let mut last: HashMap<String, String> = HashMap::new();
    let mut next = 1;
    let mut step = |n: &mut Negotiation, wanted: &[SubId]| {
        let negotiated = exchange(n);
        for (mid, old) in &last {
            let new = negotiated.mid_to_track_id.get(mid);
            assert!(new.is_none_or(|new| new == old), "a section changed its track at once");
        }
        last.clone_from(&negotiated.mid_to_track_id);
        let subs: HashSet<SubId> = negotiated.send.iter().map(|(sub, _)| *sub).collect();
        let mids: HashSet<_> = negotiated.send.iter().map(|(_, s)| s.mid).collect();
        assert!(subs.iter().all(|sub| wanted.contains(sub)));
        assert_eq!((subs.len(), mids.len()), (negotiated.send.len(), negotiated.send.len()));
        subs
    };
    for op in ops {
        match op {
            Op::Add(kind) => {
                n.add_track(if *kind == MediaKind::Audio { audio(next) } else { video(next) });
                wanted.push(SubId(next));
                next += 1;
            }
            Op::Remove(at) if !wanted.is_empty() => n.remove_track(wanted.remove(at % wanted.len())),
            Op::Remove(_) => {}
            Op::Exchange => {
                step(n, &wanted);
            }
        }
    }
    for _ in 0..3 {
        if !n.needs_negotiation() {
            break;
        }
        step(n, &wanted);
    }
    assert!(!n.needs_negotiation());
    assert_eq!(step(n, &wanted), wanted.into_iter().collect());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) })]

    #[test]
    fn tracks_find_sections_where_the_client_offers(ops in prop::collection::vec(op(), 0..24)) {
        let mut sections = vec![MediaKind::Audio, MediaKind::Video];
        run(&ops, &mut negotiation(Role::ClientOffers), |n| {
            let missing = n.unassigned();
            sections.extend((0..missing.audios).map(|_| MediaKind::Audio));
            sections.extend((0..missing.videos).map(|_| MediaKind::Video));
            n.answer(&plain_offer(&sections)).unwrap()
        });
    }

    #[test]
    fn tracks_find_sections_where_the_relay_offers(ops in prop::collection::vec(op(), 0..24)) {
        // An answering negotiation plays the client; only its DTLS role must be turned round.
        let mut client = negotiation(Role::ClientOffers);
        run(&ops, &mut negotiation(RELAY_OFFERS), |n| {
            let seen = client.answer(&n.offer()).unwrap();
            let negotiated = n.accept_answer(&seen.sdp.replace("setup:passive", "setup:active")).unwrap();
            let sees: HashMap<_, _> =
                seen.remote_tracks.iter().map(|t| (t.mid.as_str().to_owned(), t.track_id.clone())).collect();
            assert_eq!(sees, negotiated.mid_to_track_id);
            negotiated
        });
    }

    #[test]
    fn no_text_panics(text in "(?s).{0,400}", lines in prop::collection::vec("[vmac]=[ -~]{0,60}", 0..40)) {
        feed(&text);
        feed(&format!("v=0\r\n{}", lines.join("\r\n")));
    }

    #[test]
    fn no_mutation_of_a_real_description_panics(
        which in 0..FIXTURES.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..5, any::<u8>()), 1..12),
    ) {
        let mut lines: Vec<String> = FIXTURES[which].1.lines().map(str::to_owned).collect();
        for (at, edit, byte) in edits {
            if lines.is_empty() {
                break;
            }
            let at = at.index(lines.len());
            match edit {
                0 => drop(lines.remove(at)),
                1 => lines.insert(at, lines[at].clone()),
                2 => {
                    let other = usize::from(byte) % lines.len();
                    lines.swap(at, other);
                }
                3 => {
                    let cut = lines[at].chars().take(usize::from(byte)).collect();
                    lines[at] = cut;
                }
                _ => {
                    let place = usize::from(byte) % (lines[at].len() + 1);
                    if lines[at].is_char_boundary(place) {
                        lines[at].insert(place, char::from(byte));
                    }
                }
            }
        }
        feed(&lines.join("\r\n"));
    }
}

/// Gives a text to both ends in a state where tracks are there. What is accepted must be answered by a description that
/// this parser takes, with as many sections.
fn feed(text: &str) {
    let mut n = negotiation(Role::ClientOffers);
    n.add_track(audio(1));
    n.add_track(track(2, MediaKind::Video, &[(Codec::Vp8, 0), (Codec::H264, 0x4201)]));
    if let Ok(negotiated) = n.answer(text) {
        let answer = Description::parse(&negotiated.sdp).unwrap();
        assert_eq!(answer.media.len(), Description::parse(text).unwrap().media.len());
        assert_eq!(negotiated.receive.len(), negotiated.remote_tracks.len());
        n.answer(text).unwrap();
    }
    let mut n = negotiation(RELAY_OFFERS);
    for t in [audio(1), video(2), audio(4)] {
        n.add_track(t);
    }
    n.offer();
    if n.accept_answer(text).is_ok() {
        Description::parse(&n.offer()).unwrap();
    }
}
