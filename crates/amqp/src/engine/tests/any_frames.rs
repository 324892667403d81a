//! Whatever frames come, the engine ends with no panic, within its limits, and says the same however they are cut.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::codec::definitions::Role;
use crate::codec::delivery_state::DeliveryState;
use crate::codec::frame::{self, FrameKind, Protocol};
use crate::codec::performative::{
    Attach, Begin, Close, Detach, Disposition, End, Flow, Open, Performative, Transfer,
};
use crate::codec::sasl::Code;
use crate::engine::connection::{Connection, Outgoing};
use crate::engine::event::Event;
use crate::engine::settings::Settings;

/// An application that takes everything.
fn answer(connection: &mut Connection, event: &Event) {
    match event {
        Event::Authenticate(_) => connection.authenticated(Code::Ok),
        Event::Attach(link, attach) if attach.name.len() % 5 == 4 => {
            let error = crate::codec::definitions::AmqpError::default();
            connection.refuse(*link, error);
        }
        Event::Attach(link, attach) => {
            connection.accept(*link, Attach { max_message_size: Some(100), ..(**attach).clone() });
            connection.grant(*link, 3);
        }
        Event::Credit { link, is_drain, .. } => {
            for _ in 0..3 {
                let payload = Bytes::from_static(&[7; 700]);
                let _ = connection
                    .send(*link, Outgoing { tag: Bytes::from_static(b"t"), payload, is_settled: false });
            }
            if *is_drain {
                connection.drained(*link);
            }
        }
        Event::Delivery(delivery) => {
            connection.settle(delivery.id, DeliveryState::Accepted);
            connection.grant(delivery.id.link, 2);
        }
        Event::Outcome { delivery, state, is_settled: false } => {
            connection.settle(*delivery, state.clone().unwrap_or(DeliveryState::Accepted));
        }
        Event::Opened(_) | Event::Outcome { .. } | Event::Detached(..) | Event::Closed(_) => {}
    }
}

/// Gives the engine a stream in pieces. Returns all that it said.
fn run<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> (Vec<Event>, BytesMut) {
    let settings = Settings {
        sessions_max: 3,
        session_links_max: 3,
        links_max: 5,
        session_window: 8,
        session_unsettled_max: 4,
        partial_bytes_max: 150,
        ..Settings::default()
    };
    let now = Instant::now();
    let mut connection = Connection::new(Arc::new(settings), now);
    connection.trust();
    let (mut buffer, mut events, mut output) = (BytesMut::new(), Vec::new(), BytesMut::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        while let Some(event) = connection.receive(now, &mut buffer) {
            answer(&mut connection, &event);
            events.push(event);
            // Written after each event, whatever the pieces are: outcomes go together until then.
            output.extend_from_slice(&connection.output(now));
        }
    }
    output.extend_from_slice(&connection.output(now));
    (events, output)
}

/// Small numbers, so that frames refer to each other.
fn performative() -> impl Strategy<Value = Performative> {
    let number = 0u32..3;
    let role = prop_oneof![Just(Role::Sender), Just(Role::Receiver)];
    let payload = vec(any::<u8>(), 0..60).prop_map(Bytes::from);
    let flags = (any::<bool>(), any::<bool>(), prop::bool::weighted(0.1), prop::bool::weighted(0.02));
    let transfer = (number.clone(), prop::option::of(0u32..40), flags, payload).prop_map(
        |(handle, delivery_id, (settled, more, aborted, resume), payload)| {
            let transfer = Transfer {
                handle,
                delivery_id,
                delivery_tag: delivery_id.map(|_| Bytes::from_static(b"tag")),
                settled: Some(settled),
                more,
                aborted,
                resume,
                ..Transfer::default()
            };
            Performative::Transfer(transfer, payload)
        },
    );
    let attach = (number.clone(), role.clone(), 0usize..9).prop_map(|(handle, role, length)| {
        Performative::Attach(Box::new(Attach { name: "n".repeat(length), handle, role, ..Attach::default() }))
    });
    let counts = (0u32..9, 0u32..9, prop::option::of(0u32..9), prop::option::of(0u32..9));
    let flow = (prop::option::of(number.clone()), counts, any::<bool>(), any::<bool>()).prop_map(
        |(handle, (next, window, delivery_count, link_credit), drain, echo)| {
            Performative::Flow(Box::new(Flow {
                next_incoming_id: Some(next),
                incoming_window: window,
                handle,
                delivery_count,
                link_credit,
                drain,
                echo,
                ..Flow::default()
            }))
        },
    );
    let disposition = (role, 0u32..9, prop::option::of(0u32..12), any::<bool>()).prop_map(
        |(role, first, last, settled)| {
            let state = Some(DeliveryState::Accepted);
            Performative::Disposition(Disposition { role, first, last, settled, state, batchable: false })
        },
    );
    // What ends the whole session or connection is rare, so that the others come far.
    prop_oneof![
        80 => transfer,
        50 => attach,
        30 => flow,
        20 => disposition,
        30 => number.prop_map(|handle| Performative::Detach(Detach { handle, ..Detach::default() })),
        3 => Just(Performative::End(End::default())),
        1 => Just(Performative::Begin(Box::new(Begin { incoming_window: 5, ..Begin::default() }))),
    ]
}

prop_compose! {
    /// A connection with sessions, and frames of any order on them.
    fn stream()(
        frames in vec((prop_oneof![8 => Just(0u16), 1 => 1u16..3], performative()), 0..60),
        is_closed in any::<bool>(),
    ) -> BytesMut {
        let mut stream = BytesMut::from(&Protocol::Amqp.header()[..]);
        let mut write = |channel, performative: &Performative| {
            frame::write(&mut stream, FrameKind::Amqp, channel, |out| performative.write(out));
        };
        write(0, &Performative::Open(Box::new(Open { max_frame_size: 512, ..Open::default() })));
        for channel in 0..3 {
            write(channel, &Performative::Begin(Box::new(Begin { incoming_window: 5, ..Begin::default() })));
        }
        for (handle, role) in [(0, Role::Sender), (1, Role::Sender), (2, Role::Receiver)] {
            let name = handle.to_string();
            write(0, &Performative::Attach(Box::new(Attach { name, handle, role, ..Attach::default() })));
        }
        // Nearly all deliveries have the number that is next: others end their session.
        let mut next = [0; 3];
        for (channel, mut performative) in frames {
            if let Performative::Transfer(Transfer { delivery_id: Some(number), .. }, _) = &mut performative
                && *number < 38
            {
                *number = next[usize::from(channel)];
                next[usize::from(channel)] += 1;
            }
            write(channel, &performative);
        }
        if is_closed {
            write(0, &Performative::Close(Close::default()));
        }
        stream
    }
}

proptest! {
    #[test]
    fn any_order_of_frames_means_the_same_wherever_it_is_cut(
        stream in stream(),
        cuts in vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let whole = run([&stream[..]]);
        let closed = whole.0.iter().filter(|event| matches!(event, Event::Closed(_))).count();
        prop_assert!(closed <= 1, "closed {closed} times");
        prop_assert_eq!(&run(stream.chunks(1)), &whole);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len())).collect();
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        prop_assert_eq!(&run(cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]])), &whole);
    }

    #[test]
    fn changed_bytes_of_a_connection_break_nothing(
        stream in stream(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut stream = stream;
        for (at, byte) in changes {
            let at = at.index(stream.len());
            stream[at] = byte;
        }
        run([&stream[..]]);
    }
}
