//! The records that readers have given out and that may be on their way: those do not expire, since they may have arrived.

#[derive(Default)]
pub(crate) struct GivenOut {
    /// By reader, the highest sequence that it gave out and may not have been done with.
    given_out: Vec<(u64, u64)>,
    /// The highest sequence that was given out and may have arrived, though nobody here knows it yet; see
    /// [`LogOptions::unsettled_max`](crate::LogOptions). `None`: readers always know.
    unsettled: Option<u64>,
}

impl GivenOut {
    /// Up to this sequence an earlier run may have given out records. From now on what arrives is known with
    /// [`GivenOut::settle`] only.
    pub(crate) fn doubt(&mut self, highest: u64) {
        self.unsettled = Some(highest);
    }

    /// What was given out and is not done with has not arrived; up to which sequence that may be.
    pub(crate) fn settle(&mut self) -> u64 {
        self.unsettled.as_mut().map_or(0, std::mem::take)
    }

    /// A reader gave out a record.
    pub(crate) fn add(&mut self, reader: u64, sequence: u64) {
        if let Some(unsettled) = &mut self.unsettled {
            *unsettled = (*unsettled).max(sequence);
        }
        match self.given_out.iter_mut().find(|(of, _)| *of == reader) {
            Some((_, highest)) => *highest = (*highest).max(sequence),
            None => self.given_out.push((reader, sequence)),
        }
    }

    /// What a reader gave out above `sequence` is not on its way any more; the highest that it gave out, if any.
    pub(crate) fn take_back(&mut self, reader: u64, sequence: u64, cursor: u64) -> Option<u64> {
        let at = self.given_out.iter().position(|(of, _)| *of == reader)?;
        let highest = self.given_out[at].1;
        if sequence > cursor {
            self.given_out[at].1 = sequence.min(highest)
        } else {
            self.given_out.swap_remove(at);
        }
        Some(highest)
    }

    /// The highest sequence that may have arrived without anybody here knowing it; 0 if there is none.
    pub(crate) fn unsettled(&self) -> u64 {
        self.unsettled.unwrap_or(0)
    }

    /// The highest sequence that may be on its way; 0 if there is none.
    pub(crate) fn highest(&self) -> u64 {
        self.given_out.iter().map(|(_, highest)| *highest).fold(self.unsettled(), u64::max)
    }
}
