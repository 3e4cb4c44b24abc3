//! Participants at the WebSocket, with a relay over real QUIC behind it.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Write as _;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use common::*;
use flate2::write::GzEncoder;
use futures_util::{SinkExt as _, StreamExt as _};
use livekit_protocol::wrapped_join_request::Compression;
use livekit_protocol::{self as proto, signal_request, signal_response};
use prost::Message as _;
use sfu_control::token::{Secret, sign};
use tokio_tungstenite::tungstenite::Message as Frame;

#[tokio::test]
async fn messages_pass_both_ways_in_order() {
    let mut world = World::new().await;
    let (mut socket, mut session) = world.join().await;
    assert!(session.open.auto_subscribe && !session.open.single_peer_connection && !session.open.reconnect);
    assert_eq!(session.open.protocol, 15);
    for number in 0..50 {
        send(&mut socket, trickle(&number.to_string())).await;
    }
    for number in 0..50 {
        assert_eq!(session.next().await.unwrap().message, Some(trickle(&number.to_string())));
    }
    for number in 0..50 {
        let answer = proto::SessionDescription { id: number, ..Default::default() };
        session.send(signal_response::Message::Answer(answer)).await;
    }
    for number in 0..50 {
        let signal_response::Message::Answer(answer) = next(&mut socket).await else { panic!("an answer") };
        assert_eq!(answer.id, number);
    }
    // The client leaves: the relay sees its word and then the end.
    send(&mut socket, leave()).await;
    socket.close(None).await.unwrap();
    assert_eq!(session.next().await.unwrap().message, Some(leave()));
    assert!(session.next().await.is_none());
    assert!(
        tokio::time::timeout(WAIT, async { while socket.next().await.is_some_and(|f| f.is_ok()) {} })
            .await
            .is_ok()
    );
    world.server.stop().await;
}

#[tokio::test]
async fn the_relay_ends_a_session_with_its_last_message() {
    let mut world = World::new().await;
    let (mut socket, mut session) = world.join().await;
    session.send(signal_response::Message::Leave(proto::LeaveRequest::default())).await;
    session.responses.finish();
    assert!(matches!(next(&mut socket).await, signal_response::Message::Leave(_)));
    assert_eq!(close_of(&mut socket).await.0, 1000);
}

#[tokio::test]
async fn pings_are_answered_here() {
    let mut world = World::new().await;
    let (mut socket, mut session) = world.join().await;
    send(&mut socket, signal_request::Message::Ping(1)).await;
    let signal_response::Message::Pong(at) = next(&mut socket).await else { panic!("a pong") };
    assert!(at / 1000 + 5 >= unix_now() as i64);
    send(&mut socket, signal_request::Message::PingReq(proto::Ping { timestamp: 42, rtt: 3 })).await;
    let signal_response::Message::PongResp(pong) = next(&mut socket).await else { panic!("a pong") };
    assert_eq!(pong.last_ping_timestamp, 42);
    send(&mut socket, trickle("after")).await;
    assert_eq!(session.next().await.unwrap().message, Some(trickle("after")));
}

#[tokio::test]
async fn json_clients_get_json() {
    let mut world = World::new().await;
    let (mut socket, mut session) = world.join().await;
    socket
        .send(Frame::text(r#"{"trickle": {"candidateInit": "c", "target": "SUBSCRIBER", "new": 1}}"#))
        .await
        .unwrap();
    let Some(signal_request::Message::Trickle(trickle)) = session.next().await.unwrap().message else {
        panic!()
    };
    assert_eq!((trickle.candidate_init.as_str(), trickle.target()), ("c", proto::SignalTarget::Subscriber));
    session
        .send(signal_response::Message::SpeakersChanged(proto::SpeakersChanged {
            speakers: vec![proto::SpeakerInfo { sid: "PA_1".to_owned(), active: true, ..Default::default() }],
        }))
        .await;
    let json = next_text(&mut socket).await;
    assert_eq!(json["speakersChanged"]["speakers"][0]["sid"], "PA_1");
    // Back to binary as soon as the client speaks it.
    send(&mut socket, signal_request::Message::Ping(1)).await;
    assert!(matches!(next(&mut socket).await, signal_response::Message::Pong(_)));
}

fn wrapped(request: &proto::JoinRequest, compression: Compression) -> String {
    let request = request.encode_to_vec();
    let join_request = match compression {
        Compression::None => request,
        Compression::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&request).unwrap();
            encoder.finish().unwrap()
        }
    };
    let wrapped = proto::WrappedJoinRequest { compression: compression.into(), join_request };
    URL_SAFE.encode(wrapped.encode_to_vec()).replace('=', "%3D")
}

