//! The messages of one connection to an upstream: which to send now, which are in flight, and which are at fault when
//! upstream does not take them.
//!
//! ```text
//! free ── closed by the server, twice, at the same first message, nothing taken ──► alone
//! alone: one message in flight, and only after the server answered something on this connection
//!   the first is taken ──► and so are those that were in flight with it ──► free
//!   the first ends the connection: it is suspect, and the first message of another sender is tried; in turns
//!     a message is taken, a suspect or not ──► judging, or free when no suspect is left
//!   no other sender has a message, and a suspect ended 3 connections: the message behind it is tried, once for each 3
//!   attempts of the first
//!     it is taken ──► the suspects before it, of its sender, are at fault
//! judging: upstream takes messages of others. Each suspect is sent once more, alone
//!   taken ──► it was the server      ends the connection ──► alone; the second time ──► it is at fault
//! ```
//!
//! So no message overtakes one of its own sender that can still arrive: it waits, or the one before it is at fault. A server
//! that restarts does not answer, or would have to end exactly between an answer and the next one, three times at the same
//! message. A message whose turn never comes because nothing is behind it keeps nobody waiting, and is tried for as long as it
//! takes.

use std::collections::{HashMap, HashSet, VecDeque};

use super::fault_attribution::{self, Ended, Fault};

/// Endings at the same first message that make it be sent alone.
const ENDS: u32 = 2;
/// Suspects at one time. A server that has refused so many in a row takes nothing: only the first is tried then.
const SUSPECTS_MAX: usize = 1000;
/// Proven connections that a suspect must have ended before the message behind it, of its own sender, is tried. A server that
/// answers and takes no message heals most likely at an attempt of the first: so many are made for each of a later one.
const PROVEN_ENDS: u32 = 3;
/// Connections that a suspect must have ended, each after a message of another sender was taken, to be at fault.
const ATTRIBUTED_ENDS: u32 = 2;
/// Refusals that nobody knows the fault of, on one connection at first. Doubled each time they end it.
const REFUSALS: usize = 16;
const REFUSALS_MAX: usize = 4096;
/// Why a message is at fault that never got an answer.
const CLOSES: &str = "the server closes the connection whenever it is sent, and takes others";

/// The messages of one connection, in their order, over all its reconnects.
#[derive(Debug)]
pub struct RetransmitQueue {
    items: VecDeque<Item>,
    in_flight: HashMap<u16, u64>,
    refused: usize,
    refusals_max: usize,
    has_progress: bool,
    /// The server answered on this connection, and nothing was waited for since.
    is_proven: bool,
    /// The last connection ended though the server had answered on it.
    is_careful: bool,
    sends: u64,
    mode: Mode,
}

#[derive(Debug)]
struct Item {
    ticket: u64,
    /// Messages of one sender, whose order holds.
    sender: u64,
    is_repeated: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting,
    InFlight { nth: u64 },
    Refused { nth: u64, why: String },
}

#[derive(Debug)]
enum Mode {
    Free {
        watched: Option<(u64, u32)>,
    },
    Alone {
        suspects: Vec<Suspect>,
        /// Attempts of the first message before another is tried.
        retries: u32,
        careful: usize,
    },
    Attributing {
        /// Those that wait for their verdict.
        left: Vec<Suspect>,
    },
}

/// A message that ended a proven connection.
#[derive(Debug, Clone, Copy)]
struct Suspect {
    ticket: u64,
    /// Proven connections that it ended.
    ends: u32,
    /// Those of them that it ended after a message of another sender was taken.
    attributed: u32,
}

const FREE: Mode = Mode::Free { watched: None };

/// What to send now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextMessage {
    /// As it was pushed.
    pub ticket: u64,
    /// It may have been sent before.
    pub is_repeated: bool,
}

/// What an answer settles.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settled {
    pub taken: Option<u64>,
    /// Upstream will never take these, and why.
    pub guilty: Vec<(u64, String)>,
}

impl Default for RetransmitQueue {
    fn default() -> Self {
        Self {
            items: VecDeque::new(),
            in_flight: HashMap::new(),
            refused: 0,
            refusals_max: REFUSALS,
            has_progress: false,
            is_proven: false,
            is_careful: false,
            sends: 0,
            mode: FREE,
        }
    }
}

