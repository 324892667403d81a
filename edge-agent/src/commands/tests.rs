//! The journal over restarts, on a state of its own.

use super::journal::Entry;
use super::*;
use crate::deployment::restart_requests::RestartRequests;
use crate::diagnostics::log_reader::LogReader;
use crate::diagnostics::uploads::Uploads;
use crate::state::Namespace;

fn request(method: &str) -> MethodRequest {
    MethodRequest {
        method_name: method.to_owned(),
        payload: serde_json::Value::Null,
        response_timeout_in_seconds: 5,
        connect_timeout_in_seconds: 0,
    }
}

fn now(method: &str) -> CommandDown {
    CommandDown { request: request(method), valid_for_in_seconds: None }
}

fn waiting(method: &str, seconds: u64) -> CommandDown {
    CommandDown { request: request(method), valid_for_in_seconds: Some(seconds) }
}

/// The commands of the gateway `gw`, at which no module can be restarted.
fn load(state: State) -> Commands {
    let daemon = DaemonMethods::new(
        RestartRequests::channel().0,
        LogReader::without_containers(),
        Uploads::without_containers(),
    );
    Commands::load(state, Clients::new(), "gw".parse().unwrap(), daemon).unwrap()
}

async fn next(commands: &Commands) -> (String, Answer) {
    loop {
        commands.has_unsent().await;
        if let Some(next) = commands.next_unsent() {
            return next;
        }
    }
}

#[tokio::test]
async fn an_answer_is_kept_over_a_restart_until_central_has_it_and_a_repeated_command_is_not_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path()).unwrap();
    let commands = load(state.clone());
    commands.take("1".into(), "gw/$edgeAgent".parse().unwrap(), now("ping"), || true).await.unwrap();
    let (id, answer) = next(&commands).await;
    assert_eq!((id.as_str(), answer.unwrap().status), ("1", 200));
    commands.take("2".into(), "gw/away".parse().unwrap(), now("reset"), || true).await.unwrap();
    assert!(matches!(next(&commands).await.1, Err(MethodFailure::NotConnected { .. })));
    commands.acknowledged("2");
    drop(commands);
    state.close().await;

    let state = State::open(dir.path()).unwrap();
    let commands = load(state.clone());
    assert_eq!(next(&commands).await.0, "1");
    assert!(commands.next_unsent().is_none());
    // Repeated: answered from the journal. `gw/away` would be NotConnected if it were called.
    commands.take("1".into(), "gw/away".parse().unwrap(), now("ping"), || true).await.unwrap();
    assert_eq!(next(&commands).await.1.unwrap().status, 200);
    commands.acknowledged("1");
    commands.all_unsent();
    assert!(commands.next_unsent().is_none());
}

#[tokio::test]
async fn a_command_that_ran_when_the_daemon_died_has_no_answer_and_is_not_run_again() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path()).unwrap();
    let running = Entry::Running { target: "gw/filter".into(), seconds: 30, has_waited: false };
    state.put(Namespace::Commands, "7", &running).durable().await.unwrap();
    state.close().await;
    let state = State::open(dir.path()).unwrap();
    let commands = load(state);
    let (id, answer) = next(&commands).await;
    assert_eq!(id, "7");
    assert_eq!(answer, Err(MethodFailure::NoAnswer { target: "gw/filter".into(), seconds: 30 }));
}

#[tokio::test]
async fn a_command_that_waits_is_there_after_a_restart_and_ends_when_it_is_valid_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path()).unwrap();
    let commands = load(state.clone());
    commands.take("1".into(), "leaf".parse().unwrap(), waiting("reset", 1), || true).await.unwrap();
    commands.take("2".into(), "gone".parse().unwrap(), waiting("reset", 3600), || true).await.unwrap();
    commands.take("2".into(), "gone".parse().unwrap(), waiting("reset", 3600), || true).await.unwrap();
    assert!(commands.next_unsent().is_none());
    commands.close().await;
    drop(commands);
    state.close().await;

    let state = State::open(dir.path()).unwrap();
    let commands = load(state.clone());
    let stop = CancellationToken::new();
    let expiring = tokio::spawn({
        let (commands, stop) = (commands.clone(), stop.clone());
        async move { commands.expire(stop).await }
    });
    let (id, answer) = next(&commands).await;
    assert_eq!(
        (id.as_str(), answer),
        ("1", Err(MethodFailure::Expired { target: "leaf".into(), seconds: 1 }))
    );
    assert!(commands.next_unsent().is_none(), "the other one was known, and waits");
    // Its device does not stand behind this gateway any more.
    commands.forget(&Removed::from_iter(["gone".parse().unwrap()])).await.unwrap();
    let (id, answer) = next(&commands).await;
    assert_eq!((id.as_str(), answer), ("2", Err(MethodFailure::NotConnected { target: "gone".into() })));
    stop.cancel();
    expiring.await.unwrap();
}

