//! Payload types: what a section offers, what of it the relay takes, and how that is written.

use std::fmt::Write as _;

use sfu_media::command::{Codec, CodecParams, MediaKind};
use sfu_media::ids::Pt;

use super::text::Media;
use super::{CodecPolicy, PublishHint};

/// RTCP feedback of one payload type ([RFC 4585 section 4.2](https://www.rfc-editor.org/rfc/rfc4585#section-4.2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Feedback {
    /// `nack`
    pub(super) nack: bool,
    /// `nack pli`
    pub(super) pli: bool,
    /// `ccm fir`
    pub(super) fir: bool,
    /// `transport-cc`
    pub(super) transport_cc: bool,
    /// `goog-remb`
    pub(super) remb: bool,
}

impl Feedback {
    const AUDIO: Feedback = Feedback { nack: false, pli: false, fir: false, transport_cc: true, remb: false };
    const VIDEO: Feedback = Feedback { nack: true, pli: true, fir: true, transport_cc: true, remb: false };

    fn add(&mut self, value: &str) {
        match value.trim() {
            "nack" => self.nack = true,
            "nack pli" => self.pli = true,
            "ccm fir" => self.fir = true,
            "transport-cc" => self.transport_cc = true,
            "goog-remb" => self.remb = true,
            _ => {}
        }
    }

    /// Both sides' estimators at once would only cost: the transport-wide one is better.
    fn settled(self) -> Self {
        Self { remb: self.remb && !self.transport_cc, ..self }
    }
}

/// Format parameters that matter to the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// RFC 7587
    Opus,
    /// RFC 2198: the payload type inside.
    Red { opus: Pt },
    /// No parameters.
    Vp8,
    /// RFC 9628; `written` when the client wrote it, as Firefox does not.
    Vp9 { profile: u8, written: bool },
    /// AV1 RTP specification section 7.2; the parameters as written.
    Av1 { profile: u8, level_idx: Option<u8>, tier: Option<u8> },
    /// RFC 6184
    H264 { profile_level_id: u32, packetization_mode: u8, asymmetry: bool },
}

/// One payload type with what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PayloadType {
    /// As the media core has it.
    pub(super) params: CodecParams,
    /// Its format parameters.
    pub(super) format: Format,
    /// Its feedback.
    pub(super) feedback: Feedback,
}

/// One row per payload type while the lines of a section are read.
#[derive(Clone, Copy, Default)]
struct Row<'a> {
    listed: bool,
    rtpmap: Option<&'a str>,
    fmtp: Option<&'a str>,
    feedback: Feedback,
}

/// The payload types of a section that the relay knows and the policy allows, in the order of the `m=` line.
pub(super) fn offered(media: &Media<'_>, kind: MediaKind, policy: &CodecPolicy) -> Vec<PayloadType> {
    let mut rows = [Row::default(); 128];
    let mut order = Vec::new();
    for format in &media.formats {
        if let Some(pt) = parse_pt(format)
            && let Some(row) = rows.get_mut(usize::from(pt))
            && !row.listed
        {
            row.listed = true;
            order.push(pt);
        }
    }
    let mut every = Feedback::default();
    for attribute in media.attributes() {
        let Some((pt, value)) = attribute.value.split_once(' ') else { continue };
        if attribute.name == "rtcp-fb" && pt == "*" {
            every.add(value);
        }
        let Some(row) = parse_pt(pt).and_then(|pt| rows.get_mut(usize::from(pt))) else { continue };
        match attribute.name {
            "rtpmap" => row.rtpmap = row.rtpmap.or(Some(value)),
            "fmtp" => row.fmtp = row.fmtp.or(Some(value)),
            "rtcp-fb" => row.feedback.add(value),
            _ => {}
        }
    }
    let row = |pt: u8| rows.get(usize::from(pt)).copied().unwrap_or_default();
    let mut found: Vec<PayloadType> = order
        .iter()
        .filter_map(|&pt| {
            let mut row = row(pt);
            row.feedback = union(row.feedback, every);
            payload_type(pt, kind, &row)
        })
        .filter(|p| policy.allows(p.params.codec))
        .collect();
    for &pt in &order {
        let row = row(pt);
        if row.rtpmap.and_then(|r| encoding(r)).is_some_and(|(name, _, _)| name.eq_ignore_ascii_case("rtx"))
            && let Some(apt) = row.fmtp.and_then(|f| parameter(f, "apt")).and_then(parse_pt)
            && let Some(primary) = found.iter_mut().find(|p| p.params.pt == Pt(apt) && p.params.rtx.is_none())
            && kind == MediaKind::Video
        {
            primary.params.rtx = Some(Pt(pt));
        }
    }
    drop_orphaned_red(&mut found);
    found
}

