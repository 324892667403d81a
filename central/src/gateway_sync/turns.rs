//! One work after the other for each gateway, so that what one gateway sends ahead does not stand before the works of all others.
//!
//! The writer of the store takes works in the order in which they are handed in. Of a gateway that takes turns, one work at most is
//! with the writer at a time: others wait for that one, however many the gateway has sent.

use std::collections::HashMap;
use std::sync::Mutex;

use schemas::names::DeviceId;
use tokio::sync::oneshot;

/// The last turn of each gateway.
#[derive(Debug, Default)]
pub(super) struct Turns(Mutex<HashMap<DeviceId, oneshot::Receiver<()>>>);

/// A place behind the earlier turns of a gateway. Dropped, it is over.
#[derive(Debug)]
pub(super) struct Turn {
    before: Option<oneshot::Receiver<()>>,
    _over: oneshot::Sender<()>,
}

impl Turns {
    /// The next turn of a gateway. The order is that of the calls.
    pub(super) fn take(&self, gateway: &DeviceId) -> Turn {
        let (over, last) = oneshot::channel();
        let mut turns = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let before = turns.insert(gateway.clone(), last);
        Turn { before, _over: over }
    }
}

impl Turn {
    /// Waits until the turns before are over.
    pub(super) async fn come(&mut self) {
        if let Some(before) = self.before.take() {
            // Nothing is sent: it ends when the turn before is dropped.
            let _ = before.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    #[test]
    fn turns_of_a_gateway_come_in_the_order_in_which_they_were_taken_and_those_of_others_at_once() {
        let (turns, gateway) = (Turns::default(), "gw".parse().unwrap());
        let (mut first, mut second, mut third) =
            (turns.take(&gateway), turns.take(&gateway), turns.take(&gateway));
        assert!(third.come().now_or_never().is_none());
        assert!(first.come().now_or_never().is_some());
        assert!(second.come().now_or_never().is_none());
        assert!(turns.take(&"other".parse().unwrap()).come().now_or_never().is_some());
        drop(first);
        let mut again = turns.take(&gateway);
        assert!(again.come().now_or_never().is_none());
        drop((second, third));
    }
}
