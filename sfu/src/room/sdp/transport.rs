//! What descriptions say of the transport: ICE, DTLS, BUNDLE, rtcp-mux.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::net::SocketAddr;

use sfu_media::command::{Fingerprint, IceCredentials, RemoteTransport};
use sfu_media::ids::Mid;

use super::text::{Description, Media, SectionKind};
use super::{LocalTransport, SdpError};

/// Whether the description is an offer or an answer; the DTLS roles that fit differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SdpType {
    Offer,
    Answer,
}

/// Checks mids and BUNDLE: one entry for each section, `None` for a section that the client rejected.
pub(super) fn bundled_mids(description: &Description<'_>) -> Result<Vec<Option<Mid>>, SdpError> {
    let bundle: HashSet<&str> = description.bundle().into_iter().collect();
    let mut seen = HashSet::new();
    let mut mids = Vec::with_capacity(description.media.len());
    for media in &description.media {
        let section = media.index;
        if media.is_rejected() {
            mids.push(None);
            continue;
        }
        let mid = media.first("mid").and_then(Mid::new).ok_or(SdpError::Mid { section })?;
        if !seen.insert(mid) {
            return Err(SdpError::DuplicateMid { section });
        }
        if !bundle.contains(mid.as_str()) {
            return Err(SdpError::NoBundle);
        }
        if matches!(media.kind(), SectionKind::Media(_)) && !media.has("rtcp-mux") {
            return Err(SdpError::NoRtcpMux { section });
        }
        mids.push(Some(mid));
    }
    if seen.is_empty() { Err(SdpError::NoSections) } else { Ok(mids) }
}

/// The client's transport. All sections share it, so the attributes of the first section that the client did not reject
/// count ([RFC 9143 section 7](https://www.rfc-editor.org/rfc/rfc9143#section-7)), else those of the session.
pub(super) fn remote(description: &Description<'_>, kind: SdpType) -> Result<RemoteTransport, SdpError> {
    let tagged = tagged(description).ok_or(SdpError::NoSections)?;
    let find = |name| tagged.first(name).or_else(|| description.session_first(name));
    let ice = ice_credentials(description).ok_or(SdpError::IceCredentials)?;
    let fingerprint = tagged
        .all("fingerprint")
        .chain(description.session_all("fingerprint"))
        .find_map(parse_fingerprint)
        .ok_or(SdpError::Fingerprint)?;
    // Without the attribute an offerer is active, an answerer passive (RFC 4145 section 4).
    match (find("setup"), kind) {
        (Some("active"), _) | (Some("actpass") | None, SdpType::Offer) => {}
        _ => return Err(SdpError::DtlsRole),
    }
    Ok(RemoteTransport { ice, fingerprint })
}

/// The client's ICE credentials, of the lengths and characters that
/// [RFC 8839 section 5.4](https://www.rfc-editor.org/rfc/rfc8839#section-5.4) allows.
pub(super) fn ice_credentials(description: &Description<'_>) -> Option<IceCredentials> {
    let tagged = tagged(description)?;
    let find = |name| tagged.first(name).or_else(|| description.session_first(name));
    let is_ice = |text: &&str, min: usize| {
        (min..=256).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
    };
    let ufrag = find("ice-ufrag").filter(|t| is_ice(t, 4))?;
    let pwd = find("ice-pwd").filter(|t| is_ice(t, 22))?;
    Some(IceCredentials { ufrag: ufrag.to_owned(), pwd: pwd.to_owned() })
}

fn tagged<'d, 'a>(description: &'d Description<'a>) -> Option<&'d Media<'a>> {
    description.media.iter().find(|m| !m.is_rejected())
}

/// `sha-256 AB:CD:..` ([RFC 8122 section 5](https://www.rfc-editor.org/rfc/rfc8122#section-5)).
fn parse_fingerprint(value: &str) -> Option<Fingerprint> {
    let (hash, digest) = value.split_once(' ')?;
    if !hash.eq_ignore_ascii_case("sha-256") {
        return None;
    }
    let mut bytes = [0; 32];
    let mut parts = digest.trim().split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(Fingerprint(bytes))
}