/// What the client may send of what it offers.
pub(super) fn for_receiving(mut offered: Vec<PayloadType>, hint: PublishHint) -> Vec<PayloadType> {
    let Some(codec) = hint.codec.filter(|c| offered.iter().any(|p| p.params.codec == *c)) else {
        return offered;
    };
    // Not every client keeps to the order of the answer (Firefox on Linux and Android), so of video only one is left.
    // RED needs the Opus beside it.
    if matches!(codec, Codec::Opus | Codec::Red) {
        offered.sort_by_key(|p| p.params.codec != codec);
    } else {
        offered.retain(|p| p.params.codec == codec);
    }
    offered
}

/// What a track may be sent in, of what the client takes: the publisher's codecs in the publisher's order, each once.
pub(super) fn for_sending(offered: &[PayloadType], publisher: &[CodecParams]) -> Vec<PayloadType> {
    let mut chosen: Vec<PayloadType> = Vec::new();
    for want in publisher {
        let same = |p: &&PayloadType| same_codec(&p.params, want);
        if !chosen.iter().any(|p| same(&p))
            && let Some(found) = offered.iter().find(same)
        {
            chosen.push(*found);
        }
    }
    // The publisher's RED has Opus inside, so here it needs its Opus too.
    let needed = chosen.iter().find_map(|p| match p.format {
        Format::Red { opus } if !chosen.iter().any(|c| c.params.pt == opus) => Some(opus),
        _ => None,
    });
    chosen.extend(needed.and_then(|opus| offered.iter().find(|p| p.params.pt == opus)).copied());
    chosen
}

fn same_codec(a: &CodecParams, b: &CodecParams) -> bool {
    a.codec == b.codec && a.variant == b.variant
}

fn union(a: Feedback, b: Feedback) -> Feedback {
    Feedback {
        nack: a.nack || b.nack,
        pli: a.pli || b.pli,
        fir: a.fir || b.fir,
        transport_cc: a.transport_cc || b.transport_cc,
        remb: a.remb || b.remb,
    }
}

fn drop_orphaned_red(found: &mut Vec<PayloadType>) {
    let opus: Vec<Pt> = found.iter().filter(|p| p.format == Format::Opus).map(|p| p.params.pt).collect();
    found.retain(|p| !matches!(p.format, Format::Red { opus: inside } if !opus.contains(&inside)));
}

fn parse_pt(text: &str) -> Option<u8> {
    text.parse().ok().filter(|pt| *pt < 128)
}

/// `name/clock[/channels]`
fn encoding(rtpmap: &str) -> Option<(&str, u32, &str)> {
    let mut parts = rtpmap.trim().split('/');
    Some((parts.next()?, parts.next()?.parse().ok()?, parts.next().unwrap_or("1")))
}