#[tokio::test]
async fn v1_carries_a_join_request() {
    let mut world = World::new().await;
    let request = proto::JoinRequest {
        connection_settings: Some(proto::ConnectionSettings {
            auto_subscribe: true,
            adaptive_stream: true,
            ..Default::default()
        }),
        publisher_offer: Some(proto::SessionDescription { sdp: "v=0 ".repeat(800), ..Default::default() }),
        ..Default::default()
    };
    for compression in [Compression::None, Compression::Gzip] {
        let path = format!(
            "/rtc/v1?access_token={}&join_request={}",
            token("jane", "visit"),
            wrapped(&request, compression)
        );
        let (mut socket, _) = tokio_tungstenite::connect_async(world.ws_url(&path)).await.unwrap();
        assert!(matches!(next(&mut socket).await, signal_response::Message::Join(_)));
        let open = world.relay.session().await.open;
        assert!(open.single_peer_connection && open.adaptive_stream && open.auto_subscribe);
        assert_eq!(proto::JoinRequest::decode(open.join_request).unwrap(), request);
    }
    let without = world.ws_url(&format!("/rtc/v1?access_token={}", token("jane", "visit")));
    assert_eq!(refusal(without).await, (400, "join_request is required".to_owned()));
    // Changing one's own metadata needs a grant.
    let metadata = proto::JoinRequest { metadata: "m".to_owned(), ..Default::default() };
    let path = format!(
        "/rtc/v1?access_token={}&join_request={}",
        token("jane", "visit"),
        wrapped(&metadata, Compression::Gzip)
    );
    assert_eq!(refusal(world.ws_url(&path)).await, (401, "permissions denied".to_owned()));
}

#[tokio::test]
async fn bad_tokens_are_refused_alike_at_the_socket_and_at_validate() {
    let world = World::new().await;
    let now = unix_now();
    let mut cases = vec![(String::new(), 401, "permissions denied")];
    let mut case = |change: &dyn Fn(&mut sfu_control::token::Claims), status, text| {
        let mut claims = claims("jane", "visit");
        change(&mut claims);
        cases.push((signed(&claims), status, text));
    };
    case(&|c| c.expires_at = now - 60, 401, "invalid authorization token: token is expired");
    case(&|c| c.not_before = Some(now + 60), 401, "invalid authorization token: token is not valid yet");
    case(
        &|c| c.api_key = "other".to_owned(),
        401,
        "invalid authorization token: token is signed by an unknown key",
    );
    case(
        &|c| c.metadata = "m".repeat(9000),
        401,
        "invalid authorization token: token is longer than 8192 bytes",
    );
    case(&|c| c.video.room_join = false, 401, "permissions denied");
    case(&|c| c.identity.clear(), 400, "identity cannot be empty");
    case(&|c| c.video.room.clear(), 400, "no room name");
    let none = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJkZXZrZXkiLCJleHAiOjk5OTk5OTk5OTl9.";
    cases.push((
        none.to_owned(),
        401,
        "invalid authorization token: token's signing algorithm is not accepted",
    ));
    let wrong = sign(&claims("jane", "visit"), &Secret::new("another secret of thirty-two bytes"));
    cases.push((wrong, 401, "invalid authorization token: token signature is invalid"));
    cases.push((
        "junk".to_owned(),
        401,
        "invalid authorization token: token is malformed: three parts expected",
    ));

    let http = reqwest::Client::new();
    for (token, status, text) in cases {
        let refused = refusal(world.ws_url(&format!("/rtc?access_token={token}"))).await;
        assert_eq!(refused, (status, text.to_owned()));
        let response = http
            .get(world.url(&format!("/rtc/validate?access_token={token}")))
            .header("Origin", "https://app.example")
            .send()
            .await
            .unwrap();
        assert_eq!(response.headers()["access-control-allow-origin"], "https://app.example");
        assert_eq!((response.status().as_u16(), response.text().await.unwrap()), (status, text.to_owned()));
    }
}

