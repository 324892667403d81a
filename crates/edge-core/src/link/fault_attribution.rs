//! Whose fault it is that upstream did not take a message: the message's own, or the line's.
//!
//! A message that upstream will never take must not keep those behind it waiting; a line that is down, or a server that
//! takes nothing at all today, must not send a whole backlog into quarantine. So a message is at fault only when upstream
//! says so as text that mean this message, or when it takes others and not this one:
//!
//! | Upstream | Fault |
//! |---|---|
//! | PUBACK 0x90, 0x95, 0x99; a packet over the server's maximum | the message's |
//! | any other PUBACK of 0x80 and above | the message's, once a message sent after it was taken; until then nobody knows |
//! | closes the connection, twice with the same first message unacknowledged and nothing taken in between | it is sent alone; see [`super::retransmit_queue`] |
//! | the network fails, nothing is heard, the server says that it is busy or stopping | the line's |

/// What a PUBACK that refuses a message says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// This message is never taken.
    Message,
    /// It may be the message, or the server takes nothing now.
    Unclear,
}

/// What the reason code of a PUBACK (MQTT 5.0 table 3-4), 0x80 or above, says.
pub fn of_puback(code: u8) -> Fault {
    match code {
        // Topic name invalid, packet too large, payload format invalid.
        0x90 | 0x95 | 0x99 => Fault::Message,
        // Not authorized may be this topic or all of them; quota exceeded may be this size or this day.
        _ => Fault::Unclear,
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The server closed it, or said in a DISCONNECT that something was wrong with a packet.
    ByServer,
    /// The network, a timeout, or a server that stops or is busy.
    ByLine,
}

/// What the reason code of a server's DISCONNECT (MQTT 5.0 table 3-13) says.
pub fn of_disconnect(code: u8) -> Ended {
    match code {
        // Server busy, shutting down, keep-alive, taken over, rate, administrative action, moved, connection rate,
        // maximum connect time.
        0x00 | 0x88..=0x8b | 0x8d | 0x8e | 0x96 | 0x98 | 0x9c | 0x9d | 0x9f | 0xa0 => Ended::ByLine,
        _ => Ended::ByServer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_reason_about_the_message_faults_it_at_once() {
        for code in [0x90, 0x95, 0x99] {
            assert_eq!(of_puback(code), Fault::Message, "{code:#x}");
        }
        for code in [0x80, 0x83, 0x87, 0x91, 0x97] {
            assert_eq!(of_puback(code), Fault::Unclear, "{code:#x}");
        }
        for code in [0x8b, 0x89, 0x8e] {
            assert_eq!(of_disconnect(code), Ended::ByLine, "{code:#x}");
        }
        for code in [0x81, 0x82, 0x90, 0x95, 0x99, 0x87] {
            assert_eq!(of_disconnect(code), Ended::ByServer, "{code:#x}");
        }
    }
}