impl RetransmitQueue {
    /// Puts a message behind the others. Tickets ascend; `sender` is equal for messages whose order matters; `is_repeated`
    /// when a former run of the program may have sent it.
    pub fn push(&mut self, ticket: u64, sender: u64, is_repeated: bool) {
        debug_assert!(self.items.back().is_none_or(|last| last.ticket < ticket));
        // The connection was idle: the server may have gone since it answered.
        self.is_proven &= !self.in_flight.is_empty();
        self.items.push_back(Item { ticket, sender, is_repeated, state: State::Waiting });
    }

    /// How many are not settled.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether all are settled.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    fn at(&self, ticket: u64) -> Option<usize> {
        self.items.binary_search_by_key(&ticket, |item| item.ticket).ok()
    }

    /// Whether a ping is to be sent, and [`RetransmitQueue::answered`] to be called when it is answered, before anything else is sent:
    /// one message is sent alone, and a server that does not answer says nothing about it.
    pub fn wants_proof(&self) -> bool {
        let is_free = matches!(self.mode, Mode::Free { .. });
        !is_free && !self.is_proven && self.in_flight.is_empty() && !self.items.is_empty()
    }

    /// Whether the last connection was ended by a message that was sent alone, after the server had answered on it: the next
    /// attempt need not wait for the server to come back.
    pub fn is_careful(&self) -> bool {
        self.is_careful
    }

    /// The server answered a ping.
    pub fn answered(&mut self) {
        self.is_proven = true;
    }

    /// The message to send now, when there is one; then comes [`RetransmitQueue::sent`] or [`RetransmitQueue::remove`].
    pub fn next_to_send(&mut self) -> Option<NextMessage> {
        let at = match &mut self.mode {
            // Those that were sent are the first ones.
            Mode::Free { .. } => self.in_flight.len() + self.refused,
            _ if !self.in_flight.is_empty() || self.refused > 0 || !self.is_proven => return None,
            Mode::Alone { suspects, retries, .. } => {
                if *retries > 0 || suspects.is_empty() {
                    0
                } else {
                    other(&self.items, suspects)
                }
            }
            Mode::Attributing { left } => {
                let is_left = |item: &Item| left.iter().any(|suspect| suspect.ticket == item.ticket);
                match self.items.iter().position(is_left) {
                    Some(at) => at,
                    None => {
                        self.mode = FREE;
                        0
                    }
                }
            }
        };
        let item = self.items.get(at)?;
        Some(NextMessage { ticket: item.ticket, is_repeated: item.is_repeated })
    }

    /// Notes that a message was sent.
    pub fn sent(&mut self, ticket: u64, packet_id: u16) {
        let Some(at) = self.at(ticket) else { return };
        self.sends += 1;
        let item = &mut self.items[at];
        item.is_repeated = true;
        item.state = State::InFlight { nth: self.sends };
        self.in_flight.insert(packet_id, ticket);
    }

    /// Takes out a message that will not be sent.
    pub fn remove(&mut self, ticket: u64) {
        if let Some(at) = self.at(ticket) {
            self.items.remove(at);
        }
    }

    /// The message that is in flight under a packet id.
    pub fn ticket(&self, packet_id: u16) -> Option<u64> {
        self.in_flight.get(&packet_id).copied()
    }

    /// Upstream has the message. An unknown packet id changes nothing.
    pub fn acknowledged(&mut self, packet_id: u16) -> Settled {
        let Some(ticket) = self.in_flight.remove(&packet_id) else { return Settled::default() };
        let Some(item) = self.at(ticket).and_then(|at| self.items.remove(at)) else {
            return Settled::default();
        };
        let State::InFlight { nth: taken } = item.state else { return Settled::default() };
        self.has_progress = true;
        self.is_proven = true;
        self.refusals_max = REFUSALS;
        let mut guilty = Vec::new();
        if self.refused > 0 {
            self.items.retain(|item| match &item.state {
                // Only those that were sent before the message that was taken: the server may refuse everything again since then.
                State::Refused { nth, why } if *nth < taken => {
                    guilty.push((item.ticket, why.clone()));
                    false
                }
                _ => true,
            });
            self.refused -= guilty.len();
        }
        guilty.extend(self.was_taken(ticket, item.sender));
        Settled { taken: Some(ticket), guilty }
    }

    /// Gives those that are at fault since a message of their sender, behind them, was taken.
    fn was_taken(&mut self, ticket: u64, sender: u64) -> Vec<(u64, String)> {
        let (suspects, careful) = match std::mem::replace(&mut self.mode, FREE) {
            Mode::Free { .. } => return Vec::new(),
            Mode::Alone { suspects, careful, .. } => (suspects, careful),
            Mode::Attributing { mut left } => {
                left.retain(|suspect| suspect.ticket != ticket);
                if !left.is_empty() {
                    self.mode = Mode::Attributing { left };
                }
                return Vec::new();
            }
        };
        if suspects.is_empty() {
            if careful > 1 {
                self.mode = Mode::Alone { suspects, retries: 1, careful: careful - 1 };
            }
            return Vec::new();
        }
        let overtaken: HashSet<u64> = self
            .items
            .iter()
            .take_while(|item| item.ticket < ticket)
            .filter(|item| item.sender == sender)
            .map(|item| item.ticket)
            .collect();
        let (guilty, left): (Vec<Suspect>, Vec<Suspect>) =
            suspects.into_iter().partition(|suspect| overtaken.contains(&suspect.ticket));
        self.items.retain(|item| !overtaken.contains(&item.ticket));
        let left: Vec<Suspect> = left.into_iter().filter(|suspect| suspect.ticket != ticket).collect();
        if !left.is_empty() {
            self.mode = Mode::Attributing { left };
        }
        guilty.into_iter().map(|suspect| (suspect.ticket, CLOSES.to_owned())).collect()
    }

    /// Upstream refuses the message with the reason code of a PUBACK.
    pub fn refused(&mut self, packet_id: u16, code: u8, why: String) -> Settled {
        let Some(ticket) = self.in_flight.remove(&packet_id) else { return Settled::default() };
        let Some(at) = self.at(ticket) else { return Settled::default() };
        let is_proven = matches!(&self.mode, Mode::Attributing { left } if left.iter().any(|suspect| suspect.ticket == ticket));
        // A message that is sent while the server takes those of others is refused because of itself.
        if is_proven || fault_attribution::of_puback(code) == Fault::Message {
            self.items.remove(at);
            return Settled { taken: None, guilty: vec![(ticket, why)] };
        }
        if let State::InFlight { nth } = self.items[at].state {
            self.items[at].state = State::Refused { nth, why };
            self.refused += 1;
        }
        Settled::default()
    }

    /// Upstream has refused messages and nobody knows whose fault it is: the connection is to be ended, and tried again
    /// later.
    pub fn is_stuck(&self) -> bool {
        let is_idle = self.in_flight.is_empty() && self.items.len() == self.refused;
        let is_alone = !matches!(self.mode, Mode::Free { .. }) && self.in_flight.is_empty();
        self.refused > 0 && (self.refused >= self.refusals_max || is_idle || is_alone)
    }

    fn place(&self, ticket: u64) -> SuspectPosition {
        let Some(at) = self.at(ticket) else { return SuspectPosition::First };
        let sender = self.items[at].sender;
        match self.items.range(..at).any(|item| item.sender == sender) {
            _ if at == 0 => SuspectPosition::First,
            true => SuspectPosition::Behind,
            false => SuspectPosition::OfAnother,
        }
    }

    /// The connection ended. What was in flight waits again; gives the message that is at fault, when one is.
    pub fn ended(&mut self, by: Ended) -> Option<(u64, String)> {
        // The one message that is sent alone: a refusal is as good as a closed connection.
        let is_refused_alone = self.refused > 0 && !matches!(self.mode, Mode::Free { .. });
        let by = if is_refused_alone { Ended::ByServer } else { by };
        let first = self.items.iter().find(|item| match item.state {
            State::InFlight { .. } => true,
            State::Refused { .. } => is_refused_alone,
            State::Waiting => false,
        });
        let first = first.map(|item| item.ticket);
        let in_flight = self.in_flight.len();
        if self.refused >= self.refusals_max {
            self.refusals_max = (self.refusals_max * 2).min(REFUSALS_MAX);
        }
        for item in &mut self.items {
            item.state = State::Waiting;
        }
        self.in_flight.clear();
        self.refused = 0;
        let had_progress = std::mem::take(&mut self.has_progress);
        let was_proven = std::mem::take(&mut self.is_proven);
        self.is_careful = false;
        let (Ended::ByServer, Some(first)) = (by, first) else { return None };
        self.is_careful = was_proven && !matches!(self.mode, Mode::Free { .. });
        let place = self.place(first);
        match &mut self.mode {
            Mode::Free { watched } => {
                let ends = match *watched {
                    Some((ticket, ends)) if ticket == first && !had_progress => ends + 1,
                    _ => 1,
                };
                if ends >= ENDS {
                    self.mode = Mode::Alone { suspects: Vec::new(), retries: 1, careful: in_flight }
                } else {
                    *watched = Some((first, ends))
                }
                None
            }
            Mode::Alone { suspects, retries, .. } => {
                *retries = match place {
                    SuspectPosition::First => retries.saturating_sub(1),
                    SuspectPosition::Behind => PROVEN_ENDS,
                    SuspectPosition::OfAnother => 1,
                };
                let has_space = suspects.len() < SUSPECTS_MAX;
                match suspects.iter_mut().find(|suspect| suspect.ticket == first) {
                    Some(suspect) => suspect.ends += 1,
                    None if has_space => suspects.push(Suspect { ticket: first, ends: 1, attributed: 0 }),
                    None => {}
                }
                None
            }
            Mode::Attributing { left } => {
                let at = left.iter().position(|suspect| suspect.ticket == first)?;
                left[at].ends += 1;
                left[at].attributed += 1;
                if left[at].attributed < ATTRIBUTED_ENDS {
                    // Whether the server takes others is to be seen once more.
                    let suspects = std::mem::take(left);
                    self.mode = Mode::Alone { suspects, retries: 0, careful: 0 };
                    return None;
                }
                left.remove(at);
                if left.is_empty() {
                    self.mode = FREE;
                }
                self.remove(first);
                Some((first, CLOSES.to_owned()))
            }
        }
    }
}

