//! Who has signed in, and what was found good lately: a token or a session id is verified once, not for every request.
//!
//! Each thread has a [`Memory`] of its own, with a fixed number of places for what verification has let through. What a
//! token proved is good for the registry it was looked up in, so that a client that is removed, or a token that is
//! revoked, is refused at once, and forgotten with the thread's next request; what a session id says is sealed and never
//! changes.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::session::{NoSession, ends};
use super::{ClientState, Gateway, Snapshot};
use crate::policy::{AuthError, Caller, ClientId, authenticate};
use crate::wire::seal::SessionId;

/// Texts of one kind that a thread remembers; another takes the place of one whose hash falls on the same.
const REMEMBERED: usize = 512;

/// A client that has signed in, and what is kept for it.
#[derive(Clone)]
pub struct Principal(Arc<SignedIn>);

struct SignedIn {
    caller: Caller,
    state: Arc<ClientState>,
}

impl Principal {
    /// The client, and how it has proved who it is.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.0.caller
    }

    /// The client.
    #[must_use]
    pub fn client(&self) -> &ClientId {
        self.0.caller.client()
    }

    /// What was kept for the client when it signed in.
    pub(super) fn state(&self) -> &Arc<ClientState> {
        &self.0.state
    }
}

/// What one thread has found good lately.
#[derive(Default)]
pub struct Memory {
    tokens: Mutex<Tokens>,
    sessions: Mutex<Memo<SessionId>>,
}

/// Whose tokens were found in one registry.
#[derive(Default)]
struct Tokens {
    /// The registry's generation.
    generation: u64,
    found: Memo<Principal>,
}

impl Tokens {
    /// What is remembered of this generation; what was of an earlier one is forgotten now. `None` for a request that began
    /// before the newest one that was seen here.
    fn of(&mut self, generation: u64) -> Option<&mut Memo<Principal>> {
        if generation > self.generation {
            *self = Self { generation, found: Memo::default() };
        }
        (generation == self.generation).then_some(&mut self.found)
    }
}

/// Values by the texts that they were made of.
struct Memo<T> {
    hasher: RandomState,
    slots: Vec<Option<Box<Known<T>>>>,
}

struct Known<T> {
    hash: u64,
    text: Box<str>,
    value: T,
}

impl<T> Default for Memo<T> {
    fn default() -> Self {
        Self { hasher: RandomState::new(), slots: Vec::new() }
    }
}

impl<T> Memo<T> {
    fn get(&self, text: &str) -> Option<&T> {
        let hash = self.hasher.hash_one(text);
        let known = self.slots.get(hash as usize % REMEMBERED)?.as_ref()?;
        // SECURITY: a keyed hash nobody can choose comes first, so that how long the comparison of texts takes says nothing
        // about a token to whoever does not have it.
        (known.hash == hash && *known.text == *text).then_some(&known.value)
    }

    fn put(&mut self, text: &str, value: T) {
        let hash = self.hasher.hash_one(text);
        self.slots.resize_with(REMEMBERED, || None);
        if let Some(slot) = self.slots.get_mut(hash as usize % REMEMBERED) {
            *slot = Some(Box::new(Known { hash, text: text.into(), value }));
        }
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Gateway {
    /// Finds the client a token belongs to. `now` is the time since the epoch, here and below.
    ///
    /// # Errors
    /// [`AuthError`].
    pub fn sign_in(
        &self,
        memory: &Memory,
        snapshot: &Snapshot,
        token: &str,
        now: Duration,
    ) -> Result<Principal, AuthError> {
        let remembered = lock(&memory.tokens).of(snapshot.generation).and_then(|found| found.get(token).cloned());
        let lasts = |principal: &Principal| principal.caller().expires().is_none_or(|expires| now < expires);
        if let Some(principal) = remembered.filter(lasts) {
            return Ok(principal);
        }
        let caller = authenticate(snapshot.registry(), &self.keys.tokens, token, now)?;
        let principal = Principal(Arc::new(SignedIn { state: self.client(caller.client()), caller }));
        if let Some(expires) = principal.caller().expires() {
            principal.state().token_lasts_until(expires);
        }
        if let Some(found) = lock(&memory.tokens).of(snapshot.generation) {
            found.put(token, principal.clone());
        }
        Ok(principal)
    }

    /// What is kept for a client now, if the registry is another than when it signed in: it may have been removed since,
    /// and have come again.
    pub(super) fn current_state(&self, principal: &Principal, snapshot: &Snapshot) -> Arc<ClientState> {
        match self.generation() == snapshot.generation {
            true => Arc::clone(principal.state()),
            false => self.client(principal.client()),
        }
    }

    /// Reads the session id that a client sent.
    pub(super) fn session_id(
        &self,
        memory: &Memory,
        principal: &Principal,
        sealed: &str,
        now: Duration,
    ) -> Result<SessionId, NoSession> {
        let remembered = lock(&memory.sessions).get(sealed).copied();
        let id = match remembered {
            Some(id) => id,
            None => {
                let id = SessionId::open(&self.keys.sessions, sealed).ok_or(NoSession)?;
                lock(&memory.sessions).put(sealed, id);
                id
            }
        };
        // SECURITY: an id is worth nothing to another client, even if it was stolen.
        let own = id.principal == principal.state().digest;
        if own && now < ends(&id) { Ok(id) } else { Err(NoSession) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_memo_knows_what_was_put_last_and_nothing_else() {
        let mut memo = Memo::default();
        assert_eq!(memo.get("a"), None);
        for number in 0..10_000 {
            memo.put(&number.to_string(), number);
            assert_eq!(memo.get(&number.to_string()), Some(&number));
        }
        let known = (0..10_000).filter(|number| memo.get(&number.to_string()).is_some()).count();
        assert!((1..=REMEMBERED).contains(&known), "{known}");
        assert_eq!((memo.get(""), memo.get("x")), (None, None));
    }
}
