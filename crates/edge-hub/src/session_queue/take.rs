//! How a connection takes messages from its session's queue: first what is to be sent again, then what waits.

use super::outgoing::{Budget, Copy, Outgoing, Taken};
use super::state::Holder;
use super::{KEPT_MESSAGES, SessionQueue};
use crate::flight::Again;

impl SessionQueue {
    /// Takes what its connection may send now: first what is to be sent again, then what waits.
    pub(crate) fn take(&self, connection: u64, budget: Budget) -> Taken {
        let mut taken = Taken::default();
        let mut inner = self.lock();
        let may_take = |holder: &Holder| holder.number == connection && !holder.is_slow;
        if !inner.holder.as_ref().is_some_and(may_take) {
            return taken;
        }
        let mut flight = self.flight();
        if inner.queue.is_empty() && flight.is_empty() {
            return taken;
        }
        let mut bytes = 0;
        while flight.on_wire() < budget.window && bytes < budget.bytes {
            taken.outgoing.push(match flight.again() {
                Some(Again::Publish(id, delivery)) => {
                    bytes += delivery.message.size();
                    Outgoing::Publish(Copy::of(delivery, id, true))
                }
                Some(Again::Release(id)) => Outgoing::Release(id),
                None => break,
            });
        }
        while bytes < budget.bytes {
            let Some(next) = inner.queue.front() else { break };
            if next.message.expires_ms.is_some() && next.message.is_expired((budget.now_ms)()) {
                taken.expired += 1;
                if let Some(delivery) = inner.pop()
                    && delivery.key != 0
                {
                    taken.expired_keys.push(delivery.key);
                }
                continue;
            }
            if next.qos > 0 && flight.on_wire() >= budget.window {
                break;
            }
            let Some(mut delivery) = inner.pop() else { break };
            bytes += delivery.message.size();
            if delivery.qos == 0 {
                let done = delivery.done.take();
                taken.outgoing.push(Outgoing::Publish(Copy { done, ..Copy::of(&delivery, 0, false) }));
                continue;
            }
            let mut copy = Copy::of(&delivery, 0, delivery.is_again);
            copy.key = delivery.key;
            copy.id = flight.enter(delivery);
            taken.outgoing.push(Outgoing::Publish(copy));
        }
        if inner.queue.is_empty() {
            // An idle client keeps no memory of a busy hour.
            inner.queue.shrink_to(KEPT_MESSAGES);
        }
        if inner.wait.is_some() && !inner.load.reaches(self.full()) {
            self.end_wait(&mut inner);
        }
        taken
    }
}
