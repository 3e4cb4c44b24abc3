//! RoomService calls over Twirp, answered by a relay over real QUIC.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use livekit_protocol as proto;
use prost::Message as _;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use sfu_control::token::Secret;
use signaling::audit;
use signaling::config::AuditConfig;

fn call(world: &World, method: &str) -> RequestBuilder {
    Client::new()
        .post(world.url(&format!("/twirp/livekit.RoomService/{method}")))
        .header("Authorization", format!("Bearer {}", token("backend", "visit")))
}

async fn json(request: RequestBuilder, body: impl Into<reqwest::Body>) -> (u16, Value) {
    let response = request.header("Content-Type", "application/json").body(body).send().await.unwrap();
    let status = response.status().as_u16();
    assert_eq!(response.headers()["content-type"], "application/json");
    (status, response.json().await.unwrap())
}

#[tokio::test]
async fn json_takes_both_spellings_and_ignores_what_it_does_not_know() {
    let mut world = World::new().await;
    for body in [
        json!({"name": "visit", "emptyTimeout": 30, "later": {"x": 1}}),
        json!({"name": "visit", "empty_timeout": "30"}),
    ] {
        let (status, room) = json(call(&world, "CreateRoom"), body.to_string()).await;
        assert_eq!((status, &room["name"], &room["emptyTimeout"]), (200, &json!("visit"), &json!(30)));
    }
    let seen = world.relay.calls.recv().await.unwrap();
    assert_eq!(seen.method, "CreateRoom");
    assert_eq!(proto::CreateRoomRequest::decode(seen.request).unwrap().empty_timeout, 30);
    let (_, list) = json(call(&world, "ListRooms"), r#"{"names":["a","b"]}"#).await;
    assert_eq!(list["rooms"][1]["name"], "b");
    // 64-bit numbers are strings in protobuf's JSON.
    assert_eq!(list["rooms"][1]["creationTime"], "7");
}

#[tokio::test]
async fn protobuf_passes_through() {
    let world = World::new().await;
    let request = proto::ListRoomsRequest { names: vec!["a".to_owned()] };
    let response = call(&world, "ListRooms")
        .header("Content-Type", "application/protobuf")
        .body(request.encode_to_vec())
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/protobuf");
    let list = proto::ListRoomsResponse::decode(response.bytes().await.unwrap()).unwrap();
    assert_eq!(list.rooms[0].name, "a");
}

#[tokio::test]
async fn every_method_is_there() {
    let mut world = World::new().await;
    for method in [
        "CreateRoom",
        "ListRooms",
        "ListParticipants",
        "GetParticipant",
        "RemoveParticipant",
        "MutePublishedTrack",
        "UpdateParticipant",
        "UpdateSubscriptions",
        "SendData",
        "UpdateRoomMetadata",
    ] {
        let (status, _) = json(call(&world, method), "{}").await;
        assert_eq!(status, 200, "{method}");
        assert_eq!(world.relay.calls.recv().await.unwrap().method, method);
    }
}

#[tokio::test]
async fn errors_are_twirps() {
    let world = World::new().await;
    let code = |(status, body): (u16, Value)| (status, body["code"].as_str().unwrap().to_owned());
    let is = |status: u16, name: &str| (status, name.to_owned());

    let (status, body) = json(call(&world, "DeleteRoom"), r#"{"room":"x"}"#).await;
    assert_eq!((status, &body), (404, &json!({"code": "not_found", "msg": "requested room does not exist"})));
    assert_eq!(code(json(call(&world, "Nothing"), "{}").await), is(404, "bad_route"));
    assert_eq!(code(json(call(&world, "ListRooms"), "{").await), is(400, "malformed"));
    let (status, body) = json(call(&world, "CreateRoom"), r#"{"name": {"jane": 1}}"#).await;
    assert_eq!(status, 400);
    assert!(!body["msg"].as_str().unwrap().contains("jane"), "the body is not quoted");
    let large = format!(r#"{{"name":"{}"}}"#, "x".repeat(600 * 1024));
    assert_eq!(code(json(call(&world, "CreateRoom"), large).await), is(413, "resource_exhausted"));

    let junk = call(&world, "ListRooms").header("Content-Type", "application/protobuf").body(vec![0xff; 9]);
    let junk = junk.send().await.unwrap();
    assert_eq!(
        (junk.status().as_u16(), junk.json::<Value>().await.unwrap()["code"].clone()),
        (400, json!("malformed"))
    );
    let plain =
        call(&world, "ListRooms").header("Content-Type", "text/plain").body("{}").send().await.unwrap();
    assert_eq!(plain.json::<Value>().await.unwrap()["code"], "bad_route");
    let get = Client::new().get(world.url("/twirp/livekit.RoomService/ListRooms")).send().await.unwrap();
    assert_eq!(get.json::<Value>().await.unwrap()["code"], "bad_route");

    let url = world.url("/twirp/livekit.RoomService/ListRooms");
    assert_eq!(code(json(Client::new().post(&url), "{}").await), is(401, "unauthenticated"));
    let mut old = claims("backend", "visit");
    old.expires_at = unix_now() - 60;
    let expired = Client::new().post(&url).header("Authorization", format!("Bearer {}", signed(&old)));
    assert_eq!(code(json(expired, "{}").await), is(401, "unauthenticated"));
    // In the query a token would end up in logs of proxies; RoomService takes it in the header only.
    let query = Client::new().post(format!("{url}?access_token={}", token("backend", "visit")));
    assert_eq!(code(json(query, "{}").await), is(401, "unauthenticated"));

    let World { relay, server, folder, pki } = world;
    relay.stop().await;
    let mut state = server.watch_link();
    state.wait_for(|state| *state == sfu_control::link::LinkState::Down).await.unwrap();
    let world = World { relay: Relay::start(&pki, ([127, 0, 0, 1], 0).into()), server, folder, pki };
    assert_eq!(code(json(call(&world, "ListRooms"), "{}").await), is(503, "unavailable"));
}

#[tokio::test]
async fn calls_and_events_reach_the_audit_trail() {
    let mut world = World::with(|config, folder| {
        config.audit = Some(AuditConfig {
            file: folder.0.join("audit.sqlite"),
            pseudonym_key: Secret::new("a key of at least thirty-two bytes"),
        });
    })
    .await;
    let file = world.folder.0.join("audit.sqlite");
    let mut feed = tokio::time::timeout(WAIT, world.relay.feeds.recv()).await.unwrap().unwrap();
    let participant = proto::ParticipantInfo { identity: "jane".to_owned(), ..Default::default() };
    feed.send(&sfu_control::messages::RoomEvent {
        event: "participant_joined".to_owned(),
        unix_ms: 1,
        participant: participant.encode_to_vec().into(),
        ..Default::default()
    })
    .await
    .unwrap();
    json(call(&world, "DeleteRoom"), r#"{"room":"visit-of-jane"}"#).await;

    let entries = |event: &str| {
        let db = rusqlite::Connection::open(&file).unwrap();
        let sql = "SELECT count(*) FROM audit WHERE event = ?1 AND person != ''";
        db.query_row(sql, [event], |row| row.get::<_, i64>(0)).unwrap()
    };
    let start = std::time::Instant::now();
    while entries("participant_joined") == 0 || entries("admin_DeleteRoom") == 0 {
        assert!(start.elapsed() < WAIT, "the entries do not come");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    world.server.stop().await;
    assert!(audit::verify(&file).unwrap().entries >= 5);
    let db = rusqlite::Connection::open(&file).unwrap();
    let outcome: String = db
        .query_row("SELECT detail FROM audit WHERE event = 'admin_DeleteRoom'", [], |row| row.get(0))
        .unwrap();
    assert_eq!(outcome, "not_found");
}
