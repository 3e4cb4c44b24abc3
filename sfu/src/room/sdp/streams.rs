//! Which streams a section carries: `a=msid`, `a=ssrc`, `a=ssrc-group`, `a=rid`, `a=simulcast`.

use sfu_media::command::SsrcPair;
use sfu_media::ids::{Rid, Ssrc};

use super::SendTrack;
use super::text::Media;

/// More simulcast layers than this are not taken; clients send three at most.
const MAX_LAYERS: usize = 4;
/// More `a=ssrc` streams of one section than this are not read: three layers with retransmissions are six.
const MAX_SSRCS: usize = 32;

/// What a client's section says of its streams.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Streams {
    /// Both parts of `a=msid` ([RFC 8830](https://www.rfc-editor.org/rfc/rfc8830)); empty when missing.
    pub(super) stream_id: String,
    pub(super) track_id: String,
    /// Announced streams, lowest layer first.
    pub(super) ssrcs: Vec<SsrcPair>,
    /// Simulcast streams as offered.
    pub(super) offered_rids: Vec<Rid>,
    /// The same, lowest layer first.
    pub(super) rids: Vec<Rid>,
    /// Number of simulcast streams, else 1.
    pub(super) layers: usize,
}

impl Streams {
    /// Reads a section that the client sends on. Without the RID extension simulcast streams could not be told apart, so
    /// they are not taken then.
    pub(super) fn of(media: &Media<'_>, rid_extension: bool) -> Self {
        let (stream_id, track_id) = msid(media);
        let offered_rids = if rid_extension { simulcast(media) } else { Vec::new() };
        let rids = low_to_high(&offered_rids);
        let (mut ssrcs, is_ordered) = ssrcs(media);
        let mut layers = rids.len().max(1);
        if is_ordered {
            layers = layers.max(ssrcs.len());
        } else if rids.is_empty() {
            // Without a group that says what they are, more than one stream has no meaning.
            ssrcs.truncate(1);
        }
        if !rids.is_empty() && !is_ordered {
            // Firefox announces the streams in the order of its rids. If the numbers differ nothing tells which is which.
            ssrcs = if ssrcs.len() == offered_rids.len() {
                let at = |rid| offered_rids.iter().position(|r| r == rid).and_then(|i| ssrcs.get(i));
                rids.iter().filter_map(at).copied().collect()
            } else {
                Vec::new()
            };
        }
        Self { stream_id, track_id, ssrcs, offered_rids, rids, layers }
    }

    /// The answer to simulcast ([RFC 8853](https://www.rfc-editor.org/rfc/rfc8853)).
    pub(super) fn write_answer(&self, out: &mut String) {
        if self.offered_rids.is_empty() {
            return;
        }
        for rid in &self.offered_rids {
            line!(out, "a=rid:{rid} recv");
        }
        let list: Vec<&str> = self.offered_rids.iter().map(Rid::as_str).collect();
        line!(out, "a=simulcast:recv {}", list.join(";"));
    }
}

/// `a=msid` and `a=ssrc` of a track that the relay sends. Its names are tokens already.
pub(super) fn write_track(out: &mut String, track: &SendTrack, with_rtx: bool) {
    let SendTrack { stream_id: stream, track_id: id, cname, .. } = track;
    line!(out, "a=msid:{stream} {id}");
    let rtx = track.rtx_ssrc.filter(|_| with_rtx);
    if let Some(rtx) = rtx {
        line!(out, "a=ssrc-group:FID {} {rtx}", track.ssrc);
    }
    for ssrc in [Some(track.ssrc), rtx].into_iter().flatten() {
        line!(out, "a=ssrc:{ssrc} cname:{cname}");
        line!(out, "a=ssrc:{ssrc} msid:{stream} {id}");
    }
}

fn msid(media: &Media<'_>) -> (String, String) {
    let from_ssrc = || media.all("ssrc").find_map(|v| v.split_once(' ')?.1.strip_prefix("msid:"));
    let value = media.first("msid").or_else(from_ssrc).unwrap_or_default();
    let mut words = value.split_ascii_whitespace();
    let stream = words.next().filter(|s| *s != "-").unwrap_or_default();
    (stream.to_owned(), words.next().unwrap_or_default().to_owned())
}

/// The rids of `a=simulcast:send`, each stream's first alternative, in the order written.
fn simulcast(media: &Media<'_>) -> Vec<Rid> {
    let Some(value) = media.first("simulcast") else { return Vec::new() };
    let mut words = value.split_ascii_whitespace();
    let mut list = "";
    while let (Some(direction), Some(streams)) = (words.next(), words.next()) {
        if direction == "send" {
            list = streams;
        }
    }
    let declared: Vec<&str> = media
        .all("rid")
        .filter_map(|v| {
            let mut words = v.split_ascii_whitespace();
            words.next().filter(|_| words.next() == Some("send"))
        })
        .take(MAX_SSRCS)
        .collect();
    let mut rids: Vec<Rid> = Vec::new();
    for stream in list.split(';').take(MAX_LAYERS) {
        let first = stream.split(',').next().unwrap_or_default();
        let name = first.strip_prefix('~').unwrap_or(first);
        if let Some(rid) = Rid::new(name).filter(|r| declared.contains(&r.as_str()) && !rids.contains(r)) {
            rids.push(rid);
        }
    }
    rids
}

