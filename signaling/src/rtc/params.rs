//! What a client says in the request line: `/rtc` in single parameters, `/rtc/v1` in one encoded `join_request`.

use std::io::Read as _;

use base64::Engine as _;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use flate2::read::MultiGzDecoder;
use livekit_protocol::client_info::{Capability, Sdk};
use livekit_protocol::wrapped_join_request::Compression;
use livekit_protocol::{ClientInfo, JoinRequest, WrappedJoinRequest};
use prost::Message as _;
use serde::Deserialize;
use sfu_control::messages::SessionOpen;

/// Longest `join_request` after decompression, in bytes. It carries an offer and the tracks of a page.
const MAX_JOIN_REQUEST: usize = 512 * 1024;

/// The query of `/rtc` and `/rtc/v1`. What is not named here is ignored, as LiveKit does.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(crate) struct Query {
    pub(crate) access_token: Option<String>,
    join_request: Option<String>,
    reconnect: Option<String>,
    reconnect_reason: Option<String>,
    sid: Option<String>,
    auto_subscribe: Option<String>,
    adaptive_stream: Option<String>,
    sdk: String,
    protocol: String,
    client_protocol: String,
    version: String,
    os: String,
    os_version: String,
    browser: String,
    browser_version: String,
    device_model: String,
    network: String,
    capabilities: String,
}

/// Why the parameters cannot be used. The texts are LiveKit's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ParamError {
    #[error("join_request is required")]
    Missing,
    #[error("cannot base64 decode wrapped join request")]
    Base64,
    #[error("cannot unmarshal wrapped join request")]
    Wrapper,
    #[error("cannot read decompressed join request")]
    Gzip,
    #[error("join request too large")]
    TooLarge,
    #[error("cannot unmarshal join request")]
    Request,
}

/// A join request together with what the token must permit for it.
pub(crate) struct Join {
    /// For the relay; its token is still empty.
    pub(crate) open: SessionOpen,
    /// It changes the participant's own metadata or attributes.
    pub(crate) updates_metadata: bool,
}

impl Query {
    /// Reads the parameters; with `v1` the client must send a `join_request`.
    pub(crate) fn join(&self, v1: bool) -> Result<Join, ParamError> {
        match &self.join_request {
            Some(wrapped) if !wrapped.is_empty() => from_join_request(wrapped),
            _ if v1 => Err(ParamError::Missing),
            _ => Ok(self.join_by_parameters()),
        }
    }

    fn join_by_parameters(&self) -> Join {
        let reconnect = is_true(self.reconnect.as_deref());
        let info = self.client_info();
        let open = SessionOpen {
            token: String::new(),
            single_peer_connection: false,
            reconnect,
            participant_sid: self.sid.clone().filter(|_| reconnect).unwrap_or_default(),
            auto_subscribe: self
                .auto_subscribe
                .as_deref()
                .is_none_or(|value| value.is_empty() || is_true(Some(value))),
            adaptive_stream: is_true(self.adaptive_stream.as_deref()),
            protocol: info.protocol.try_into().unwrap_or(0),
            client_info: info.encode_to_vec().into(),
            join_request: bytes::Bytes::new(),
            reconnect_reason: self
                .reconnect_reason
                .as_deref()
                .and_then(|reason| reason.parse().ok())
                .unwrap_or(0),
        };
        Join { open, updates_metadata: false }
    }

    fn client_info(&self) -> ClientInfo {
        let sdk = match self.sdk.as_str() {
            "js" => Sdk::Js,
            "ios" | "swift" => Sdk::Swift,
            "android" => Sdk::Android,
            "flutter" => Sdk::Flutter,
            "go" => Sdk::Go,
            "unity" => Sdk::Unity,
            "reactnative" => Sdk::ReactNative,
            "rust" => Sdk::Rust,
            "python" => Sdk::Python,
            "cpp" => Sdk::Cpp,
            "unityweb" => Sdk::UnityWeb,
            "node" => Sdk::Node,
            "unreal" => Sdk::Unreal,
            "esp32" => Sdk::Esp32,
            "dotnet" => Sdk::Dotnet,
            _ => Sdk::Unknown,
        };
        let capabilities = self.capabilities.split(',').map(str::trim).filter_map(Capability::from_str_name);
        ClientInfo {
            sdk: sdk.into(),
            version: self.version.clone(),
            protocol: self.protocol.parse().unwrap_or(0),
            os: self.os.clone(),
            os_version: self.os_version.clone(),
            device_model: self.device_model.clone(),
            browser: self.browser.clone(),
            browser_version: self.browser_version.clone(),
            network: self.network.clone(),
            client_protocol: self.client_protocol.parse().unwrap_or(0),
            capabilities: capabilities.map(|capability| capability as i32).collect(),
            ..ClientInfo::default()
        }
    }
}

