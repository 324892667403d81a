//! Commands from central: each is called once and gets exactly one answer, the target's own or why there is none.
//!
//! Guarantees: a command that comes twice is not run twice. A command that ran when the daemon died is answered
//! "no answer" after its restart, not run again. An answer is kept on disk until central has acknowledged it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use edge_hub::clients::Clients;
use schemas::method::{MethodFailure, MethodRequest, MethodResponse};
use schemas::names::{DeviceId, Identity};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::state::{Room, Saved, State, StateError};

/// Commands that run or whose answers wait for central. Beyond it a command is answered "not connected" at once.
const JOURNAL_MAX: usize = 1000;

/// What the target answered, or why there is no answer.
pub type Answer = Result<MethodResponse, MethodFailure>;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Entry {
    Running { target: String, seconds: u64 },
    Answered { answer: Answer },
}

enum Entered {
    New(Saved),
    Known,
    Full,
}

/// The journal of commands. Cheap to clone.
#[derive(Clone)]
pub struct Commands {
    gateway: DeviceId,
    journal: Arc<Mutex<BTreeMap<String, Entry>>>,
    unsent: Arc<Mutex<Vec<String>>>,
    answered: Arc<Notify>,
    clients: Clients,
    state: State,
}

impl Commands {
    /// The journal as last saved. What ran then has no answer now.
    ///
    /// # Errors
    /// [`StateError::Value`] when it cannot be read.
    pub fn load(state: State, clients: Clients, gateway: DeviceId) -> Result<Self, StateError> {
        let commands = Self {
            gateway,
            journal: Arc::default(),
            unsent: Arc::default(),
            answered: Arc::default(),
            clients,
            state: state.clone(),
        };
        for (id, entry) in state.load::<Entry>(Room::Commands)? {
            match entry {
                Entry::Running { target, seconds } => {
                    tracing::warn!(
                        command = id,
                        target,
                        "a command ran when the daemon ended; it has no answer"
                    );
                    commands.answer(&id, Err(MethodFailure::NoAnswer { target, seconds })).later();
                }
                Entry::Answered { .. } => {
                    commands.journal().insert(id, entry);
                }
            }
        }
        commands.all_unsent();
        Ok(commands)
    }

    fn journal(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.journal.lock().expect("nothing panics while it holds the journal")
    }

