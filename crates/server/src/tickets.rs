//! One-use tickets for WebSockets: a browser can give them no header, and a key has no place in a URL.

use crate::app::App;
use crate::auth::Caller;
use crate::store::AccountId;
use axum::Extension;
use axum::extract::State;
use http::StatusCode;
use rand::RngExt;
use sandcrab_agent::http::error::{Answer, Refusal};
use sandcrab_agent::http::extract::Json;
use sandcrab_api::ticket::{CreateTicket, TICKET_SECS, Ticket};
use sandcrab_api::time::Timestamp;
use sandcrab_api::{ApiError, ErrorCode};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// How long a ticket waits to be used.
const LIFE: Duration = Duration::from_secs(TICKET_SECS);
/// Tickets that may wait at once.
const WAITING: usize = 10_000;
/// Letters and digits of a ticket: 32 of 62 are 190 bits.
const LENGTH: usize = 32;

/// What a ticket is good for.
struct Right {
    account: AccountId,
    path: String,
    until: Instant,
}

/// The tickets that wait to be used. They are found by their hash, so that the time of a look-up tells nothing.
#[derive(Default)]
pub(crate) struct Tickets {
    waiting: Mutex<HashMap<[u8; 32], Right>>,
}

impl Tickets {
    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<[u8; 32], Right>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn mint(&self, account: AccountId, path: String) -> Result<String, ApiError> {
        let now = Instant::now();
        let mut waiting = self.waiting();
        if waiting.len() >= WAITING {
            waiting.retain(|_, right| right.until > now);
        }
        if waiting.len() >= WAITING {
            let message = format!("{WAITING} tickets wait to be used, which is the most");
            return Err(ApiError::new(ErrorCode::QuotaExceeded, message)
                .with("limit", "tickets")
                .with("value", WAITING)
                .with("scope", "server")
                .retry_after(TICKET_SECS));
        }
        let mut random = rand::rng();
        let ticket: String =
            (0..LENGTH).map(|_| char::from(random.sample(rand::distr::Alphanumeric))).collect();
        waiting.insert(hash(&ticket), Right { account, path, until: now + LIFE });
        Ok(ticket)
    }

    /// Uses a ticket up: who may open a WebSocket at `path` with it.
    pub(crate) fn redeem(&self, ticket: &str, path: &str) -> Result<Caller, ApiError> {
        // Gone with the first try, whatever that was for.
        let right = self.waiting().remove(&hash(ticket));
        match right {
            Some(right) if right.until > Instant::now() && right.path == path => {
                Ok(Caller { account: right.account })
            }
            _ => {
                let message = "the ticket is unknown, used, too old, or for another path";
                Err(ApiError::new(ErrorCode::Unauthorized, message)
                    .during("authenticate")
                    .suggest("Get a new one with POST /v1/tickets, and use it once, at once."))
            }
        }
    }
}

fn hash(ticket: &str) -> [u8; 32] {
    Sha256::digest(ticket.as_bytes()).into()
}

pub(crate) fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::default().routes(routes!(create))
}

/// Makes a ticket with which one WebSocket can be opened without a key: at this path, once, and soon. It goes into the
/// query, as `?ticket=…`.
#[utoipa::path(post, path = "/v1/tickets", tag = "server", operation_id = "createTicket", request_body = CreateTicket,
    responses((status = 201, description = "The ticket", body = Ticket),
        (status = 413, description = "Too large", body = ApiError),
        (status = 415, description = "The body is not application/json", body = ApiError),
        (status = 429, description = "A limit is reached", body = ApiError)))]
async fn create(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    request: Result<Json<CreateTicket>, Refusal>,
) -> Answer<(StatusCode, axum::Json<Ticket>)> {
    let run = || {
        let Json(CreateTicket { path }) = request.map_err(|refusal| refusal.0)?;
        let is_path = path.starts_with("/v1/sandboxes/")
            && path.len() <= 2048
            && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'?' && byte != b'#');
        if !is_path {
            let rule = "must be a path below /v1/sandboxes/ as it will be requested, without a query";
            return Err(ApiError::invalid("path", rule));
        }
        let expires_at = Timestamp::now().as_millis() + LIFE.as_millis() as i64;
        let expires_at = Timestamp::from_millis(expires_at).unwrap_or_else(Timestamp::now);
        let ticket = app.tickets.mint(caller.account, path)?;
        Ok((StatusCode::CREATED, axum::Json(Ticket { ticket, expires_at })))
    };
    run().map_err(|error| Refusal(error.during("createTicket")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c05_a_ticket_is_good_once_soon_and_for_one_path() {
        let tickets = Tickets::default();
        let mint = |path: &str| tickets.mint(AccountId(7), path.into()).unwrap();
        let ticket = mint("/v1/sandboxes/a/x");
        assert_eq!(tickets.redeem(&ticket, "/v1/sandboxes/a/x").unwrap().account.0, 7);
        assert!(tickets.redeem(&ticket, "/v1/sandboxes/a/x").is_err());
        let ticket = mint("/v1/sandboxes/a/x");
        assert!(tickets.redeem(&ticket, "/v1/sandboxes/b/x").is_err());
        assert!(tickets.redeem(&ticket, "/v1/sandboxes/a/x").is_err(), "a wrong use uses it up");
        let ticket = mint("/p");
        tickets.waiting().get_mut(&hash(&ticket)).unwrap().until = Instant::now();
        assert!(tickets.redeem(&ticket, "/p").is_err());
        assert!(tickets.redeem("", "/p").is_err());
    }

    #[test]
    fn e07_tickets_that_nobody_uses_are_bounded() {
        let tickets = Tickets::default();
        for _ in 0..WAITING {
            tickets.mint(AccountId(1), "/p".into()).unwrap();
        }
        assert_eq!(tickets.mint(AccountId(1), "/p".into()).unwrap_err().http_status, 429);
        tickets.waiting().values_mut().for_each(|right| right.until = Instant::now());
        assert!(tickets.mint(AccountId(1), "/p".into()).is_ok());
        assert_eq!(tickets.waiting().len(), 1);
    }
}