fn from_join_request(wrapped: &str) -> Result<Join, ParamError> {
    let wrapped = decode_base64(wrapped).ok_or(ParamError::Base64)?;
    let wrapped = WrappedJoinRequest::decode(&wrapped[..]).map_err(|_| ParamError::Wrapper)?;
    let request = match wrapped.compression() {
        Compression::None => wrapped.join_request,
        Compression::Gzip => inflate(&wrapped.join_request)?,
    };
    if request.len() > MAX_JOIN_REQUEST {
        return Err(ParamError::TooLarge);
    }
    let request = bytes::Bytes::from(request);
    let join = JoinRequest::decode(request.clone()).map_err(|_| ParamError::Request)?;
    let settings = join.connection_settings.unwrap_or_default();
    // The client's own word on its address is worth nothing and is personal data.
    let info = ClientInfo { address: String::new(), ..join.client_info.unwrap_or_default() };
    let open = SessionOpen {
        token: String::new(),
        single_peer_connection: true,
        reconnect: join.reconnect,
        participant_sid: join.participant_sid,
        auto_subscribe: settings.auto_subscribe,
        adaptive_stream: settings.adaptive_stream,
        protocol: info.protocol.try_into().unwrap_or(0),
        client_info: info.encode_to_vec().into(),
        join_request: request,
        reconnect_reason: join.reconnect_reason,
    };
    Ok(Join { open, updates_metadata: !join.metadata.is_empty() || !join.participant_attributes.is_empty() })
}

/// Either alphabet, with or without padding.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    const LENIENT: GeneralPurposeConfig =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::URL_SAFE, LENIENT);
    const STANDARD: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, LENIENT);
    URL_SAFE.decode(text).or_else(|_| STANDARD.decode(text)).ok()
}

fn inflate(compressed: &[u8]) -> Result<Vec<u8>, ParamError> {
    let mut out = Vec::new();
    // One byte more than allowed shows that there is too much, without inflating all of it.
    let limit = MAX_JOIN_REQUEST as u64 + 1;
    MultiGzDecoder::new(compressed).take(limit).read_to_end(&mut out).map_err(|_| ParamError::Gzip)?;
    Ok(out)
}

fn is_true(value: Option<&str>) -> bool {
    matches!(value, Some("1" | "true"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE};
    use flate2::Compression as Level;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use std::io::Write as _;

    fn wrap(request: &[u8], gzip: bool) -> Vec<u8> {
        let (compression, join_request) = if gzip {
            let mut encoder = GzEncoder::new(Vec::new(), Level::best());
            encoder.write_all(request).unwrap();
            (Compression::Gzip, encoder.finish().unwrap())
        } else {
            (Compression::None, request.to_vec())
        };
        WrappedJoinRequest { compression: compression.into(), join_request }.encode_to_vec()
    }

    fn query(join_request: String) -> Query {
        Query { join_request: Some(join_request), ..Query::default() }
    }

    #[test]
    fn a_join_request_comes_plain_or_gzipped_in_either_alphabet() {
        let request = JoinRequest {
            reconnect: true,
            participant_sid: "PA_x".to_owned(),
            reconnect_reason: 2,
            client_info: Some(ClientInfo {
                protocol: 16,
                address: "192.0.2.1".to_owned(),
                ..Default::default()
            }),
            metadata: "m".to_owned(),
            ..Default::default()
        }
        .encode_to_vec();
        for gzip in [false, true] {
            let wrapped = wrap(&request, gzip);
            for text in [URL_SAFE.encode(&wrapped), STANDARD_NO_PAD.encode(&wrapped)] {
                let Join { open, updates_metadata } = query(text).join(true).ok().unwrap();
                assert!(open.reconnect && open.single_peer_connection && updates_metadata);
                assert_eq!(
                    (open.participant_sid.as_str(), open.reconnect_reason, open.protocol),
                    ("PA_x", 2, 16)
                );
                assert_eq!(open.join_request, request);
                assert_eq!(ClientInfo::decode(open.client_info).unwrap().address, "");
            }
        }
    }

    #[test]
    fn bad_join_requests_say_what_is_wrong() {
        let error = |text: String| query(text).join(true).err();
        assert_eq!(Query::default().join(true).err(), Some(ParamError::Missing));
        assert_eq!(error("%%".to_owned()), Some(ParamError::Base64));
        assert_eq!(error(URL_SAFE.encode([0xff; 9])), Some(ParamError::Wrapper));
        assert_eq!(error(URL_SAFE.encode(wrap(&[0xff; 9], true))), Some(ParamError::Request));
        let torn = WrappedJoinRequest { compression: 1, join_request: vec![0x1f, 0x8b, 8, 0] };
        assert_eq!(error(URL_SAFE.encode(torn.encode_to_vec())), Some(ParamError::Gzip));
        let bomb = wrap(&vec![0; 64 * MAX_JOIN_REQUEST], true);
        assert!(bomb.len() < 64 * 1024);
        assert_eq!(error(URL_SAFE.encode(bomb)), Some(ParamError::TooLarge));
    }

    #[test]
    fn parameters_of_v0_have_livekits_defaults() {
        let open = Query::default().join(false).ok().unwrap().open;
        assert!(
            open.auto_subscribe && !open.adaptive_stream && !open.reconnect && !open.single_peer_connection
        );
        let query = Query {
            auto_subscribe: Some("0".to_owned()),
            sid: Some("PA_x".to_owned()),
            protocol: "15".to_owned(),
            sdk: "python".to_owned(),
            ..Query::default()
        };
        let open = query.join(false).ok().unwrap().open;
        assert!(!open.auto_subscribe);
        assert_eq!((open.protocol, open.participant_sid.as_str()), (15, ""));
        assert_eq!(ClientInfo::decode(open.client_info).unwrap().sdk(), Sdk::Python);
    }

    proptest! {
        #[test]
        fn arbitrary_join_requests_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), text in ".{0,80}") {
            let _ = query(text).join(true);
            let _ = query(URL_SAFE.encode(&bytes)).join(true);
            let _ = query(URL_SAFE.encode(wrap(&bytes, true))).join(true);
        }
    }
}
