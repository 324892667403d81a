//! What a gateway reports of many clients, or of many losses, costs the writer little for each, whomever it names.

use schemas::link::Loss;

use super::*;
use crate::new_device::new_device;
use crate::store::derived_tests::Counted;

/// Steps of SQLite's virtual machine for a list. A look at all sums for each loss takes a hundred times as many.
const STEPS_MAX: u64 = 1_000_000;

fn with_gateway() -> Counted {
    let counted = Counted::open();
    let mut gateway = new_device("gw".parse().unwrap());
    (gateway.is_gateway, gateway.revision) = (true, 1);
    devices::put(&counted.connection, &gateway).unwrap();
    counted
}

#[test]
fn presence_of_modules_that_a_gateway_makes_up_is_queried_once() {
    let counted = with_gateway();
    let clients: Vec<ClientPresence> = (0..1500)
        .map(|n| ClientPresence {
            identity: format!("gw/made-up-{n}").parse::<Identity>().unwrap(),
            is_connected: true,
            since_ms: 1,
            generation: None,
        })
        .collect();
    let mut known = 0;
    let steps =
        counted.steps(|c| known = known_clients(c, &"gw".parse().unwrap(), clients, 1).unwrap().len());
    assert_eq!(known, 1500);
    assert!(steps < 1500 * 5, "{steps}");
}

#[test]
fn losses_of_senders_that_a_gateway_makes_up_cost_the_same_however_many_it_has_reported() {
    let counted = with_gateway();
    let gateway = "gw".parse().unwrap();
    let mut most = 0;
    for list in 0..20 {
        let losses = (1..=1500)
            .map(|n| Loss {
                number: list * 1500 + n,
                cause: "dropped".into(),
                sender: format!("gw/made-up-{list}-{n}"),
                generation: None,
                first: 1,
                last: 1,
                count: 1,
                from_ms: 1,
                until_ms: 2,
            })
            .collect();
        let mut report = Losses { queue: "q".into(), name: "upstream".into(), losses };
        most = most.max(counted.steps(|c| {
            check_senders(c, &gateway, &mut report).unwrap();
            assert!(losses::insert(c, &gateway, &report, 1).unwrap());
        }));
    }
    assert!(most < STEPS_MAX, "{most}");
}
