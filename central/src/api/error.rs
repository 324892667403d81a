//! Errors in IoT Central's shape: `{"error":{"code","message","requestId","time"}}`.

use axum::Json;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use central_core::access::further::LacksFurther;
use edge_core::error_chain::chain;
use schemas::method::MethodFailure;
use schemas::timestamp::rfc1123;
use serde::Serialize;
use utoipa::ToSchema;

use crate::clock::now_ms;
use crate::commands::module_logs::LogError;
use crate::error::ServiceError;
use crate::people::authority::AuthorityError;
use crate::store::StoreError;

/// Azure clients read the code here when they do not read the body.
const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");

/// What an API handler gives.
pub type Answer<T> = Result<T, ApiError>;

/// An error on its way out.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
}

/// The body of an error.
#[derive(Serialize, ToSchema)]
pub struct ErrorBody {
    /// The error, in the shape of IoT Central.
    error: ErrorDetail,
}

/// An error, for programs and for people.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ErrorDetail {
    /// One word for programs.
    code: &'static str,
    /// For people: what, where, and the next step.
    message: String,
    /// It is in central's log too.
    request_id: String,
    /// RFC 1123, as IoT Central writes it here.
    #[schema(example = "Mon, 23 Nov 2026 16:11:52 GMT")]
    time: String,
}

impl ApiError {
    /// 400 with a code of its own.
    pub fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code, message: message.into() }
    }

    /// 401.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self { status: StatusCode::UNAUTHORIZED, code: "Unauthorized", message: message.into() }
    }

    /// 413.
    pub fn payload_too_large(message: impl Into<String>) -> Self {
        Self { status: StatusCode::PAYLOAD_TOO_LARGE, code: "PayloadTooLarge", message: message.into() }
    }

    /// 429.
    pub fn too_many_requests(message: impl Into<String>) -> Self {
        Self { status: StatusCode::TOO_MANY_REQUESTS, code: "TooManyRequests", message: message.into() }
    }

    /// For people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether a token is missing or not accepted.
    pub fn is_unauthorized(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED
    }

    /// Whether its maker may not ask for it.
    pub fn is_forbidden(&self) -> bool {
        self.status == StatusCode::FORBIDDEN
    }

    /// 403.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self { status: StatusCode::FORBIDDEN, code: "Forbidden", message: message.into() }
    }

    /// 409.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self { status: StatusCode::CONFLICT, code: "Conflict", message: message.into() }
    }

    /// 415.
    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            code: "UnsupportedMediaType",
            message: message.into(),
        }
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, code: "NotFound", message: message.into() }
    }

    /// 405.
    pub fn method_not_allowed() -> Self {
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            code: "MethodNotAllowed",
            message: "this path does not have this method; /openapi.json has those it has".into(),
        }
    }

    /// 500: a fault of central.
    pub fn internal(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            code: "InternalServerError",
            message: message.into(),
        }
    }

    /// 408.
    pub fn timeout(message: impl Into<String>) -> Self {
        Self { status: StatusCode::REQUEST_TIMEOUT, code: "RequestTimeout", message: message.into() }
    }

    /// 422: understood, and wrong.
    pub fn unprocessable(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::UNPROCESSABLE_ENTITY,
            code: "UnprocessableContent",
            message: message.into(),
        }
    }
}

impl From<ServiceError> for ApiError {
    fn from(error: ServiceError) -> Self {
        let message = chain(&error).to_string();
        let (status, code) = match error {
            ServiceError::NotFound(_) => (StatusCode::NOT_FOUND, "NotFound"),
            ServiceError::Conflict(_) => (StatusCode::CONFLICT, "Conflict"),
            ServiceError::PreconditionFailed(_) => (StatusCode::PRECONDITION_FAILED, "PreconditionFailed"),
            ServiceError::Wrong(_) => (StatusCode::UNPROCESSABLE_ENTITY, "UnprocessableContent"),
            ServiceError::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "MessageTooLarge"),
            ServiceError::QueueFull(_) => (StatusCode::FORBIDDEN, "DeviceMaximumQueueDepthExceeded"),
            ServiceError::Forbidden(_) | ServiceError::NotApproved(_) => (StatusCode::FORBIDDEN, "Forbidden"),
            ServiceError::Busy(_) | ServiceError::Store(StoreError::Busy) => {
                (StatusCode::TOO_MANY_REQUESTS, "TooManyRequests")
            }
            ServiceError::Stopping(_) | ServiceError::Store(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable")
            }
        };
        Self { status, code, message }
    }
}

impl From<AuthorityError> for ApiError {
    fn from(error: AuthorityError) -> Self {
        let message = chain(&error).to_string();
        match error {
            AuthorityError::Ended => Self::unauthorized(message),
            AuthorityError::Lost(_) => Self::forbidden(message),
            AuthorityError::Store(error) => error.into(),
        }
    }
}

impl From<LacksFurther> for ApiError {
    fn from(error: LacksFurther) -> Self {
        ServiceError::from(error).into()
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        ServiceError::Store(error).into()
    }
}

impl From<rusqlite::Error> for ApiError {
    fn from(error: rusqlite::Error) -> Self {
        ServiceError::from(error).into()
    }
}

impl From<LogError> for ApiError {
    fn from(error: LogError) -> Self {
        let message = chain(&error).to_string();
        let (status, code) = match error {
            LogError::Service(error) => return Self::from(error),
            LogError::NoAnswer(failure) => return Self::from(&failure),
            LogError::Selection(_) => (StatusCode::BAD_REQUEST, "InvalidQuery"),
            LogError::GatewayAway { .. } => (StatusCode::NOT_FOUND, "DeviceNotConnected"),
            LogError::NoContainer { .. } => (StatusCode::NOT_FOUND, "ModuleHasNoContainer"),
            LogError::Refused { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "GatewayRefused"),
            LogError::Failed { .. } | LogError::Unreadable { .. } => {
                (StatusCode::BAD_GATEWAY, "GatewayFailed")
            }
        };
        Self { status, code, message }
    }
}

impl From<&MethodFailure> for ApiError {
    fn from(failure: &MethodFailure) -> Self {
        let (status, code) = match failure {
            MethodFailure::NotConnected { .. } => (StatusCode::NOT_FOUND, "DeviceNotConnected"),
            MethodFailure::NoAnswer { .. } | MethodFailure::NotReported { .. } => {
                (StatusCode::GATEWAY_TIMEOUT, "NoAnswer")
            }
            MethodFailure::Lost { .. } => (StatusCode::GATEWAY_TIMEOUT, "GatewayLostCommand"),
            MethodFailure::Expired { .. } => (StatusCode::GATEWAY_TIMEOUT, "Expired"),
            MethodFailure::QueueFull { .. } => (StatusCode::FORBIDDEN, "GatewayQueueFull"),
        };
        Self { status, code, message: failure.to_string() }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let request_id = uuid::Uuid::new_v4().to_string();
        if self.status.is_server_error() {
            tracing::error!(request_id, code = self.code, message = self.message, "a request failed");
        }
        let time = rfc1123(now_ms());
        let error = ErrorDetail { code: self.code, message: self.message, request_id, time };
        let code = HeaderValue::from_static(self.code);
        (self.status, [(ERROR_CODE, code)], Json(ErrorBody { error })).into_response()
    }
}