#[tokio::test]
async fn validate_says_success_and_preflights_pass() {
    let world = World::new().await;
    let http = reqwest::Client::new();
    let token = token("jane", "visit");
    let by_query = http.get(world.url(&format!("/rtc/validate?access_token={token}")));
    let by_header = http.get(world.url("//rtc/validate")).header("Authorization", format!("Bearer {token}"));
    let join_request = wrapped(&proto::JoinRequest::default(), Compression::Gzip);
    let v1 =
        http.get(world.url(&format!("/rtc/v1/validate?access_token={token}&join_request={join_request}")));
    for request in [by_query, by_header, v1] {
        let response = request.send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.text().await.unwrap()), (200, "success".to_owned()));
    }
    let basic = http.get(world.url("/rtc/validate")).header("Authorization", "Basic x").send().await.unwrap();
    assert_eq!(basic.status(), 401);
    let plain = http.get(world.url(&format!("/rtc?access_token={token}"))).send().await.unwrap();
    assert_eq!(plain.status(), 404, "a plain GET finds nothing, as with LiveKit");
    let preflight = http
        .request(reqwest::Method::OPTIONS, world.url("/twirp/livekit.RoomService/ListRooms"))
        .header("Origin", "https://app.example")
        .header("Access-Control-Request-Method", "POST")
        .header("Access-Control-Request-Headers", "authorization,content-type")
        .send()
        .await
        .unwrap();
    assert!(preflight.status().is_success());
    assert_eq!(preflight.headers()["access-control-allow-headers"], "authorization,content-type");
}

#[tokio::test]
async fn the_relay_refuses_with_its_own_status() {
    let world = World::new().await;
    let url = world.ws_url(&format!("/rtc?access_token={}", token("jane", "missing")));
    assert_eq!(refusal(url).await, (404, "requested room does not exist".to_owned()));
}

#[tokio::test]
async fn junk_closes_only_its_own_socket() {
    let mut world = World::new().await;
    let (mut good, mut good_session) = world.join().await;
    let (mut bad, mut bad_session) = world.join().await;
    for _ in 0..5 {
        bad.send(Frame::binary(vec![0xff; 9])).await.unwrap();
    }
    assert_eq!(close_of(&mut bad).await, (1007, "messages cannot be understood".to_owned()));
    assert!(bad_session.next().await.is_none(), "nothing of it reached the relay");

    let (mut text, _session) = world.join().await;
    for _ in 0..5 {
        text.send(Frame::text("hello")).await.unwrap();
    }
    assert_eq!(close_of(&mut text).await.0, 1007);

    // Messages of a later protocol are no junk.
    for _ in 0..20 {
        good.send(Frame::binary(vec![0xc0, 0x3e, 1])).await.unwrap();
    }
    send(&mut good, trickle("still here")).await;
    assert_eq!(good_session.next().await.unwrap().message, Some(trickle("still here")));
}

#[tokio::test]
async fn oversized_messages_close_with_1009() {
    let mut world = World::new().await;
    let (mut good, mut good_session) = world.join().await;
    let (mut bad, mut bad_session) = world.join().await;
    let large = "x".repeat(200 * 1024);
    send(&mut good, trickle(&large)).await;
    assert_eq!(good_session.next().await.unwrap().message, Some(trickle(&large)));

    bad.send(Frame::binary(vec![0; 1024 * 1024])).await.unwrap();
    assert_eq!(close_of(&mut bad).await, (1009, "message too large".to_owned()));
    assert!(bad_session.next().await.is_none());
    send(&mut good, trickle("unharmed")).await;
    assert_eq!(good_session.next().await.unwrap().message, Some(trickle("unharmed")));
}

