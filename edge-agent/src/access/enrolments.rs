//! Devices that enrol themselves through this gateway: their questions go to central, which alone has the groups' keys.
//!
//! A question lives as long as its device waits for it, so nothing is kept on disk; without central it is answered 503.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use edge_hub::enrolling::Enrolling;
use schemas::names::Identity;
use schemas::provisioning::{Enrolment, EnrolmentAnswer, EnrolmentRequest, RETRY_AFTER_SECS};
use serde_json::{Value, json};
use tokio::sync::{Notify, oneshot};

use crate::access::devices::Devices;

/// How long central may take: less than a client waits for its CONNACK here.
const ANSWER_WITHIN: Duration = Duration::from_secs(8);
/// Questions under way; each device has one, and this many devices may enrol at once.
const WAITING_MAX: usize = 200;
/// Those of devices behind one address.
const OF_ADDRESS_MAX: usize = 50;

#[derive(Default)]
struct Questions {
    is_linked: bool,
    unsent: VecDeque<(String, Enrolment)>,
    waiting: HashMap<String, (oneshot::Sender<EnrolmentAnswer>, IpAddr)>,
}

struct Inner {
    hostname: String,
    devices: Devices,
    enrolling: Enrolling,
    questions: Mutex<Questions>,
    requested: Notify,
}

/// The questions to central. Cheap to clone.
#[derive(Clone)]
pub struct Enrolments(Arc<Inner>);

impl Enrolments {
    /// No questions yet. `hostname` is where devices that enrolled here connect to.
    pub fn new(hostname: String, devices: Devices) -> Self {
        let (enrolling, questions, requested) = (Enrolling::default(), Mutex::default(), Notify::new());
        Self(Arc::new(Inner { hostname, devices, enrolling, questions, requested }))
    }

    fn questions(&self) -> MutexGuard<'_, Questions> {
        self.0.questions.lock().expect("nothing panics while it holds the questions")
    }

    /// Admits a device that enrols itself, if central accepts its proof. Without central it is admitted unproven: it can
    /// only get the answer to try again, and central checks its proof with each request.
    ///
    /// # Errors
    /// Why it is not admitted; true when it may try again.
    pub async fn admit(&self, enrolment: Enrolment, from: IpAddr) -> Result<Identity, (bool, String)> {
        let answer = self.ask(enrolment.clone(), from).await;
        if answer.status != 200 && answer.status != 503 {
            let message = answer.body["message"].as_str().unwrap_or("central refused it").to_owned();
            return Err((false, message));
        }
        let unproven_from = (answer.status != 200).then_some(from);
        self.0
            .enrolling
            .enter(enrolment, unproven_from)
            .ok_or_else(|| (true, "too many devices enrol at once".to_owned()))
    }

    /// A connection ended; true when it was one of a device that enrols.
    pub fn leave(&self, who: &Identity) -> bool {
        self.0.enrolling.leave(who)
    }

    /// Answers a device that enrols itself.
    pub async fn answer(&self, who: &Identity, request: EnrolmentRequest, from: IpAddr) -> EnrolmentAnswer {
        let Some(enrolment) = self.0.enrolling.request_of(who, request) else {
            return EnrolmentAnswer::failure(401, "the registration took too long; connect again");
        };
        let id = enrolment.registration_id.clone();
        let mut answer = self.ask(enrolment, from).await;
        if let Some(state) = answer.body.get_mut("registrationState") {
            if self.0.devices.get(&id).is_none() {
                // central has assigned the device to this gateway, and the update is on its way.
                let body = json!({"operationId": answer.body["operationId"], "status": "assigning"});
                return EnrolmentAnswer { status: 202, retry_after: Some(RETRY_AFTER_SECS), body };
            }
            state["assignedHub"] = Value::from(self.0.hostname.as_str());
        }
        answer
    }

    async fn ask(&self, enrolment: Enrolment, from: IpAddr) -> EnrolmentAnswer {
        let request_id = uuid::Uuid::new_v4().simple().to_string();
        let answered = {
            let mut questions = self.questions();
            if !questions.is_linked {
                return EnrolmentAnswer::later("the gateway has no connection to central; try again");
            }
            if questions.waiting.len() >= WAITING_MAX {
                return EnrolmentAnswer::later("too many devices enrol at once; try again");
            }
            if questions.waiting.values().filter(|(_, of)| *of == from).count() >= OF_ADDRESS_MAX {
                return EnrolmentAnswer::later(
                    "too many devices behind this address enrol at once; try again",
                );
            }
            let (answer, answered) = oneshot::channel();
            questions.waiting.insert(request_id.clone(), (answer, from));
            questions.unsent.push_back((request_id.clone(), enrolment));
            answered
        };
        self.0.requested.notify_one();
        let answer = tokio::time::timeout(ANSWER_WITHIN, answered).await;
        let mut questions = self.questions();
        questions.waiting.remove(&request_id);
        questions.unsent.retain(|(id, _)| *id != request_id);
        match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) | Err(_) => EnrolmentAnswer::later("central did not answer; try again"),
        }
    }

    /// The link is up, or down: then no request is answered any more.
    pub fn linked(&self, is_linked: bool) {
        let mut questions = self.questions();
        questions.is_linked = is_linked;
        questions.unsent.clear();
        questions.waiting.clear();
    }

    /// Waits until there is a question to send. For one waiter.
    pub async fn has_unsent(&self) {
        self.0.requested.notified().await;
    }

    /// Takes the next question.
    pub fn next_unsent(&self) -> Option<(String, Enrolment)> {
        self.questions().unsent.pop_front()
    }

    pub fn answered(&self, request_id: &str, answer: EnrolmentAnswer) {
        if let Some((waiting, _)) = self.questions().waiting.remove(request_id) {
            // The requester may have gone.
            let _ = waiting.send(answer);
        }
    }
}

