//! The SQLite file.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Row, params};

use super::chain::{Entry, GENESIS, HASH, hash};

/// `prev` is unique, so that the chain cannot fork even if two processes write by mistake.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS audit (
        seq INTEGER PRIMARY KEY,
        unix_ms INTEGER NOT NULL,
        event TEXT NOT NULL,
        room TEXT NOT NULL,
        room_name TEXT NOT NULL,
        participant TEXT NOT NULL,
        person TEXT NOT NULL,
        track TEXT NOT NULL,
        detail TEXT NOT NULL,
        prev BLOB NOT NULL UNIQUE,
        hash BLOB NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS audit_person ON audit (person, unix_ms);
    CREATE INDEX IF NOT EXISTS audit_room_name ON audit (room_name, unix_ms);
    CREATE TRIGGER IF NOT EXISTS audit_no_update BEFORE UPDATE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
    CREATE TRIGGER IF NOT EXISTS audit_no_delete BEFORE DELETE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
";

const COLUMNS: &str = "seq, unix_ms, event, room, room_name, participant, person, track, detail, prev, hash";

/// The open file.
#[derive(Debug)]
pub(super) struct Store {
    db: Connection,
}

impl Store {
    pub(super) fn open(path: &Path) -> rusqlite::Result<Self> {
        let db = Connection::open(path)?;
        db.busy_timeout(Duration::from_secs(5))?;
        // Read back because SQLite answers with the mode in force.
        db.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
        // Each transaction reaches the disk: an entry that was written stays.
        db.pragma_update(None, "synchronous", "FULL")?;
        db.execute_batch(SCHEMA)?;
        Ok(Self { db })
    }

    /// Appends entries in one transaction.
    pub(super) fn append(&mut self, entries: &[Entry]) -> rusqlite::Result<()> {
        let transaction = self.db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        {
            let last = transaction
                .query_row("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1", [], |row| {
                    Ok((row.get(0)?, row.get(1)?))
                })
                .optional()?;
            let (mut seq, mut previous): (i64, [u8; HASH]) = last.unwrap_or((0, GENESIS));
            let mut insert = transaction
                .prepare_cached("INSERT INTO audit VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)")?;
            for entry in entries {
                seq += 1;
                let digest = hash(seq, entry, &previous);
                insert.execute(params![
                    seq,
                    i64::try_from(entry.unix_ms).unwrap_or(i64::MAX),
                    entry.event,
                    entry.room,
                    entry.room_name,
                    entry.participant,
                    entry.person,
                    entry.track,
                    entry.detail,
                    previous,
                    digest,
                ])?;
                previous = digest;
            }
        }
        transaction.commit()
    }
}

/// A trail whose chain is unbroken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// Number of entries.
    pub entries: u64,
    /// Hash of the newest entry, in hexadecimal.
    pub head: String,
}

/// Why a trail does not stand.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The file cannot be read, or is not an audit trail.
    #[error("the audit trail cannot be read: {0}")]
    Read(#[from] rusqlite::Error),
    /// An entry is missing before the one with this number.
    #[error("entries are missing before number {0}")]
    Missing(i64),
    /// The entry with this number was changed, or does not follow the one before it.
    #[error("entry number {0} was changed")]
    Changed(i64),
}

/// Checks the chain of the trail in `path`, which may be in use.
///
/// # Errors
/// The first entry that does not stand.
pub fn verify(path: &Path) -> Result<Verified, VerifyError> {
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    db.busy_timeout(Duration::from_secs(5))?;
    let mut statement = db.prepare(&format!("SELECT {COLUMNS} FROM audit ORDER BY seq"))?;
    let mut rows = statement.query([])?;
    let (mut seq, mut previous) = (0, GENESIS);
    while let Some(row) = rows.next()? {
        let number: i64 = row.get("seq")?;
        seq += 1;
        if number != seq {
            return Err(VerifyError::Missing(number));
        }
        let (prev, digest): ([u8; HASH], [u8; HASH]) = (row.get("prev")?, row.get("hash")?);
        if prev != previous || digest != hash(seq, &entry(row)?, &previous) {
            return Err(VerifyError::Changed(seq));
        }
        previous = digest;
    }
    let head = previous.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Verified { entries: seq.unsigned_abs(), head })
}

fn entry(row: &Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        unix_ms: row.get::<_, i64>("unix_ms")?.unsigned_abs(),
        event: row.get("event")?,
        room: row.get("room")?,
        room_name: row.get("room_name")?,
        participant: row.get("participant")?,
        person: row.get("person")?,
        track: row.get("track")?,
        detail: row.get("detail")?,
    })
}