#[tokio::test]
async fn floods_and_silence_are_closed() {
    let mut world = World::with(|config, _| {
        config.limits.idle_seconds = 1;
        config.limits.messages_per_second = 10;
    })
    .await;
    let (mut flood, _flood_session) = world.join().await;
    for _ in 0..60 {
        // Fails once it is closed.
        let bytes = proto::SignalRequest { message: Some(trickle("f")) }.encode_to_vec();
        if flood.send(Frame::binary(bytes)).await.is_err() {
            break;
        }
    }
    assert_eq!(close_of(&mut flood).await, (1008, "too many messages".to_owned()));
    let (mut silent, mut session) = world.join().await;
    assert_eq!(close_of(&mut silent).await, (1001, "nothing received within the idle timeout".to_owned()));
    assert!(session.next().await.is_none());
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_holds_nobody_back() {
    let mut world = World::with(|config, _| config.limits.write_seconds = 1).await;
    let (_deaf, mut deaf_session) = world.join().await;
    let (mut good, mut good_session) = world.join().await;
    let flood = tokio::spawn(async move {
        let metadata = "x".repeat(100 * 1024);
        let room = proto::Room { metadata, ..Default::default() };
        let update = signal_response::Message::RoomUpdate(proto::RoomUpdate { room: Some(room) });
        let bytes: bytes::Bytes = proto::SignalResponse { message: Some(update) }.encode_to_vec().into();
        let message = sfu_control::messages::ToSignaling {
            kind: Some(sfu_control::messages::ToSignalingKind::Signal(bytes)),
        };
        // Ends when the edge gives the client up.
        while deaf_session.responses.send(&message).await.is_ok() {}
    });
    for number in 0..20 {
        good_session.send(signal_response::Message::Pong(number)).await;
        assert_eq!(next(&mut good).await, signal_response::Message::Pong(number));
    }
    tokio::time::timeout(WAIT, flood).await.expect("the deaf client is given up").unwrap();
}

#[tokio::test]
async fn clients_resume_after_the_link_was_lost() {
    let mut world = World::new().await;
    let (mut socket, session) = world.join().await;
    let address = world.relay.address;
    drop(session);
    let relay = std::mem::replace(&mut world.relay, Relay::start(&world.pki, ([127, 0, 0, 1], 0).into()));
    relay.stop().await;
    let (code, _) = close_of(&mut socket).await;
    assert_eq!(code, 1012);

    // While there is no relay: 503, everywhere.
    let token = token("jane", "visit");
    let url = format!("/rtc?access_token={token}");
    assert_eq!(refusal(world.ws_url(&url)).await.0, 503);
    let http = reqwest::Client::new();
    let validate = http.get(world.url(&format!("/rtc/validate?access_token={token}"))).send().await.unwrap();
    assert_eq!(validate.status(), 503);
    assert_eq!(http.get(world.url("/readyz")).send().await.unwrap().status(), 503);
    assert_eq!(http.get(world.url("/healthz")).send().await.unwrap().status(), 200);

    world.relay = Relay::start(&world.pki, address);
    world.link_up().await;
    assert_eq!(http.get(world.url("/readyz")).send().await.unwrap().status(), 200);
    let resume = format!("{url}&reconnect=1&sid=PA_1&reconnect_reason=1");
    let (mut socket, _) = tokio_tungstenite::connect_async(world.ws_url(&resume)).await.unwrap();
    assert!(matches!(next(&mut socket).await, signal_response::Message::Reconnect(_)));
    let open = world.relay.session().await.open;
    assert!(open.reconnect);
    assert_eq!((open.participant_sid.as_str(), open.reconnect_reason), ("PA_1", 1));
}

#[tokio::test]
async fn a_short_token_is_refreshed_after_the_first_answer() {
    let mut world = World::new().await;
    let mut short = claims("jane", "visit");
    short.expires_at = unix_now() + 30;
    let url = world.ws_url(&format!("/rtc?access_token={}", signed(&short)));
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    assert!(matches!(next(&mut socket).await, signal_response::Message::Join(_)));
    let signal_response::Message::RefreshToken(fresh) = next(&mut socket).await else { panic!("a token") };
    let mut session = world.relay.session().await;
    // It lets its holder come back, into the same room as the same person.
    let url = world.ws_url(&format!("/rtc?access_token={fresh}"));
    let (mut again, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    assert!(matches!(next(&mut again).await, signal_response::Message::Join(_)));
    session.send(signal_response::Message::Pong(1)).await;
    assert_eq!(next(&mut socket).await, signal_response::Message::Pong(1));
}

#[tokio::test]
async fn a_stopping_service_tells_clients_to_resume() {
    let mut world = World::new().await;
    let (mut socket, mut session) = world.join().await;
    let stopped = tokio::spawn(world.server.stop());
    assert_eq!(close_of(&mut socket).await, (1012, "signaling is restarting; resume".to_owned()));
    drop(socket);
    assert!(session.next().await.is_none());
    tokio::time::timeout(Duration::from_secs(5), stopped).await.unwrap().unwrap();
}