/// Of each state in which this gateway can know a command, and of one that it does not know.
#[tokio::test]
async fn what_central_says_was_taken_and_is_not_known_here_is_reported_as_lost_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path()).unwrap();
    let (mut journal, _) = Journal::load(state.clone(), 0).unwrap();
    let target: Identity = "gw/filter".parse().unwrap();
    let failed = || Err(MethodFailure::NoAnswer { target: "gw/filter".into(), seconds: 5 });
    for id in ["running", "waiting", "answered", "acknowledged"] {
        journal.enter_waiting(id, &target, &request("reset"), 60, 0);
    }
    for id in ["answered", "acknowledged"] {
        journal.answer(id, failed()).later();
    }
    // Now, or it would be forgotten at the start.
    journal.note_acknowledged("acknowledged", crate::clock::steady_ms());
    assert_eq!(journal.begin(&target, |_| true).unwrap().0, "running");
    drop(journal);
    state.close().await;
    let commands = load(State::open(dir.path()).unwrap());
    while commands.next_unsent().is_some() {}
    let all = ["running", "waiting", "answered", "acknowledged", "gone"];
    let taken = || TakenCommands { commands: all.map(|id| (id.to_owned(), target.clone())).into() };
    commands.report_lost(taken()).await.unwrap();
    let lost = Err(MethodFailure::Lost { target: target.to_string() });
    assert_eq!(commands.next_unsent(), Some(("gone".to_owned(), lost)));
    assert_eq!(commands.next_unsent(), None);
    commands.acknowledged("gone");
    commands.report_lost(taken()).await.unwrap();
    assert_eq!(commands.next_unsent(), None, "it is known that it was reported");
}

/// A central that was restored from a backup has it waiting still.
#[tokio::test]
async fn a_command_that_waited_is_not_run_again_as_long_as_it_may_be_sent_again() {
    const HOUR_MS: u64 = 3600 * 1000;
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path()).unwrap();
    let (mut journal, _) = Journal::load(state.clone(), 0).unwrap();
    let target = "gw/filter".parse().unwrap();
    for (id, has_waited) in [("live", false), ("waited", true)] {
        if has_waited {
            journal.enter_waiting(id, &target, &request("reset"), 7 * 24 * 3600, 0);
            journal.begin(&target, |_| true).unwrap().2.later();
        } else {
            journal.enter_running(id, &target, &request("reset"));
        }
        journal.answer(id, Err(MethodFailure::NoAnswer { target: "gw/filter".into(), seconds: 5 })).later();
        journal.note_acknowledged(id, 0);
    }
    drop(journal);
    state.close().await;
    for (hours, known) in
        [(0, [true, true]), (2, [false, true]), (7 * 24, [false, true]), (9 * 24, [false, false])]
    {
        let state = State::open(dir.path()).unwrap();
        let (mut journal, _) = Journal::load(state.clone(), hours * HOUR_MS).unwrap();
        let is_known = ["live", "waited"].map(|id| matches!(journal.known(id), Some(Entered::Known)));
        assert_eq!(is_known, known, "after {hours} hours");
        drop(journal);
        state.close().await;
    }
}

#[tokio::test]
async fn what_waits_for_the_daemon_runs_at_once_and_a_copy_that_comes_after_its_end_does_not_run() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path()).unwrap();
    let commands = load(state);
    for id in ["1", "2"] {
        commands.take(id.into(), "gw".parse().unwrap(), waiting("ping", 60), || true).await.unwrap();
        let (answered, answer) = next(&commands).await;
        assert_eq!((answered.as_str(), answer.unwrap().status), (id, 200));
        commands.acknowledged(id);
    }
    commands.take("1".into(), "gw".parse().unwrap(), waiting("ping", 60), || true).await.unwrap();
    commands.close().await;
    assert!(commands.next_unsent().is_none());
}

#[tokio::test]
async fn the_journal_keeps_a_thousand_that_wait_and_runs_others_beside_them() {
    let dir = tempfile::tempdir().unwrap();
    let state = State::open(dir.path()).unwrap();
    let commands = load(state);
    let taken: Vec<_> = (0..1000)
        .map(|n| commands.take(n.to_string(), "leaf".parse().unwrap(), waiting("reset", 60), || true))
        .collect();
    futures_util::future::try_join_all(taken).await.unwrap();
    assert!(commands.next_unsent().is_none());
    commands.take("one more".into(), "leaf".parse().unwrap(), waiting("reset", 60), || true).await.unwrap();
    assert_eq!(next(&commands).await.1, Err(MethodFailure::QueueFull { target: "leaf".into(), most: 1000 }));
    commands.take("now".into(), "gw".parse().unwrap(), now("ping"), || true).await.unwrap();
    assert_eq!(next(&commands).await.1.unwrap().status, 200);
}