/// The transport lines of a section that the relay writes. Every section has them, as libwebrtc writes them; candidates
/// are in one only, the first.
pub(super) fn write(out: &mut String, local: &LocalTransport, setup: &str, with_candidates: bool) {
    line!(out, "a=ice-ufrag:{}", local.ice.ufrag);
    line!(out, "a=ice-pwd:{}", local.ice.pwd);
    out.push_str("a=fingerprint:sha-256");
    for (i, byte) in local.fingerprint.0.iter().enumerate() {
        let _ = write!(out, "{}{byte:02X}", if i == 0 { ' ' } else { ':' });
    }
    out.push_str("\r\n");
    line!(out, "a=setup:{setup}");
    if with_candidates {
        for (i, address) in local.candidates.iter().enumerate() {
            write_udp_candidate(out, i, local.restarts, *address);
        }
        for (i, address) in local.tcp_candidates.iter().enumerate() {
            write_tcp_candidate(out, local.candidates.len() + i, i, *address);
        }
        line!(out, "a=end-of-candidates");
    }
}

/// A host candidate; its priority by [RFC 8445 section 5.1.2](https://www.rfc-editor.org/rfc/rfc8445#section-5.1.2).
///
/// The type preference is below the 126 that clients give their own host candidates, so that the priority of a pair is
/// decided by this end's, and this end's rises with each ICE restart. Chromium else stays with an old pair whose network
/// is gone for 2.5 s where that network was preferred.
fn write_udp_candidate(out: &mut String, index: usize, restarts: u16, address: SocketAddr) {
    let index_preference = 255 - u32::try_from(index).unwrap_or(255).min(255);
    let local_preference = u32::from(restarts.min(255)) << 8 | index_preference;
    let priority = (110 << 24) + (local_preference << 8) + 255;
    let (ip, port) = (address.ip().to_canonical(), address.port());
    line!(out, "a=candidate:{} 1 udp {priority} {ip} {port} typ host", index + 1);
}

/// The same for TCP, where the type preference is below that of every UDP candidate and the local preference has the
/// direction's, 4 for passive, in its upper three bits
/// ([RFC 6544 sections 4.2 and 4.5](https://www.rfc-editor.org/rfc/rfc6544#section-4.2)).
fn write_tcp_candidate(out: &mut String, foundation: usize, index: usize, address: SocketAddr) {
    let other_preference = 8191 - u32::try_from(index).unwrap_or(8191).min(8191);
    let priority = (90 << 24) + (((4 << 13) + other_preference) << 8) + 255;
    let (ip, port) = (address.ip().to_canonical(), address.port());
    let foundation = foundation + 1;
    line!(out, "a=candidate:{foundation} 1 tcp {priority} {ip} {port} typ host tcptype passive");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_sha_256_fingerprint_counts() {
        let hex = vec!["aB"; 32].join(":");
        assert_eq!(parse_fingerprint(&format!("SHA-256 {hex}")), Some(Fingerprint([0xab; 32])));
        assert_eq!(parse_fingerprint(&format!("sha-1 {hex}")), None);
        assert_eq!(parse_fingerprint(&format!("sha-256 {hex}:00")), None);
        assert_eq!(parse_fingerprint(&format!("sha-256 {}", &hex[3..])), None);
        assert_eq!(parse_fingerprint(&format!("sha-256 {}", hex.replace("aB", "+1"))), None);
    }

    #[test]
    fn candidates_are_host_candidates_in_order() {
        let mut out = String::new();
        write_udp_candidate(&mut out, 0, 0, "192.0.2.1:7882".parse().unwrap());
        write_udp_candidate(&mut out, 1, 7, "[2001:db8::1]:7882".parse().unwrap());
        write_tcp_candidate(&mut out, 2, 0, "192.0.2.1:443".parse().unwrap());
        write_tcp_candidate(&mut out, 3, 1, "[2001:db8::1]:443".parse().unwrap());
        assert_eq!(
            out,
            "a=candidate:1 1 udp 1845559295 192.0.2.1 7882 typ host\r\n\
             a=candidate:2 1 udp 1846017791 2001:db8::1 7882 typ host\r\n\
             a=candidate:3 1 tcp 1520435199 192.0.2.1 443 typ host tcptype passive\r\n\
             a=candidate:4 1 tcp 1520434943 2001:db8::1 443 typ host tcptype passive\r\n"
        );
    }
}
