//! One participant that anybody can watch: it plays recordings and says each second what it receives.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::anyhow;
use tokio::sync::watch;

use super::session::{BotPlan, Context, Play, Session};
pub use super::session::{VisitReport, VisitStream};
use super::trust::Trust;
use crate::measure::{Board, Window};
use crate::media::FrameCryptor;
use crate::media::stamp::StampClock;
use crate::run::Local;
use crate::scenario::{Resolution, Role};
use crate::token::Entry;

/// How the participant joins.
#[derive(Debug, Clone)]
pub struct Visit {
    /// `ws://` or `wss://` address of the signalling service.
    pub url: String,
    /// Whom to trust where the server speaks TLS.
    pub trust: Option<Trust>,
    /// Access token.
    pub token: String,
    /// Passphrase of the end-to-end encryption. `None` sends frames in clear.
    pub passphrase: Option<String>,
    /// Publish the recorded video.
    pub video: bool,
    /// Publish the recorded audio.
    pub audio: bool,
    /// Local addresses of the media sockets.
    pub local: Local,
}

/// Joins the room that the token names, stays for so many seconds, and reports each of them.
///
/// # Errors
/// When the service refuses or cannot be reached, no media path comes up, or the session is lost; or `each` fails.
pub async fn join(
    visit: Visit,
    seconds: u64,
    mut each: impl FnMut(&VisitReport) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Visit { url, trust, token, passphrase, video, audio, local } = visit;
    let start = Instant::now();
    let end = start + Duration::from_secs(seconds);
    // The sender lives until the end: nobody stops it early.
    let (_stop, stop) = watch::channel(false);
    let context = Context {
        url,
        trust,
        entry: Entry::Tokens([(String::new(), token)].into()),
        play: Play::Recorded,
        local,
        cryptor: passphrase.as_deref().map(|passphrase| Arc::new(FrameCryptor::from_passphrase(passphrase))),
        clock: StampClock::start(0),
        window: Window { start, end },
        epoch: start,
        end,
        board: Arc::new(Mutex::new(Board::default())),
        filling: Arc::default(),
        stop,
    };
    let plan = BotPlan {
        room: String::new(), // the token names both
        identity: String::new(),
        role: Arc::new(Role::speaking(1, video.then_some(Resolution::P180), audio)),
        join_at: Duration::ZERO,
        room_seed: 0,
        seed: 0,
        voice: (0, 1),
    };
    let connected = Box::pin(Session::connect(&plan, &context, 0, start)).await;
    // Boxed: a session is large, and callers may have several of these futures on one stack.
    let mut session = Box::new(connected.map_err(|error| anyhow!(error))?);
    for second in 1..=seconds {
        Box::pin(session.run(start + Duration::from_secs(second))).await.map_err(|error| anyhow!(error))?;
        each(&session.report())?;
    }
    Box::pin(session.finish(None)).await;
    Ok(())
}
