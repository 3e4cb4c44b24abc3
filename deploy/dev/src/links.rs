//! Ready links and URLs, as text for people or a line of JSON for programs.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use sfu_control::token::{Claims, Secret, VideoGrants, sign};

use crate::state::DevState;

/// How long the tokens in the links are valid.
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Everything that a developer needs to join.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Links {
    page: String,
    ws: String,
    room_service: String,
    sfu_http: String,
    metrics: String,
    room: String,
    clinician: String,
    patient: String,
    api_key: String,
    api_secret: String,
    e2ee_key: String,
    pid: u32,
}

impl Links {
    pub(crate) fn new(room: &str, page: SocketAddr, relay: SocketAddr, state: &DevState) -> Self {
        let link = |identity: &str, name: &str, admin: bool| {
            let token = token(room, identity, name, admin, state);
            format!("http://{page}/?token={token}#key={}", state.e2ee_key)
        };
        Self {
            page: format!("http://{page}/"),
            ws: format!("ws://{page}"),
            room_service: format!("http://{page}/twirp/livekit.RoomService/"),
            sfu_http: format!("http://{relay}"),
            metrics: format!("http://{relay}/metrics"),
            room: room.to_owned(),
            clinician: link("clinician", "Clinician", true),
            patient: link("patient", "Patient", false),
            api_key: state.api_key().to_owned(),
            api_secret: state.api_secret.clone(),
            e2ee_key: state.e2ee_key.clone(),
            pid: std::process::id(),
        }
    }

    pub(crate) fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
            return Ok(());
        }
        println!("Curtain is running on loopback with development keys.");
        println!();
        println!("  Page           {}", self.page);
        println!("  Clinician      {}", self.clinician);
        println!("  Patient        {}", self.patient);
        println!();
        println!("  Signalling     {}", self.ws);
        println!("  RoomService    {}", self.room_service);
        println!("  API key        {}", self.api_key);
        println!("  API secret     {}", self.api_secret);
        println!("  Rooms          {}/rooms", self.sfu_http);
        println!("  Metrics        {}", self.metrics);
        println!();
        println!(
            "Open the two links in two windows. The key behind # never leaves the browser. Ctrl-C stops."
        );
        Ok(())
    }
}

fn token(room: &str, identity: &str, name: &str, admin: bool, state: &DevState) -> String {
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let claims = Claims {
        identity: identity.to_owned(),
        name: name.to_owned(),
        video: VideoGrants {
            room_join: true,
            room: room.to_owned(),
            room_admin: admin,
            can_update_own_metadata: Some(true),
            ..VideoGrants::default()
        },
        expires_at: (unix + TOKEN_LIFE).as_secs(),
        api_key: state.api_key().to_owned(),
        ..Claims::default()
    };
    sign(&claims, &Secret::new(state.api_secret.clone()))
}
