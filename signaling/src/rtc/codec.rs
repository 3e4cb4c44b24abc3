//! Signal messages as WebSocket frames: binary frames carry protobuf, text frames protobuf's JSON form.

use axum::extract::ws::Message as Frame;
use bytes::Bytes;
use livekit_protocol::{SignalRequest, SignalResponse};
use prost::Message as _;

/// A client's message cannot be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// A client's message, in the form that it has on the control link and as a value. A value without content is of a
/// protocol later than ours.
pub(crate) struct Request {
    pub(crate) encoded: Bytes,
    pub(crate) value: SignalRequest,
}

/// Reads a binary frame.
pub(crate) fn decode_binary(payload: Bytes) -> Result<Request, Malformed> {
    let value = SignalRequest::decode(payload.clone()).map_err(|_| Malformed)?;
    Ok(Request { encoded: payload, value })
}

/// Reads a text frame.
pub(crate) fn decode_text(text: &str) -> Result<Request, Malformed> {
    let value: SignalRequest = serde_json::from_str(text).map_err(|_| Malformed)?;
    Ok(Request { encoded: value.encode_to_vec().into(), value })
}

/// Writes an encoded [`SignalResponse`] as the client wants it.
pub(crate) fn encode(response: Bytes, json: bool) -> Result<Frame, Malformed> {
    if !json {
        return Ok(Frame::Binary(response));
    }
    let value = SignalResponse::decode(response).map_err(|_| Malformed)?;
    let text = serde_json::to_string(&value).map_err(|_| Malformed)?;
    Ok(Frame::Text(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use livekit_protocol::{Ping, signal_request, signal_response};
    use proptest::prelude::*;

    #[test]
    fn both_forms_mean_the_same() {
        let value =
            SignalRequest { message: Some(signal_request::Message::PingReq(Ping { timestamp: 7, rtt: 1 })) };
        let binary = decode_binary(value.encode_to_vec().into()).ok().unwrap();
        // A later protocol's field is ignored; numbers of 64 bits are strings in protobuf's JSON.
        let text = decode_text(r#"{"pingReq": {"timestamp": "7", "rtt": 1, "later": true}}"#).ok().unwrap();
        assert_eq!(binary.value, value);
        assert_eq!(text.value, value);
        assert_eq!(text.encoded, binary.encoded);
        let snake = decode_text(r#"{"ping_req": {"timestamp": 7, "rtt": "1"}}"#).ok().unwrap();
        assert_eq!(snake.value, value);
    }

    #[test]
    fn answers_in_json_are_protobufs_json() {
        let value = SignalResponse { message: Some(signal_response::Message::RefreshToken("t".to_owned())) };
        let frame = encode(value.encode_to_vec().into(), true).unwrap();
        assert_eq!(frame, Frame::Text(r#"{"refreshToken":"t"}"#.into()));
        assert_eq!(encode(vec![0xff].into(), true), Err(Malformed));
    }

    #[test]
    fn messages_of_a_later_protocol_are_empty_but_not_malformed() {
        // Field 1000, varint 1.
        assert!(decode_binary(Bytes::from_static(&[0xc0, 0x3e, 1])).ok().unwrap().value.message.is_none());
        assert!(decode_text(r#"{"laterRequest": {}}"#).ok().unwrap().value.message.is_none());
    }

    #[test]
    fn junk_is_malformed() {
        assert!(decode_binary(Bytes::from_static(&[0xff; 5])).is_err());
        assert!(decode_binary(Bytes::from_static(b"hello")).is_err());
        assert!(decode_text("[1]").is_err());
        assert!(decode_text("hello").is_err());
    }

    proptest! {
        #[test]
        fn arbitrary_frames_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), text in ".{0,100}") {
            let _ = decode_binary(bytes.clone().into());
            let _ = decode_text(&text);
            let _ = encode(bytes.into(), true);
        }
    }
}
