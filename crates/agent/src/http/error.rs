//! How a failure becomes an HTTP answer. Server and agent share it, so a caller sees one form.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use sandcrab_api::ApiError;
use std::collections::BTreeMap;
use utoipa::openapi::{Ref, RefOr, ResponseBuilder, content::ContentBuilder};

/// A refused request: the answer is the [`ApiError`] with its own status.
#[derive(Debug)]
pub struct Refusal(pub ApiError);

/// What a handler returns.
pub type Answer<T> = Result<T, Refusal>;

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.http_status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.0.context.get("retryAfter").and_then(serde_json::Value::as_u64);
        let allow = self.0.context.get("allow").and_then(|allow| HeaderValue::from_str(allow.as_str()?).ok());
        let mut response = (status, axum::Json(self.0)).into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(methods) = allow {
            response.headers_mut().insert(header::ALLOW, methods);
        }
        response
    }
}

/// The statuses that any route of the agent may answer with besides its own, for the API document.
///
/// One set serves all routes: which codes a method can meet depends on what the sandbox's disk and shell do, and the
/// server lets no other status through.
pub struct Errors;

/// Every status of [`Errors`] with its heading.
pub const ERROR_STATUSES: [(u16, &str); 13] = [
    (400, "The request cannot be right; the message names the field"),
    (403, "Not allowed in the sandbox"),
    (404, "Not found"),
    (408, "The command ran into its timeout and was killed"),
    (409, "Clashes with what is there, or busy"),
    (410, "The session is gone"),
    (413, "Too large"),
    (415, "The body is not application/json"),
    (429, "A limit is reached"),
    (500, "It failed"),
    (501, "The image lacks what this needs"),
    (503, "Not ready yet; try again"),
    (507, "The sandbox's disk is full"),
];

/// A documented answer whose body is an [`ApiError`].
pub fn error_response(description: &str) -> utoipa::openapi::Response {
    let schema = Ref::from_schema_name("ApiError");
    ResponseBuilder::new()
        .description(description)
        .content(
            "application/json",
            ContentBuilder::new().schema(Some(RefOr::<utoipa::openapi::Schema>::Ref(schema))).build(),
        )
        .build()
}

impl utoipa::IntoResponses for Errors {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        ERROR_STATUSES
            .iter()
            .map(|(status, text)| (status.to_string(), error_response(text).into()))
            .collect()
    }
}