/// The value of one of the `name=value` pairs of `a=fmtp`.
fn parameter<'a>(fmtp: &'a str, name: &str) -> Option<&'a str> {
    fmtp.split(';').find_map(|pair| {
        let (have, value) = pair.split_once('=')?;
        have.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn payload_type(pt: u8, kind: MediaKind, row: &Row<'_>) -> Option<PayloadType> {
    let (name, clock_rate, channels) = encoding(row.rtpmap?)?;
    let fmtp = row.fmtp.unwrap_or_default();
    let number = |name, default: u8| match parameter(fmtp, name) {
        Some(text) => text.parse().ok(),
        None => Some(default),
    };
    let (codec, variant, format) = match (kind, name.to_ascii_lowercase().as_str(), clock_rate) {
        (MediaKind::Audio, "opus", 48_000) if channels == "2" => (Codec::Opus, 0, Format::Opus),
        (MediaKind::Audio, "red", 48_000) => {
            let opus = Pt(parse_pt(fmtp.split('/').next()?.trim())?);
            (Codec::Red, 0, Format::Red { opus })
        }
        (MediaKind::Video, "vp8", 90_000) => (Codec::Vp8, 0, Format::Vp8),
        (MediaKind::Video, "vp9", 90_000) => {
            let profile = number("profile-id", 0).filter(|p| *p <= 3)?;
            let written = parameter(fmtp, "profile-id").is_some();
            (Codec::Vp9, u32::from(profile), Format::Vp9 { profile, written })
        }
        (MediaKind::Video, "av1", 90_000) => {
            let profile = number("profile", 0).filter(|p| *p <= 2)?;
            let optional = |name| parameter(fmtp, name).and_then(|t| t.parse().ok());
            let format = Format::Av1 { profile, level_idx: optional("level-idx"), tier: optional("tier") };
            (Codec::Av1, u32::from(profile), format)
        }
        (MediaKind::Video, "h264", 90_000) => {
            // Without it RFC 6184 section 8.1 means baseline at level 1.
            let text = parameter(fmtp, "profile-level-id").unwrap_or("42000a");
            let profile_level_id = u32::from_str_radix(text, 16).ok().filter(|_| text.len() == 6)?;
            let profile_idc = profile_level_id >> 16;
            let packetization_mode = number("packetization-mode", 0).filter(|m| *m <= 1)?;
            // Baseline, main and high.
            if !matches!(profile_idc, 66 | 77 | 100) {
                return None;
            }
            let asymmetry = parameter(fmtp, "level-asymmetry-allowed") == Some("1");
            let variant = profile_idc << 8 | u32::from(packetization_mode);
            (Codec::H264, variant, Format::H264 { profile_level_id, packetization_mode, asymmetry })
        }
        _ => return None,
    };
    let params = CodecParams { pt: Pt(pt), codec, clock_rate, rtx: None, variant };
    Some(PayloadType { params, format, feedback: row.feedback })
}

/// The payload types of an `m=` line.
pub(super) fn format_list(payload_types: &[PayloadType]) -> String {
    let mut out = String::new();
    for p in payload_types {
        for pt in [Some(p.params.pt), p.params.rtx].into_iter().flatten() {
            let _ = write!(out, " {pt}");
        }
    }
    out
}

/// `a=rtpmap`, `a=rtcp-fb` and `a=fmtp` of payload types.
pub(super) fn write(out: &mut String, payload_types: &[PayloadType], hint: PublishHint) {
    for p in payload_types {
        let pt = p.params.pt;
        let name = match p.params.codec {
            Codec::Opus => "opus/48000/2",
            Codec::Red => "red/48000/2",
            Codec::Vp8 => "VP8/90000",
            Codec::Vp9 => "VP9/90000",
            Codec::Av1 => "AV1/90000",
            Codec::H264 => "H264/90000",
        };
        line!(out, "a=rtpmap:{pt} {name}");
        let feedback = p.feedback.settled();
        for (on, text) in [
            (feedback.remb, "goog-remb"),
            (feedback.transport_cc, "transport-cc"),
            (feedback.fir, "ccm fir"),
            (feedback.nack, "nack"),
            (feedback.pli, "nack pli"),
        ] {
            if on {
                line!(out, "a=rtcp-fb:{pt} {text}");
            }
        }
        if let Some(fmtp) = fmtp(&p.format, hint) {
            line!(out, "a=fmtp:{pt} {fmtp}");
        }
        if let Some(rtx) = p.params.rtx {
            line!(out, "a=rtpmap:{rtx} rtx/{}", p.params.clock_rate);
            line!(out, "a=fmtp:{rtx} apt={pt}");
        }
    }
}

fn fmtp(format: &Format, hint: PublishHint) -> Option<String> {
    Some(match *format {
        Format::Opus => {
            let dtx = if hint.dtx { ";usedtx=1" } else { "" };
            let stereo = if hint.stereo { ";stereo=1;maxaveragebitrate=510000" } else { "" };
            format!("minptime=10;useinbandfec=1{dtx}{stereo}")
        }
        Format::Red { opus } => format!("{opus}/{opus}"),
        Format::Vp8 | Format::Vp9 { written: false, .. } => return None,
        Format::Vp9 { profile, .. } => format!("profile-id={profile}"),
        Format::Av1 { profile, level_idx: Some(level_idx), tier: Some(tier) } => {
            format!("level-idx={level_idx};profile={profile};tier={tier}")
        }
        Format::Av1 { profile: 0, .. } => return None,
        Format::Av1 { profile, .. } => format!("profile={profile}"),
        Format::H264 { profile_level_id, packetization_mode, asymmetry } => format!(
            "level-asymmetry-allowed={};packetization-mode={packetization_mode};profile-level-id={profile_level_id:06x}",
            u8::from(asymmetry)
        ),
    })
}

/// The relay's own payload types, for its offers: the same in all of them, and those that Chromium would choose where it
/// has them. None is in 64 to 95, which would look like RTCP ([RFC 5761 section 4](https://www.rfc-editor.org/rfc/rfc5761#section-4)).
const OFFERS: [(u8, Option<u8>, Format); 16] = {
    const fn vp9(profile: u8) -> Format {
        Format::Vp9 { profile, written: true }
    }
    const fn av1(profile: u8) -> Format {
        Format::Av1 { profile, level_idx: Some(5), tier: Some(0) }
    }
    const fn h264(profile_level_id: u32, packetization_mode: u8) -> Format {
        Format::H264 { profile_level_id, packetization_mode, asymmetry: true }
    }
    [
        (111, None, Format::Opus),
        (63, None, Format::Red { opus: Pt(111) }),
        (96, Some(97), Format::Vp8),
        (98, Some(99), vp9(0)),
        (100, Some(101), vp9(2)),
        (35, Some(36), vp9(1)),
        (37, Some(38), vp9(3)),
        (45, Some(46), av1(0)),
        (43, Some(44), av1(1)),
        (47, Some(48), av1(2)),
        (108, Some(109), h264(0x42e01f, 1)),
        (114, Some(115), h264(0x42e01f, 0)),
        (116, Some(117), h264(0x4d001f, 1)),
        (39, Some(40), h264(0x4d001f, 0)),
        (118, Some(119), h264(0x64001f, 1)),
        (41, Some(42), h264(0x64001f, 0)),
    ]
};

/// What the relay can offer of one kind.
pub(super) fn own(kind: MediaKind, policy: &CodecPolicy) -> Vec<PayloadType> {
    let mut found: Vec<PayloadType> = OFFERS
        .iter()
        .map(|(pt, rtx, format)| {
            let (codec, variant) = match *format {
                Format::Opus => (Codec::Opus, 0),
                Format::Red { .. } => (Codec::Red, 0),
                Format::Vp8 => (Codec::Vp8, 0),
                Format::Vp9 { profile, .. } => (Codec::Vp9, u32::from(profile)),
                Format::Av1 { profile, .. } => (Codec::Av1, u32::from(profile)),
                Format::H264 { profile_level_id, packetization_mode, .. } => {
                    (Codec::H264, (profile_level_id >> 16) << 8 | u32::from(packetization_mode))
                }
            };
            let audio = matches!(codec, Codec::Opus | Codec::Red);
            let params = CodecParams {
                pt: Pt(*pt),
                codec,
                clock_rate: if audio { 48_000 } else { 90_000 },
                rtx: rtx.map(Pt),
                variant,
            };
            let feedback = match codec {
                Codec::Opus => Feedback::AUDIO,
                Codec::Red => Feedback::default(),
                _ => Feedback::VIDEO,
            };
            (audio, PayloadType { params, format: *format, feedback })
        })
        .filter(|(audio, p)| *audio == (kind == MediaKind::Audio) && policy.allows(p.params.codec))
        .map(|(_, p)| p)
        .collect();
    drop_orphaned_red(&mut found);
    found
}

#[cfg(test)]
mod tests {
    use super::super::text::Description;
    use super::*;

    fn video(lines: &str, policy: &CodecPolicy) -> Vec<PayloadType> {
        let text = format!("v=0\nm=video 9 UDP/TLS/RTP/SAVPF {lines}");
        offered(&Description::parse(&text).unwrap().media[0], MediaKind::Video, policy)
    }

    #[test]
    fn variants_and_rtx() {
        let found = video(
            "96 97 98 102 103 104 105 35 99 200 96 120\na=rtpmap:96 VP8/90000\na=rtpmap:97 rtx/90000\na=fmtp:97 apt=96\n\
             a=rtcp-fb:* nack\na=rtcp-fb:96 nack pli\na=rtpmap:98 VP9/90000\na=fmtp:98 profile-id=2\n\
             a=rtpmap:102 H264/90000\na=fmtp:102 profile-level-id=42E01F; packetization-mode=1;level-asymmetry-allowed=1\n\
             a=rtpmap:103 H264/90000\na=fmtp:103 profile-level-id=f4001f\na=rtpmap:104 h264/90000\n\
             a=rtpmap:105 AV1/90000\na=rtpmap:35 VP9/90000\na=fmtp:35 profile-id=x\na=rtpmap:99 rtx/90000\na=fmtp:99 apt=98\n\
             a=rtpmap:120 red/90000\na=fmtp:120 96/96\n",
            &CodecPolicy::default(),
        );
        let brief: Vec<_> = found
            .iter()
            .map(|p| (p.params.pt.0, p.params.codec, p.params.variant, p.params.rtx.map(|p| p.0)))
            .collect();
        assert_eq!(
            brief,
            [
                (96, Codec::Vp8, 0, Some(97)),
                (98, Codec::Vp9, 2, Some(99)),
                (102, Codec::H264, 0x4201, None),
                (104, Codec::H264, 0x4200, None),
                (105, Codec::Av1, 0, None),
            ]
        );
        assert!(found[0].feedback.nack && found[0].feedback.pli && found[1].feedback.nack);
        assert!(!found[1].feedback.pli);
    }

    #[test]
    fn policy_and_hint_choose() {
        let lines = "96 98\na=rtpmap:96 VP8/90000\na=rtpmap:98 VP9/90000\n";
        assert_eq!(video(lines, &CodecPolicy::new([Codec::Vp9])).len(), 1);
        let both = video(lines, &CodecPolicy::default());
        let pick = |codec| {
            let hint = PublishHint { codec, ..PublishHint::default() };
            for_receiving(both.clone(), hint).iter().map(|p| p.params.pt.0).collect::<Vec<_>>()
        };
        assert_eq!(pick(None), [96, 98]);
        assert_eq!(pick(Some(Codec::Vp9)), [98]);
        assert_eq!(pick(Some(Codec::H264)), [96, 98]);
    }

    #[test]
    fn red_stands_and_falls_with_opus() {
        let text = "v=0\nm=audio 9 UDP/TLS/RTP/SAVPF 63 111\na=rtpmap:63 red/48000/2\na=fmtp:63 111/111\n\
                    a=rtpmap:111 OPUS/48000/2\n";
        let d = Description::parse(text).unwrap();
        let find = |policy| offered(&d.media[0], MediaKind::Audio, &policy);
        assert!(find(CodecPolicy::new([Codec::Red])).is_empty());
        let both = find(CodecPolicy::default());
        assert_eq!(both.iter().map(|p| p.params.pt.0).collect::<Vec<_>>(), [63, 111]);
        let hint = PublishHint { codec: Some(Codec::Opus), ..PublishHint::default() };
        assert_eq!(for_receiving(both.clone(), hint)[0].params.codec, Codec::Opus);
        let red = [CodecParams { pt: Pt(9), ..both[0].params }];
        let sent: Vec<_> = for_sending(&both, &red).iter().map(|p| p.params.pt.0).collect();
        assert_eq!(sent, [63, 111]);
        assert_eq!(for_sending(&both, &[]), []);
    }

    #[test]
    fn own_payload_types_are_distinct_and_outside_of_rtcp() {
        let all =
            [own(MediaKind::Audio, &CodecPolicy::default()), own(MediaKind::Video, &CodecPolicy::default())]
                .concat();
        let mut pts: Vec<u8> =
            all.iter().flat_map(|p| [Some(p.params.pt), p.params.rtx]).flatten().map(|p| p.0).collect();
        let count = pts.len();
        pts.sort_unstable();
        pts.dedup();
        assert_eq!(pts.len(), count);
        assert!(pts.iter().all(|pt| *pt < 128 && !(64..96).contains(pt)));
        assert!(own(MediaKind::Audio, &CodecPolicy::new([Codec::Red])).is_empty());
    }
}
