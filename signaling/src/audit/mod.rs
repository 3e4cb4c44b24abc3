//! The audit trail: who was in which visit when, which tracks there were, which administrative calls were made.
//!
//! Entries go into one append-only SQLite table. Each carries the hash of the one before it, so that a changed or
//! missing entry shows ([`verify`]); keep the newest hash elsewhere to see also a trail that was cut off at its end.
//! Names of people and rooms are stored as keyed pseudonyms only: a visit's name can be health data. The ids that
//! Curtain itself makes (`PA_`, `RM_`, `TR_`) are random and stored as they are.

mod chain;
mod feed;
mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;

use crate::config::AuditConfig;
use crate::{auth, metrics};

use chain::Entry;
pub(crate) use feed::follow;
use store::Store;
pub use store::{Verified, VerifyError, verify};

/// Entries that may wait for the disk.
const QUEUE: usize = 4096;
/// Entries in one transaction.
const BATCH: usize = 256;
const RETRY: Duration = Duration::from_secs(1);
/// Attempts that are made once the process is stopping.
const LAST_ATTEMPTS: u32 = 3;

/// Takes entries. Never waits: what finds no room is counted, and the trail tells how many are missing.
#[derive(Debug, Clone)]
pub(crate) struct Audit {
    queue: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
    pseudonyms: Arc<hmac::Key>,
}

/// A RoomService call.
pub(crate) struct AdminRecord<'a> {
    pub(crate) method: &'a str,
    pub(crate) room: &'a str,
    pub(crate) api_key: &'a str,
    pub(crate) identity: &'a str,
    pub(crate) outcome: &'static str,
}

#[derive(Debug)]
enum Message {
    Entry(Box<Entry>),
    Close,
}

impl Audit {
    /// Records a RoomService call and its outcome. The person is who the token names, else its API key.
    pub(crate) fn admin(&self, record: AdminRecord<'_>) {
        let person = if record.identity.is_empty() {
            self.pseudonym("key", record.api_key)
        } else {
            self.pseudonym("person", record.identity)
        };
        self.put(Entry {
            unix_ms: unix_ms(),
            event: format!("admin_{}", record.method),
            room_name: self.pseudonym("room", record.room),
            person,
            detail: record.outcome.to_owned(),
            ..Entry::default()
        });
    }

    /// Records something about the trail itself.
    fn note(&self, event: &str, detail: String) {
        self.put(Entry { unix_ms: unix_ms(), event: event.to_owned(), detail, ..Entry::default() });
    }

    fn put(&self, entry: Entry) {
        match self.queue.try_send(Message::Entry(Box::new(entry))) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                ::metrics::counter!(metrics::AUDIT_DROPPED).increment(1);
            }
        }
    }

    /// The same for the same name under the same key; tells nothing without the key. 128 bits.
    fn pseudonym(&self, kind: &str, name: &str) -> String {
        if name.is_empty() {
            return String::new();
        }
        let mut context = hmac::Context::with_key(&self.pseudonyms);
        context.update(kind.as_bytes());
        context.update(&[0]);
        context.update(name.as_bytes());
        let tag = context.sign();
        URL_SAFE_NO_PAD.encode(tag.as_ref().first_chunk::<16>().expect("SHA-256 gives 32 bytes"))
    }
}

/// The thread that writes.
#[derive(Debug)]
pub(crate) struct Writer {
    audit: Audit,
    thread: JoinHandle<()>,
}

impl Writer {
    /// Opens or makes the file.
    ///
    /// # Errors
    /// The file cannot be used, or is not an audit trail.
    pub(crate) fn open(config: &AuditConfig) -> anyhow::Result<Self> {
        let store = Store::open(&config.file)
            .with_context(|| format!("the audit trail {} cannot be opened", config.file.display()))?;
        let (queue, entries) = sync_channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        let key = hmac::Key::new(hmac::HMAC_SHA256, config.pseudonym_key.expose().as_bytes());
        let audit = Audit { queue, dropped: dropped.clone(), pseudonyms: Arc::new(key) };
        let thread = std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || write_all(store, &entries, &dropped))
            .context("cannot start the audit thread")?;
        audit.note("trail_opened", String::new());
        Ok(Self { audit, thread })
    }

    pub(crate) fn handle(&self) -> Audit {
        self.audit.clone()
    }

    /// Writes what is queued and ends the thread.
    pub(crate) async fn close(self) {
        let Self { audit, thread } = self;
        audit.note("trail_closed", String::new());
        let joined = tokio::task::spawn_blocking(move || {
            // Waits for room in the queue; fails only if the thread is gone.
            let _ = audit.queue.send(Message::Close);
            thread.join()
        });
        if !matches!(joined.await, Ok(Ok(()))) {
            tracing::error!("the audit thread failed");
        }
    }
}

fn write_all(mut store: Store, queue: &Receiver<Message>, dropped: &AtomicU64) {
    let mut open = true;
    while open {
        let Ok(first) = queue.recv() else { return };
        let mut batch = Vec::new();
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Entry(entry) => batch.push(*entry),
                Message::Close => open = false,
            }
            next = if open && batch.len() < BATCH { queue.try_recv().ok() } else { None };
        }
        let missing = dropped.swap(0, Ordering::Relaxed);
        if missing > 0 {
            let event = "entries_dropped".to_owned();
            batch.push(Entry { unix_ms: unix_ms(), event, detail: missing.to_string(), ..Entry::default() });
        }
        let mut attempts = 0;
        while let Err(error) = store.append(&batch) {
            ::metrics::counter!(metrics::AUDIT_FAILURES).increment(1);
            tracing::error!(%error, entries = batch.len(), "the audit trail cannot be written; trying again");
            attempts += 1;
            if !open && attempts >= LAST_ATTEMPTS {
                tracing::error!(entries = batch.len(), "audit entries are lost");
                return;
            }
            std::thread::sleep(RETRY);
        }
        ::metrics::counter!(metrics::AUDIT_WRITTEN).increment(batch.len() as u64);
    }
}

fn unix_ms() -> u64 {
    auth::unix_now().as_millis().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
