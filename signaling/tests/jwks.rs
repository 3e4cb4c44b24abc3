//! Participants with the tokens of an identity provider.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "../../sfu/control/src/jwks_source/test_signer.rs"]
mod test_signer;

use std::time::Duration;

use common::*;
use serde_json::json;
use signaling::config::JwksConfig;
use test_signer::{Signer, key_set};

fn token(signer: &Signer) -> String {
    let video = json!({"roomJoin": true, "room": "visit"});
    signer.token(&json!({"iss": "idp", "sub": "jane", "exp": unix_now() + 600, "video": video}))
}

#[tokio::test]
async fn a_key_sets_tokens_are_accepted_and_follow_its_rotation() {
    let (old, new) = (Signer::ed25519("old"), Signer::p256("new"));
    let world = World::with(|config, folder| {
        config.keys.clear();
        config.jwks = Some(JwksConfig {
            file: Some(folder.write("jwks.json", &key_set(&[&old]))),
            url: None,
            issuer: Some("idp".to_owned()),
            audience: None,
            refresh_seconds: 300,
        });
    })
    .await;
    let http = reqwest::Client::new();
    let validate = async |signer: &Signer| {
        let request = http.get(world.url("/rtc/validate")).bearer_auth(token(signer));
        request.send().await.unwrap().status()
    };
    assert_eq!(validate(&old).await, 200);
    assert_eq!(validate(&Signer::ed25519("old")).await, 401, "the same kid, another key");

    let next = world.folder.write("next.json", &key_set(&[&new]));
    std::fs::rename(next, world.folder.0.join("jwks.json")).unwrap();
    let rotated = async {
        while validate(&new).await != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(WAIT, rotated).await.expect("rotation in time");
    assert_eq!(validate(&old).await, 401);
}
