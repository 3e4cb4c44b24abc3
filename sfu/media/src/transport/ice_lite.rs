//! The relay's end of ICE: it answers checks and never sends any
//! ([RFC 8445 section 2.5](https://www.rfc-editor.org/rfc/rfc8445#section-2.5), lite implementation).
//!
//! Checks without valid credentials are never answered, not even with the 400 or 401 that RFC 8489 section 9.1.3 has for
//! them: an error response to an address that proved nothing would make the relay a reflector. The only error
//! responses are 420 and 487, both to authenticated requests and both shorter than these.

use std::fmt;
use std::time::{Duration, Instant};

use arrayvec::{ArrayString, ArrayVec};

use super::stun::{self, Class, IntegrityKey, Message, MessageWriter, Role};
use crate::command::IceCredentials;
use crate::drop_reason::DropReason;
use crate::ids::Remote;

/// Remote addresses that one peer may have at a time.
const MAX_PAIRS: usize = 8;

/// Longest user name fragment ([RFC 8839 section 5.4](https://www.rfc-editor.org/rfc/rfc8839#section-5.4)).
const MAX_UFRAG: usize = 256;

/// After what silence of the selected address media follows the client to another of its addresses from which
/// authenticated packets come. A client sends reports several times a second.
const SILENCE: Duration = Duration::from_secs(1);

type Ufrag = ArrayString<MAX_UFRAG>;

/// A response, for the address that the request came from.
type Response = ArrayVec<u8, { stun::MAX_LEN }>;

struct LocalCredentials {
    ufrag: String,
    key: IntegrityKey,
}

impl From<IceCredentials> for LocalCredentials {
    fn from(ice: IceCredentials) -> Self {
        Self { key: IntegrityKey::new(&ice.pwd), ufrag: ice.ufrag }
    }
}

/// An address that a check with MESSAGE-INTEGRITY came from.
#[derive(Clone, Copy)]
struct Pair {
    remote: Remote,
    /// Which restart its last check belonged to.
    generation: u32,
    last_check: Instant,
    /// When it was nominated last, or found to be the one in use.
    nominated: Option<Instant>,
    /// Last authenticated packet of any kind.
    last_heard: Instant,
    /// The TCP connection is over.
    gone: bool,
}

/// Credentials, validated addresses and the selected one.
pub(super) struct IceLite {
    local: LocalCredentials,
    remote: Option<Ufrag>,
    /// The client's description was here.
    described: bool,
    /// What its checks name until then.
    early: Option<Ufrag>,
    /// Credentials from before a restart; gone with the first check that has the new ones on both sides.
    previous_local: Option<LocalCredentials>,
    previous_remote: Option<Ufrag>,
    /// Counts local restarts.
    generation: u32,
    pairs: ArrayVec<Pair, MAX_PAIRS>,
    selected: Option<Remote>,
    consent: Duration,
}

impl IceLite {
    /// Waits for a remote description. `consent` is how long an address stays valid without an authenticated check
    /// ([RFC 7675 section 5.1](https://www.rfc-editor.org/rfc/rfc7675#section-5.1)).
    pub(super) fn new(local: IceCredentials, consent: Duration) -> Self {
        Self {
            local: local.into(),
            remote: None,
            described: false,
            early: None,
            previous_local: None,
            previous_remote: None,
            generation: 0,
            pairs: ArrayVec::new(),
            selected: None,
            consent,
        }
    }

    /// The remote user name fragment that checks must name from now on. Addresses whose early checks named another are
    /// forgotten.
    ///
    /// Fragments longer than the 256 bytes that RFC 8839 allows match no check.
    pub(super) fn set_remote(&mut self, ufrag: &str) {
        if !std::mem::replace(&mut self.described, true)
            && self.early.take().is_some_and(|early| early.as_str() != ufrag)
        {
            self.pairs.clear();
            self.selected = None;
        }
        if self.remote.is_some_and(|remote| remote.as_str() == ufrag) {
            return;
        }
        let new = Ufrag::from(ufrag).ok();
        let old = std::mem::replace(&mut self.remote, new);
        // Descriptions that follow each other without a check between them keep the fragment that is in use.
        if self.previous_remote.is_none() {
            self.previous_remote = old;
        }
    }

    /// New local credentials. The old ones, and the pairs made with them, stay valid until a check with the new ones.
    pub(super) fn restart(&mut self, local: IceCredentials) {
        if self.local.ufrag == local.ufrag {
            return;
        }
        let old = std::mem::replace(&mut self.local, local.into());
        self.generation = self.generation.wrapping_add(1);
        if self.previous_local.is_none() {
            self.previous_local = Some(old);
        }
    }

