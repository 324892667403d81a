//! The slots of connections: which one is closed for a newcomer when there are too many.
//!
//! A connection has shown nothing until its request is here, with its body, or is admitted. Of those the first goes that comes first
//! here: of an address from which nothing was admitted lately, without a whole head, of the address that has the most, and the oldest. So half
//! requests keep out those who send them, and nobody who was admitted. A request that is being answered is never closed for others.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::connection_slots::host;

/// How long an address is known after a request of it was admitted.
const KNOWN_FOR: Duration = Duration::from_secs(24 * 3600);
/// Addresses that are known; beyond, the one whose admission is longest ago is forgotten.
const KNOWN_MAX: usize = 4_096;

/// The slots of a listener. Cheap to clone.
#[derive(Clone)]
pub(super) struct Slots(Arc<Inner>);

struct Inner {
    max: usize,
    max_per_address: usize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    next: u64,
    of: HashMap<IpAddr, usize>,
    all: usize,
    /// Those that have shown nothing, by number.
    waiting: HashMap<u64, Waiting>,
    /// When a request of an address was admitted last.
    known: HashMap<IpAddr, Instant>,
}

struct Waiting {
    address: IpAddr,
    has_head: bool,
    close: CancellationToken,
}

impl State {
    fn is_known(&self, address: IpAddr) -> bool {
        self.known.get(&address).is_some_and(|at| at.elapsed() < KNOWN_FOR)
    }

    /// Closes the waiting connection that comes first, of `address` alone or of all. False when none may be closed for a connection of
    /// `newcomer`.
    fn close_one(&mut self, newcomer: IpAddr, only_of: Option<IpAddr>) -> bool {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for waiting in self.waiting.values() {
            *counts.entry(waiting.address).or_default() += 1;
        }
        let rank = |(number, waiting): (&u64, &Waiting)| {
            let count = counts.get(&waiting.address).copied().unwrap_or(0);
            (self.is_known(waiting.address), waiting.has_head, Reverse(count), *number)
        };
        let of = |(_, waiting): &(&u64, &Waiting)| only_of.is_none_or(|only| only == waiting.address);
        let Some((is_known, _, _, first)) = self.waiting.iter().filter(of).map(rank).min() else {
            return false;
        };
        if is_known && !self.is_known(newcomer) {
            return false;
        }
        if let Some(waiting) = self.waiting.remove(&first) {
            waiting.close.cancel();
            // Its slot is the newest connection's now; its own end gives nothing back.
            self.release(waiting.address);
        }
        true
    }

    fn release(&mut self, address: IpAddr) {
        self.all = self.all.saturating_sub(1);
        if let Some(count) = self.of.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.of.remove(&address);
            }
        }
    }

    fn note_known(&mut self, address: IpAddr) {
        if self.known.len() >= KNOWN_MAX && !self.known.contains_key(&address) {
            let oldest = self.known.iter().min_by_key(|(_, at)| **at).map(|(address, _)| *address);
            oldest.map(|oldest| self.known.remove(&oldest));
        }
        self.known.insert(address, Instant::now());
    }
}

impl Slots {
    pub(super) fn new(max: usize, max_per_address: usize) -> Self {
        let (max, max_per_address) = (max.max(1), max_per_address.max(1));
        Self(Arc::new(Inner { max, max_per_address, state: Mutex::default() }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a slot; `None` when all are taken by others that come before it.
    pub(super) fn enter(&self, address: IpAddr) -> Option<Slot> {
        let address = host(address);
        let mut state = self.state();
        let of = state.of.get(&address).copied().unwrap_or(0);
        if of >= self.0.max_per_address && !state.close_one(address, Some(address)) {
            return None;
        }
        if state.all >= self.0.max && !state.close_one(address, None) {
            return None;
        }
        let number = state.next;
        state.next += 1;
        state.all += 1;
        *state.of.entry(address).or_default() += 1;
        let closed = CancellationToken::new();
        state.waiting.insert(number, Waiting { address, has_head: false, close: closed.clone() });
        drop(state);
        Some(Slot { number, address, closed, slots: self.clone() })
    }
}

/// A connection's slot; given back when it is dropped.
pub(super) struct Slot {
    number: u64,
    address: IpAddr,
    /// Cancelled when another connection gets the slot.
    closed: CancellationToken,
    slots: Slots,
}

impl Slot {
    /// Ends when another connection gets the slot.
    pub(super) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    fn has_head(&self) {
        if let Some(waiting) = self.slots.state().waiting.get_mut(&self.number) {
            waiting.has_head = true;
        }
    }

    /// The whole request is here: the connection is not closed in favour of others any more.
    fn note_request(&self) {
        self.slots.state().waiting.remove(&self.number);
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.slots.state();
        state.waiting.remove(&self.number);
        if !self.closed.is_cancelled() {
            state.release(self.address);
        }
    }
}

/// In each request of a TCP listener: whoever lets the request in says so, and the connection is not closed in favour of others any
/// more; its address comes before others from then on.
#[derive(Clone)]
pub struct Proof(Arc<Slot>);

impl Proof {
    pub(super) fn new(slot: Arc<Slot>) -> Self {
        Self(slot)
    }

    /// The request was admitted.
    pub fn is_given(&self) {
        let mut state = self.0.slots.state();
        state.waiting.remove(&self.0.number);
        state.note_known(self.0.address);
    }
}

/// The body of a request, until whose end its connection waits.
pub(super) struct Awaited {
    body: Incoming,
    slot: Arc<Slot>,
}

impl Awaited {
    pub(super) fn new(body: Incoming, slot: Arc<Slot>) -> Self {
        if body.is_end_stream() {
            slot.note_request();
        } else {
            slot.has_head();
        }
        Self { body, slot }
    }
}

impl Body for Awaited {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        if matches!(polled, Poll::Ready(None)) || self.body.is_end_stream() {
            self.slot.note_request();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
