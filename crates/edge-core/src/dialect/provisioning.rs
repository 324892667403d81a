//! The provisioning topics: what an enrolling device asks for, and where it is answered. Source: the Azure SDKs on the wire.
//!
//! | topic | from |
//! |---|---|
//! | `$dps/registrations/PUT/iotdps-register/?$rid={id}` | device |
//! | `$dps/registrations/GET/iotdps-get-operationstatus/?$rid={id}&operationId={operation}` | device |
//! | `$dps/registrations/res/{status}/?$rid={id}[&retry-after={seconds}]` | here |

use percent_encoding::percent_decode_str;
use schemas::provisioning::EnrolmentRequest;

use super::query::query_value;

/// Filter for the answers.
pub const RESPONSES: &str = "$dps/registrations/res/#";

/// A question of an enrolling device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Returned in the answer unchanged.
    pub request_id: String,
    /// What it asks for.
    pub request: EnrolmentRequest,
}

/// Reads a topic after its `$dps/`; `None` when it is not one of these.
pub(super) fn parse(rest: &str) -> Option<Request> {
    let (path, query) = rest.strip_prefix("registrations/")?.split_once("/?")?;
    let request_id = query_value(query, "$rid")?;
    let request = match path {
        "PUT/iotdps-register" => EnrolmentRequest::Register,
        "GET/iotdps-get-operationstatus" => {
            let operation_id = query_value(query, "operationId")?;
            EnrolmentRequest::Status {
                operation_id: percent_decode_str(&operation_id).decode_utf8().ok()?.into_owned(),
            }
        }
        _ => return None,
    };
    Some(Request { request_id, request })
}

/// Where a question is answered.
pub fn response_topic(status: u16, request_id: &str, retry_after: Option<u64>) -> String {
    match retry_after {
        None => format!("$dps/registrations/res/{status}/?$rid={request_id}"),
        Some(seconds) => format!("$dps/registrations/res/{status}/?$rid={request_id}&retry-after={seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topics_of_the_azure_sdks_are_understood_and_others_are_not() {
        let request = |text: &str| parse(text);
        assert_eq!(
            request("registrations/PUT/iotdps-register/?$rid=4d2-1"),
            Some(Request { request_id: "4d2-1".into(), request: EnrolmentRequest::Register })
        );
        assert_eq!(
            request("registrations/GET/iotdps-get-operationstatus/?$rid=7&operationId=5.a%2Fb"),
            Some(Request {
                request_id: "7".into(),
                request: EnrolmentRequest::Status { operation_id: "5.a/b".into() }
            })
        );
        for wrong in [
            "registrations/PUT/iotdps-register/",
            "registrations/PUT/iotdps-register/?rid=1",
            "registrations/GET/iotdps-get-operationstatus/?$rid=7",
            "registrations/POST/iotdps-register/?$rid=1",
            "registrations/res/200/?$rid=1",
            "x",
        ] {
            assert_eq!(request(wrong), None, "{wrong}");
        }
        assert_eq!(response_topic(202, "7", Some(3)), "$dps/registrations/res/202/?$rid=7&retry-after=3");
        assert_eq!(response_topic(200, "7", None), "$dps/registrations/res/200/?$rid=7");
    }
}