    /// The fragments that requests for this peer may name.
    pub(super) fn local_ufrags(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.local).chain(&self.previous_local).map(|local| local.ufrag.as_str())
    }

    /// Takes a STUN message from `from`.
    ///
    /// # Errors
    /// Why it is dropped unanswered.
    pub(super) fn handle(
        &mut self,
        from: Remote,
        datagram: &[u8],
        now: Instant,
    ) -> Result<Option<Response>, DropReason> {
        let message = Message::parse(datagram)?;
        match message.class() {
            Class::Request => {}
            // A keep-alive (RFC 8445 section 11): it proves nothing and wants nothing.
            Class::Indication => return Ok(None),
            // The relay asked nothing.
            Class::Success | Class::Error => return Err(DropReason::StunMalformed),
        }
        let (local_ufrag, remote_ufrag) = message.ufrags().ok_or(DropReason::StunUnknownUser)?;
        let is_current = local_ufrag == self.local.ufrag;
        let local = if is_current {
            &self.local
        } else {
            self.previous_local
                .as_ref()
                .filter(|previous| previous.ufrag == local_ufrag)
                .ok_or(DropReason::StunUnknownUser)?
        };
        let names = |remote: &Option<Ufrag>| remote.is_some_and(|remote| remote.as_str() == remote_ufrag);
        let is_current_remote = if self.described {
            names(&self.remote)
        } else {
            // An answer travels by way of signalling and is behind the first check. That one proves with the relay's own
            // password that it is from the client (RFC 8445 section 7.3: it is to be answered at once); the next name
            // the same fragment.
            names(&self.early) || (self.early.is_none() && remote_ufrag.len() <= MAX_UFRAG)
        };
        if !is_current_remote && !names(&self.previous_remote) {
            return Err(DropReason::StunUnknownUser);
        }
        message.verify(&local.key)?;
        if !self.described {
            self.early = Ufrag::from(remote_ufrag).ok();
        }

        let response = MessageWriter::new(Class::Error, message.transaction_id());
        if !message.unknown_attributes().is_empty() {
            let response = response
                .error_code(420, "Unknown Attribute")
                .unknown_attributes(message.unknown_attributes())
                .finish(&local.key);
            return Ok(Some(response));
        }
        if let Some(Role::Controlled(_)) = message.role() {
            // A lite agent never controls (RFC 8445 section 6.1.1): the client has to switch.
            let response = response.error_code(487, "Role Conflict").finish(&local.key);
            return Ok(Some(response));
        }
        let response = MessageWriter::new(Class::Success, message.transaction_id())
            .xor_mapped_address(from.addr)
            .finish(&local.key);

        let generation = if is_current { self.generation } else { self.generation.wrapping_sub(1) };
        self.validate(from, generation, message.use_candidate(), now);
        if is_current && is_current_remote {
            self.previous_local = None;
            self.previous_remote = None;
        }
        Ok(Some(response))
    }

    /// Notes that `from` passed a check.
    fn validate(&mut self, from: Remote, generation: u32, nominated: bool, now: Instant) {
        match self.pairs.iter_mut().find(|pair| pair.remote == from) {
            Some(pair) => {
                if pair.generation != generation {
                    // A nomination does not outlive the restart.
                    pair.nominated = None;
                    pair.generation = generation;
                }
                pair.last_check = now;
                pair.last_heard = now;
                if nominated {
                    pair.nominated = Some(now);
                }
            }
            None => {
                if self.pairs.is_full() {
                    self.evict();
                }
                let nominated = nominated.then_some(now);
                self.pairs.push(Pair {
                    remote: from,
                    generation,
                    last_check: now,
                    nominated,
                    last_heard: now,
                    gone: false,
                });
            }
        }
        if nominated && generation == self.generation {
            self.selected = Some(from);
        } else {
            self.select();
        }
    }

    /// Makes room: a pair that is gone, else the one that was checked longest ago, but not the selected one.
    fn evict(&mut self) {
        let stale = (0..self.pairs.len())
            .filter(|&at| Some(self.pairs[at].remote) != self.selected)
            .min_by_key(|&at| (!self.pairs[at].gone, self.pairs[at].last_check));
        if let Some(at) = stale {
            self.pairs.remove(at);
        }
    }

    /// What is not gone first, then the newest generation; in it the latest nomination, else the latest check. A selected
    /// pair of that generation stays unless a nomination displaces it.
    fn select(&mut self) {
        let rank = |pair: &&Pair| {
            let is_selected = pair.nominated.is_some() && Some(pair.remote) == self.selected;
            let newest = pair.generation == self.generation;
            (!pair.gone, newest, pair.nominated, is_selected, pair.last_check)
        };
        self.selected = self.pairs.iter().max_by_key(rank).map(|pair| pair.remote);
    }

    /// An authenticated packet came from a validated address: a client whose selected address has fallen silent is
    /// there now. A NAT that lost its mapping does so; not every client repeats the nomination afterwards.
    pub(super) fn heard(&mut self, from: Remote, now: Instant) {
        let Some(pair) = self.pairs.iter_mut().find(|pair| pair.remote == from) else { return };
        pair.last_heard = now;
        if self.selected == Some(from) || pair.generation != self.generation {
            return;
        }
        let selected = self.pairs.iter().find(|pair| Some(pair.remote) == self.selected);
        let silent = selected.is_none_or(|pair| now.saturating_duration_since(pair.last_heard) > SILENCE);
        if silent && let Some(pair) = self.pairs.iter_mut().find(|pair| pair.remote == from) {
            pair.nominated = Some(now);
            self.selected = Some(from);
        }
    }

    /// A TCP connection is over. Its consent lasts on, so that the client has time to come back on another path.
    pub(super) fn forget(&mut self, remote: Remote) {
        if let Some(pair) = self.pairs.iter_mut().find(|pair| pair.remote == remote) {
            pair.gone = true;
            self.select();
        }
    }

    /// Whether packets from `from` may be looked at.
    pub(super) fn accepts(&self, from: Remote) -> bool {
        self.pairs.iter().any(|pair| pair.remote == from)
    }

    /// Where to send.
    pub(super) fn selected(&self) -> Option<Remote> {
        self.selected
    }

    /// When the next address loses its consent.
    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.pairs.iter().map(|pair| pair.last_check + self.consent).min()
    }

    /// Forgets addresses whose consent has expired.
    pub(super) fn expire(&mut self, now: Instant) {
        let before = self.pairs.len();
        self.pairs.retain(|pair| now.saturating_duration_since(pair.last_check) < self.consent);
        if self.pairs.len() != before {
            self.select();
        }
    }
}

impl fmt::Debug for IceLite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IceLite")
            .field("has_remote", &self.remote.is_some())
            .field("generation", &self.generation)
            .field("pairs", &self.pairs.len())
            .field("selected", &self.selected.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