/// LiveKit names its layers q, h and f (quarter, half, full), whatever their order; of other names the order counts.
fn low_to_high(offered: &[Rid]) -> Vec<Rid> {
    let rank = |rid: &Rid| ["q", "h", "f"].iter().position(|known| *known == rid.as_str());
    let mut rids = offered.to_vec();
    if rids.iter().all(|rid| rank(rid).is_some()) {
        rids.sort_by_key(rank);
    }
    rids
}

/// The announced primary streams, and whether a simulcast group says their order
/// ([RFC 5576](https://www.rfc-editor.org/rfc/rfc5576)).
fn ssrcs(media: &Media<'_>) -> (Vec<SsrcPair>, bool) {
    let mut primaries: Vec<Ssrc> = Vec::new();
    for value in media.all("ssrc") {
        let number = value.split(' ').next().and_then(|n| n.parse().ok()).map(Ssrc);
        if let Some(ssrc) = number.filter(|s| !primaries.contains(s))
            && primaries.len() < MAX_SSRCS
        {
            primaries.push(ssrc);
        }
    }
    let mut rtx: Vec<(Ssrc, Ssrc)> = Vec::new();
    let mut layers: Vec<Ssrc> = Vec::new();
    for value in media.all("ssrc-group").take(MAX_SSRCS) {
        let mut words = value.split_ascii_whitespace();
        let semantics = words.next().unwrap_or_default();
        let members: Vec<Ssrc> = words.filter_map(|w| w.parse().ok()).map(Ssrc).take(MAX_SSRCS).collect();
        match (semantics, members.as_slice()) {
            ("SIM", members) if layers.is_empty() => layers.extend(members.iter().take(MAX_LAYERS)),
            ("FID", [primary, repair]) => {
                rtx.push((*primary, *repair));
                primaries.retain(|s| s != repair);
            }
            // Forward error correction is not answered; its streams will not come.
            ("FEC-FR" | "FEC", [_, repair]) => primaries.retain(|s| s != repair),
            _ => {}
        }
    }
    let is_ordered = !layers.is_empty();
    let list = if is_ordered { layers } else { primaries };
    let pair = |primary: Ssrc| SsrcPair { primary, rtx: rtx.iter().find(|r| r.0 == primary).map(|r| r.1) };
    (list.into_iter().map(pair).collect(), is_ordered)
}

#[cfg(test)]
mod tests {
    use super::super::text::Description;
    use super::*;

    fn read(lines: &str) -> Streams {
        let text = format!("v=0\nm=video 9 UDP/TLS/RTP/SAVPF 96\n{lines}");
        Streams::of(&Description::parse(&text).unwrap().media[0], true)
    }

    fn names(rids: &[Rid]) -> Vec<&str> {
        rids.iter().map(Rid::as_str).collect()
    }

    #[test]
    fn livekit_rids_are_sorted_others_are_not() {
        let rids = |names: &[&str]| -> String {
            names.iter().map(|n| format!("a=rid:{n} send\n")).collect::<String>()
        };
        let s = read(&(rids(&["f", "h", "q"]) + "a=simulcast:send f;h;q\n"));
        assert_eq!((names(&s.rids), names(&s.offered_rids)), (vec!["q", "h", "f"], vec!["f", "h", "q"]));
        let s = read(&(rids(&["hi", "lo"]) + "a=simulcast:send hi;~lo recv x\n"));
        assert_eq!(names(&s.rids), ["hi", "lo"]);
        let s = read(&(rids(&["a", "b", "c"]) + "a=simulcast: recv a send b,c;d;b\n"));
        assert_eq!(names(&s.rids), ["b"]);
        assert!(read("a=simulcast:send q;h\n").rids.is_empty());
    }

    #[test]
    fn announced_streams_follow_the_rids_only_when_they_match() {
        let groups = "a=ssrc:1 cname:x\na=ssrc:2 cname:x\na=ssrc:3 cname:x\na=ssrc-group:FID 1 2\n";
        let rids = "a=rid:f send\na=rid:q send\na=simulcast:send f;q\n";
        let pair = |primary, rtx: Option<u32>| SsrcPair { primary: Ssrc(primary), rtx: rtx.map(Ssrc) };
        let s = read(&format!("{groups}{rids}"));
        assert_eq!(s.ssrcs, [pair(3, None), pair(1, Some(2))]);
        let s = read(&format!("{groups}a=rid:q send\na=simulcast:send q\n"));
        assert!(s.ssrcs.is_empty());
        let s = read(&format!("{groups}a=ssrc-group:SIM 3 1\n"));
        assert_eq!((s.ssrcs, s.layers), (vec![pair(3, None), pair(1, Some(2))], 2));
    }

    #[test]
    fn msid_in_each_form() {
        let ids = |lines| {
            let s = read(lines);
            (s.stream_id, s.track_id)
        };
        let two = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(ids("a=msid:- t\n"), two("", "t"));
        assert_eq!(ids("a=msid:{s} {t}\n"), two("{s}", "{t}"));
        assert_eq!(ids("a=ssrc:1 cname:c\na=ssrc:1 msid:s t\n"), two("s", "t"));
        assert_eq!(ids("a=msid:s\n"), two("s", ""));
        assert_eq!(ids(""), two("", ""));
    }
}