/// Position of a message that was sent alone.
enum SuspectPosition {
    /// It is the first of all.
    First,
    /// Behind others of its own sender.
    Behind,
    /// It is the first of its sender.
    OfAnother,
}

/// Where the message is that is tried instead of the first, in this order:
///
/// 1. the first of a sender without a suspect;
/// 2. a suspect of another sender than the first's, that ended few connections;
/// 3. a message behind suspects of its own sender only, each of which ended enough connections;
/// 4. of the suspects of other senders, the one that ended the fewest; or the first, when there is none.
fn other(items: &VecDeque<Item>, suspects: &[Suspect]) -> usize {
    let ends: HashMap<u64, u32> = suspects.iter().map(|suspect| (suspect.ticket, suspect.ends)).collect();
    // By sender: whether its messages up to here are suspects that may be overtaken.
    let mut senders: HashMap<u64, bool> = HashMap::new();
    let mut behind = None;
    let mut least: Option<(u32, usize)> = None;
    for (at, item) in items.iter().enumerate() {
        let ends = ends.get(&item.ticket).copied();
        let is_first = !senders.contains_key(&item.sender);
        match ends {
            None if is_first => return at,
            Some(ends) if is_first && at > 0 => {
                least = Some(least.map_or((ends, at), |least| least.min((ends, at))))
            }
            _ => {}
        }
        let may_overtake = senders.entry(item.sender).or_insert(true);
        if !is_first && *may_overtake && ends.is_none_or(|ends| ends < PROVEN_ENDS) {
            behind = behind.or(Some(at));
        }
        *may_overtake &= ends.is_some_and(|ends| ends >= PROVEN_ENDS);
    }
    let few = least.filter(|(ends, _)| *ends < PROVEN_ENDS);
    few.map(|(_, at)| at).or(behind).or(least.map(|(_, at)| at)).unwrap_or(0)
}

#[cfg(test)]
mod tests;