#[cfg(test)]
mod tests {
    use schemas::link::{Child, Children};

    use super::*;
    use crate::state::State;

    const FROM: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    fn enrolment() -> Enrolment {
        Enrolment {
            id_scope: "0ne".into(),
            registration_id: "press-1".parse().unwrap(),
            token: "t".into(),
            certificates: Vec::new(),
            request: EnrolmentRequest::Prove,
        }
    }

    #[tokio::test]
    async fn a_device_is_assigned_to_this_gateway_once_the_gateway_knows_it_and_has_to_wait_without_central()
    {
        let dir = tempfile::tempdir().unwrap();
        let devices = Devices::load(State::open(dir.path()).unwrap()).unwrap();
        let enrolments = Enrolments::new("gw.local".into(), devices.clone());
        let who = enrolments.admit(enrolment(), FROM).await.unwrap();
        let away = enrolments.answer(&who, EnrolmentRequest::Register, FROM).await;
        assert_eq!((away.status, away.retry_after), (503, Some(RETRY_AFTER_SECS)));

        enrolments.linked(true);
        let assigned = json!({"operationId": "o", "status": "assigned", "registrationState": {"assignedHub": "central"}});
        let central = async |body: Value| {
            enrolments.has_unsent().await;
            let (id, requested) = enrolments.next_unsent().unwrap();
            enrolments.answered(&id, EnrolmentAnswer { status: 200, retry_after: None, body });
            requested.request
        };
        let status = || EnrolmentRequest::Status { operation_id: "o".into() };
        let (answer, requested) =
            tokio::join!(enrolments.answer(&who, status(), FROM), central(assigned.clone()));
        assert_eq!((answer.status, &answer.body["status"], requested), (202, &json!("assigning"), status()));
        let child = Child {
            device_id: "press-1".parse().unwrap(),
            primary_key: "aw==".into(),
            secondary_key: String::new(),
            enabled: true,
            thumbprints: Vec::new(),
            is_ca_signed: false,
            generation: None,
        };
        let list = Children { children: vec![child], ..Children::default() };
        devices.take_list(list).unwrap().durable().await.unwrap();
        let (answer, _) = tokio::join!(enrolments.answer(&who, status(), FROM), central(assigned));
        assert_eq!(
            (answer.status, &answer.body["registrationState"]["assignedHub"]),
            (200, &json!("gw.local"))
        );

        // A question under way when the link is lost.
        let lost = async {
            enrolments.has_unsent().await;
            enrolments.linked(false);
        };
        let (answer, ()) = tokio::join!(enrolments.answer(&who, status(), FROM), lost);
        assert_eq!(answer.status, 503);
        assert!(enrolments.leave(&who));
    }
}
