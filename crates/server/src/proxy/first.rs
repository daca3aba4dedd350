//! The request that makes its sandbox.

use super::Route;
use super::body::Upload;
use crate::bodies::{Bodies, Outcome};
use bytes::Bytes;
use http::Request;
use sandcrab_agent::http::check;
use sandcrab_api::{ApiError, limits};

/// Looks through a request whose sandbox is not there yet: bad input makes none (contract X02). Gives it back if its
/// sandbox may be made. One whose body there is no room for is left to the agent, which finds the same, in a sandbox that
/// is there by then.
pub(super) async fn examine(
    bodies: &Bodies,
    route: &Route,
    request: Request<Upload>,
) -> Result<Request<Upload>, ApiError> {
    let (head, body) = request.into_parts();
    if !route.takes_json {
        check(&route.operation, &Request::from_parts(head.clone(), Bytes::new()))?;
        return Ok(Request::from_parts(head, body));
    }
    let body = match bodies.gather(body, limits::MAX_JSON_BODY_BYTES).await? {
        Outcome::Whole(body) => {
            check(&route.operation, &Request::from_parts(head.clone(), &body))?;
            body.into_body()
        }
        Outcome::NoRoom(body) => body,
    };
    Ok(Request::from_parts(head, Upload::new(body)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::{Found, Routes};
    use axum::body::Body;
    use http::{Method, header};
    use http_body_util::BodyExt as _;

    #[tokio::test]
    async fn x02_long_bodies_past_the_bound_are_left_to_the_agent() {
        let routes = Routes::from_document(&sandcrab_agent::http::document()).unwrap();
        let Found::Route(route, _) = routes.find(&Method::POST, "/exec") else { panic!("no route") };
        let bodies = Bodies::default();
        let bad = |length: usize| {
            let body = format!("{{\"command\":\"\",\"cwd\":\"{}\"}}", "x".repeat(length));
            let request = Request::builder().header(header::CONTENT_TYPE, "application/json");
            request.body(Upload::new(Body::from(body))).unwrap()
        };
        let long = 40 << 20;
        assert_eq!(examine(&bodies, route, bad(long)).await.unwrap_err().http_status, 400);
        let taken = bodies.gather(bad(long).into_body(), 2 * long).await.unwrap();
        assert_eq!(examine(&bodies, route, bad(1)).await.unwrap_err().http_status, 400);
        let passed = examine(&bodies, route, bad(long)).await.unwrap();
        let sent = bad(long).into_body().collect().await.unwrap().to_bytes();
        assert!(passed.into_body().collect().await.unwrap().to_bytes() == sent);
        drop(taken);
        assert_eq!(examine(&bodies, route, bad(long)).await.unwrap_err().http_status, 400);
    }
}
