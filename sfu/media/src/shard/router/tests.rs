use super::*;
use crate::command::{Codec, MediaKind, SsrcPair};
use crate::ids::Rid;
use crate::sim::clock;

const VP8: Pt = Pt(96);
const RTX: Pt = Pt(97);

fn mid(text: &str) -> Mid {
    Mid::new(text).unwrap()
}

fn rid(text: &str) -> Rid {
    Rid::new(text).unwrap()
}

fn section(name: &str, ssrcs: &[(u32, u32)], rids: &[&str]) -> ReceiveSection {
    let mut extensions = ExtensionMap::default();
    extensions.set(Extension::Mid, 4);
    ReceiveSection {
        mid: mid(name),
        kind: MediaKind::Video,
        codecs: vec![CodecParams {
            pt: VP8,
            codec: Codec::Vp8,
            clock_rate: 90_000,
            rtx: Some(RTX),
            variant: 0,
        }],
        extensions,
        ssrcs: ssrcs.iter().map(|(p, r)| SsrcPair { primary: Ssrc(*p), rtx: Some(Ssrc(*r)) }).collect(),
        rids: rids.iter().map(|r| rid(r)).collect(),
    }
}

fn router(sections: Vec<ReceiveSection>) -> Router {
    let mut router = Router::default();
    assert_eq!(router.set_sections(sections, |_| None, clock::epoch()), []);
    router
}

fn names<'a>(m: &str, r: Option<&str>, repaired: Option<&str>) -> ExtensionValues<'a> {
    ExtensionValues {
        mid: Some(mid(m)),
        rid: r.map(rid),
        repaired_rid: repaired.map(rid),
        ..ExtensionValues::default()
    }
}

fn to(section: usize, layer: u8, rtx: bool) -> Result<Routed, DropReason> {
    Ok(Routed { route: Route { section, layer, rtx }, replaced: false })
}

#[test]
fn announced_streams_need_no_names() {
    let t = clock::epoch();
    let mut router = router(vec![section("a", &[(1, 2), (3, 4)], &[]), section("b", &[(5, 6)], &[])]);
    let none = ExtensionValues::default();
    assert_eq!(router.route(Ssrc(1), VP8, &none, t), to(0, 0, false));
    assert_eq!(router.route(Ssrc(4), RTX, &none, t), to(0, 1, true));
    assert_eq!(router.route(Ssrc(5), VP8, &none, t), to(1, 0, false));
    assert_eq!(router.route(Ssrc(5), Pt(8), &none, t), Err(DropReason::UnknownPayloadType));
    assert_eq!(router.route(Ssrc(5), RTX, &none, t), Err(DropReason::UnknownPayloadType));
    assert_eq!(router.route(Ssrc(9), VP8, &none, t), Err(DropReason::UnknownSsrc));
    // A third stream in a section whose two streams are known has no place.
    assert_eq!(router.route(Ssrc(9), VP8, &names("a", None, None), t), Err(DropReason::UnknownSsrc));
}

#[test]
fn names_bind_once_and_for_all() {
    let t = clock::epoch();
    let mut router = router(vec![section("a", &[], &["q", "h"]), section("b", &[], &[])]);
    let none = ExtensionValues::default();
    assert_eq!(router.route(Ssrc(1), VP8, &names("a", Some("h"), None), t), to(0, 1, false));
    assert_eq!(router.route(Ssrc(2), RTX, &names("a", None, Some("h")), t), to(0, 1, true));
    assert_eq!(router.route(Ssrc(3), VP8, &names("b", None, None), t), to(1, 0, false));
    assert_eq!(router.route(Ssrc(4), RTX, &names("b", None, None), t), to(1, 0, true));
    for (ssrc, pt, want) in [(1, VP8, to(0, 1, false)), (2, RTX, to(0, 1, true)), (4, RTX, to(1, 0, true))] {
        assert_eq!(router.route(Ssrc(ssrc), pt, &none, t), want, "{ssrc}");
    }
    for names in [names("a", None, None), names("a", Some("x"), None), names("c", None, None)] {
        assert_eq!(router.route(Ssrc(9), VP8, &names, t), Err(DropReason::UnknownSsrc));
    }
    assert_eq!(
        router.route(Ssrc(9), RTX, &names("a", Some("q"), None), t),
        Err(DropReason::UnknownSsrc),
        "retransmissions are named by the repaired rid"
    );
    assert_eq!(router.route(Ssrc(9), Pt(8), &names("b", None, None), t), Err(DropReason::UnknownPayloadType));
}

#[test]
fn another_ssrc_takes_over_a_silent_stream_only() {
    let t = clock::epoch();
    let mut router = router(vec![section("b", &[], &[])]);
    let b = names("b", None, None);
    assert_eq!(router.route(Ssrc(1), VP8, &b, t), to(0, 0, false));
    assert_eq!(router.route(Ssrc(2), VP8, &b, t + SILENT / 2), Err(DropReason::UnknownSsrc));
    let route = Route { section: 0, layer: 0, rtx: false };
    assert_eq!(router.route(Ssrc(2), VP8, &b, t + SILENT), Ok(Routed { route, replaced: true }));
    assert_eq!(router.ssrc_at(route), Some(Ssrc(2)));
    assert_eq!(router.bound(Ssrc(1)), None);
}

#[test]
fn a_new_description_keeps_what_did_not_change() {
    let t = clock::epoch();
    let mut router =
        router(vec![section("a", &[], &["q", "h"]), section("b", &[], &[]), section("c", &[(7, 8)], &[])]);
    router.route(Ssrc(1), VP8, &names("a", Some("h"), None), t).unwrap();
    router.route(Ssrc(2), VP8, &names("b", None, None), t).unwrap();
    // "b" gets another codec, "c" goes, "d" comes first.
    let mut b = section("b", &[], &[]);
    b.codecs[0].codec = Codec::H264;
    let changes = router.set_sections(
        vec![section("d", &[(9, 10)], &[]), section("a", &[], &["q", "h"]), b],
        |_| None,
        t,
    );
    assert_eq!(changes, [SectionChange { mid: mid("b") }, SectionChange { mid: mid("c") }]);
    assert_eq!(router.bound(Ssrc(1)), Some(Route { section: 1, layer: 1, rtx: false }));
    assert_eq!(
        router.bound(Ssrc(2)),
        Some(Route { section: 2, layer: 0, rtx: false }),
        "the name still holds"
    );
    assert_eq!(router.bound(Ssrc(7)), None);
    assert_eq!(router.bound(Ssrc(9)), Some(Route { section: 0, layer: 0, rtx: false }));
}

#[test]
fn bindings_are_bounded() {
    let t = clock::epoch();
    let sections = (0..MAX_ROUTES + 10).map(|i| section(&format!("m{i}"), &[], &[])).collect();
    let mut router = router(sections);
    let results: Vec<_> = (0..MAX_ROUTES + 10)
        .map(|i| router.route(Ssrc(i as u32), VP8, &names(&format!("m{i}"), None, None), t))
        .collect();
    assert!(results[..MAX_ROUTES].iter().all(Result::is_ok));
    assert!(results[MAX_ROUTES..].iter().all(|r| *r == Err(DropReason::PeerLimit)));
}