    fn unsent(&self) -> MutexGuard<'_, Vec<String>> {
        self.unsent.lock().expect("nothing panics while it holds the list")
    }

    /// Takes a command from central. `Ok` when it is journaled: it may be acknowledged then.
    ///
    /// # Errors
    /// [`StateError`] when the journal was not saved; nothing was called.
    pub async fn take(&self, id: String, target: Identity, request: MethodRequest) -> Result<(), StateError> {
        let seconds = request.connect_timeout_in_seconds + request.response_timeout_in_seconds;
        let saved = match self.enter(&id, &target, seconds) {
            Entered::New(saved) => saved,
            Entered::Known => return Ok(()),
            Entered::Full => {
                tracing::error!(
                    command = id,
                    "{JOURNAL_MAX} commands are under way already; this one was not run"
                );
                let answer = Err(MethodFailure::NotConnected { target: target.to_string() });
                return self.answer(&id, answer).durable().await;
            }
        };
        if let Err(error) = saved.durable().await {
            self.journal().remove(&id);
            return Err(error);
        }
        // Bounded: the deadline of the request ends it, and the journal's length bounds their number.
        let commands = self.clone();
        tokio::spawn(async move {
            let answer = commands.call(&target, &request).await;
            match &answer {
                Ok(response) => {
                    tracing::info!(command = id, %target, method = request.method_name, status = response.status, "command answered")
                }
                Err(failure) => {
                    tracing::warn!(command = id, %target, method = request.method_name, %failure, "command failed")
                }
            }
            commands.answer(&id, answer).later();
        });
        Ok(())
    }

    /// Notes a command in the journal, if it is new. One that has its answer already is answered again.
    fn enter(&self, id: &str, target: &Identity, seconds: u64) -> Entered {
        let mut journal = self.journal();
        match journal.get(id) {
            Some(Entry::Running { .. }) => Entered::Known,
            Some(Entry::Answered { .. }) => {
                self.unsent().push(id.to_owned());
                self.answered.notify_one();
                Entered::Known
            }
            None if journal.len() >= JOURNAL_MAX => Entered::Full,
            None => {
                let running = Entry::Running { target: target.to_string(), seconds };
                let saved = self.state.put(Room::Commands, id, &running);
                journal.insert(id.to_owned(), running);
                Entered::New(saved)
            }
        }
    }

    /// Calls a method of a module, a leaf device, or the daemon itself (`$edgeAgent`).
    ///
    /// # Errors
    /// [`MethodFailure`] when the target gave no answer.
    pub async fn call(&self, target: &Identity, request: &MethodRequest) -> Answer {
        let is_daemon = target.device == self.gateway
            && target.module.as_ref().is_none_or(|module| *module == schemas::names::ModuleId::edge_agent());
        if is_daemon {
            // Source: IoT Edge, built-in direct methods of edgeAgent; `ping` answers with nothing.
            return Ok(match request.method_name.as_str() {
                "ping" => MethodResponse { status: 200, payload: serde_json::Value::Null },
                other => MethodResponse {
                    status: 404,
                    payload: serde_json::json!({"message": format!("method `{other}`: the gateway knows `ping`")}),
                },
            });
        }
        self.clients.call(target, request).await
    }

    fn answer(&self, id: &str, answer: Answer) -> Saved {
        let entry = Entry::Answered { answer };
        let saved = self.state.put(Room::Commands, id, &entry);
        self.journal().insert(id.to_owned(), entry);
        self.unsent().push(id.to_owned());
        self.answered.notify_one();
        saved
    }

    /// Marks every answer as not sent: a new link tells central again.
    pub fn all_unsent(&self) {
        let answered: Vec<String> = self
            .journal()
            .iter()
            .filter(|(_, entry)| matches!(entry, Entry::Answered { .. }))
            .map(|(id, _)| id.clone())
            .collect();
        *self.unsent() = answered;
        self.answered.notify_one();
    }

    /// Waits until there is an answer to send. For one waiter.
    pub async fn has_unsent(&self) {
        self.answered.notified().await;
    }

    /// Takes the next answer that central does not have.
    pub fn next_unsent(&self) -> Option<(String, Answer)> {
        let id = self.unsent().pop()?;
        match self.journal().get(&id) {
            Some(Entry::Answered { answer }) => Some((id, answer.clone())),
            _ => None,
        }
    }

    /// central has the answer: it is forgotten here.
    pub fn acknowledged(&self, id: &str) {
        self.journal().remove(id);
        self.state.remove(Room::Commands, id).later();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str) -> MethodRequest {
        MethodRequest {
            method_name: method.to_owned(),
            payload: serde_json::Value::Null,
            response_timeout_in_seconds: 5,
            connect_timeout_in_seconds: 0,
        }
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
        let gateway: DeviceId = "gw".parse().unwrap();
        let state = State::open(dir.path()).unwrap();
        let commands = Commands::load(state.clone(), Clients::new(), gateway.clone()).unwrap();
        commands.take("1".into(), "gw/$edgeAgent".parse().unwrap(), request("ping")).await.unwrap();
        let (id, answer) = next(&commands).await;
        assert_eq!((id.as_str(), answer.unwrap().status), ("1", 200));
        commands.take("2".into(), "gw/away".parse().unwrap(), request("reset")).await.unwrap();
        assert!(matches!(next(&commands).await.1, Err(MethodFailure::NotConnected { .. })));
        commands.acknowledged("2");
        drop(commands);
        state.close().await;

        let state = State::open(dir.path()).unwrap();
        let commands = Commands::load(state.clone(), Clients::new(), gateway).unwrap();
        assert_eq!(next(&commands).await.0, "1");
        assert!(commands.next_unsent().is_none());
        // Repeated: answered from the journal. `gw/away` would be NotConnected if it were called.
        commands.take("1".into(), "gw/away".parse().unwrap(), request("ping")).await.unwrap();
        assert_eq!(next(&commands).await.1.unwrap().status, 200);
        commands.acknowledged("1");
        commands.all_unsent();
        assert!(commands.next_unsent().is_none());
    }

    #[tokio::test]
    async fn a_command_that_ran_when_the_daemon_died_has_no_answer_and_is_not_run_again() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path()).unwrap();
        let running = Entry::Running { target: "gw/filter".into(), seconds: 30 };
        state.put(Room::Commands, "7", &running).durable().await.unwrap();
        state.close().await;
        let state = State::open(dir.path()).unwrap();
        let commands = Commands::load(state, Clients::new(), "gw".parse().unwrap()).unwrap();
        let (id, answer) = next(&commands).await;
        assert_eq!(id, "7");
        assert_eq!(answer, Err(MethodFailure::NoAnswer { target: "gw/filter".into(), seconds: 30 }));
    }
}
