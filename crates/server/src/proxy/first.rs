//! The request that makes its sandbox.

use super::Route;
use super::body::Upload;
use axum::body::Body;
use bytes::Bytes;
use http::Request;
use http_body::Body as _;
use http_body_util::{BodyExt, Limited};
use sandcrab_agent::http::check;
use sandcrab_agent::http::extract::unreadable_body;
use sandcrab_api::{ApiError, limits};
use tokio::sync::Semaphore;

/// A body of so many bytes is gathered in any case: a connection may hold as many unread.
const SMALL: u64 = 256 << 10;
/// How many longer ones are gathered at a time.
const LARGE: usize = 8;

/// Looks through requests whose sandbox is not there yet: bad input makes none (contract X02).
#[derive(Debug)]
pub(crate) struct FirstUse {
    large: Semaphore,
}

impl Default for FirstUse {
    fn default() -> Self {
        Self { large: Semaphore::new(LARGE) }
    }
}

impl FirstUse {
    /// Gives back the request if its sandbox may be made. While too many long bodies are gathered already, one is left
    /// to the agent, which finds the same, in a sandbox that is there by then.
    pub(super) async fn examine(
        &self,
        route: &Route,
        request: Request<Upload>,
    ) -> Result<Request<Upload>, ApiError> {
        let (head, body) = request.into_parts();
        if !route.takes_json {
            check(&route.operation, &Request::from_parts(head.clone(), Bytes::new()))?;
            return Ok(Request::from_parts(head, body));
        }
        let is_small = body.size_hint().upper().is_some_and(|length| length <= SMALL);
        let room = if is_small { None } else { self.large.try_acquire().ok() };
        if !is_small && room.is_none() {
            return Ok(Request::from_parts(head, body));
        }
        let gathered = Limited::new(body, limits::MAX_JSON_BODY_BYTES).collect().await;
        let body = gathered.map_err(|error| unreadable_body(&*error))?.to_bytes();
        check(&route.operation, &Request::from_parts(head.clone(), &body))?;
        Ok(Request::from_parts(head, Upload::new(Body::from(body))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::{Found, Routes};
    use http::{Method, header};

    #[tokio::test]
    async fn x02_long_bodies_past_the_bound_are_left_to_the_agent() {
        let routes = Routes::from_document(&sandcrab_agent::http::document()).unwrap();
        let Found::Route(route, _) = routes.find(&Method::POST, "/exec") else { panic!("no route") };
        let first = FirstUse::default();
        let bad = |length: usize| {
            let body = format!("{{\"command\":\"\",\"cwd\":\"{}\"}}", "x".repeat(length));
            let request = Request::builder().header(header::CONTENT_TYPE, "application/json");
            request.body(Upload::new(Body::from(body))).unwrap()
        };
        let long = SMALL as usize;
        assert_eq!(first.examine(route, bad(long)).await.unwrap_err().http_status, 400);
        let all = first.large.acquire_many(LARGE as u32).await.unwrap();
        assert_eq!(first.examine(route, bad(1)).await.unwrap_err().http_status, 400);
        let passed = first.examine(route, bad(long)).await.unwrap();
        let sent = bad(long).into_body().collect().await.unwrap().to_bytes();
        assert!(passed.into_body().collect().await.unwrap().to_bytes() == sent);
        drop(all);
        assert_eq!(first.examine(route, bad(long)).await.unwrap_err().http_status, 400);
    }
}
