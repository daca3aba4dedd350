//! One-use tickets for WebSockets: a browser can give them no header, and a key has no place in a URL. Each is for one route
//! that opens one, and for the life that the sandbox has now: for nothing else, and for no other one of that id (attack C14).

use crate::app::App;
use crate::auth::Caller;
use crate::proxy::Found;
use crate::store::AccountId;
use axum::Extension;
use axum::extract::State;
use http::{Method, StatusCode};
use rand::RngExt;
use sandcrab_agent::http::error::{Answer, Refusal};
use sandcrab_agent::http::extract::Json;
use sandcrab_api::ticket::{CreateTicket, TICKET_SECS, Ticket};
use sandcrab_api::time::Timestamp;
use sandcrab_api::{ApiError, ErrorCode, SandboxId};
use sandcrab_runtime::InstanceId;
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
/// The longest path, in bytes.
const MAX_PATH: usize = 2048;
/// Letters and digits of a ticket: 32 of 62 are 190 bits.
const LENGTH: usize = 32;

/// What a ticket is good for.
struct Right {
    account: AccountId,
    life: InstanceId,
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

    fn mint(&self, account: AccountId, life: InstanceId, path: String) -> Result<String, ApiError> {
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
        waiting.insert(hash(&ticket), Right { account, life, path, until: now + LIFE });
        Ok(ticket)
    }

    /// Uses a ticket up: who may open a WebSocket at `path` with it.
    pub(crate) fn redeem(&self, ticket: &str, path: &str) -> Result<Caller, ApiError> {
        // Gone with the first try, whatever that was for.
        let right = self.waiting().remove(&hash(ticket));
        match right {
            Some(right) if right.until > Instant::now() && right.path == path => {
                Ok(Caller { account: right.account, life: Some(right.life) })
            }
            _ => Err(no_good()),
        }
    }
}

/// A ticket that lets nobody in.
pub(crate) fn no_good() -> ApiError {
    let message = "the ticket is unknown, used, too old, or for another path or sandbox";
    ApiError::new(ErrorCode::Unauthorized, message)
        .during("authenticate")
        .suggest("Get a new one with POST /v1/tickets, and use it once, at once.")
}

fn hash(ticket: &str) -> [u8; 32] {
    Sha256::digest(ticket.as_bytes()).into()
}

pub(crate) fn router() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::default().routes(routes!(create))
}

/// Makes a ticket with which one WebSocket can be opened without a key: at this path, once, and soon, and to the sandbox that
/// has the id now, which is made with defaults where there is none. It goes into the query, as `?ticket=…`.
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
    let run = async {
        let Json(CreateTicket { path }) = request.map_err(|refusal| refusal.0)?;
        let id = sandbox(&app, &path)?;
        let life = app.enter(&caller, id).await?.live.instance.clone();
        let expires_at = Timestamp::now().as_millis() + LIFE.as_millis() as i64;
        let expires_at = Timestamp::from_millis(expires_at).unwrap_or_else(Timestamp::now);
        let ticket = app.tickets.mint(caller.account, life, path)?;
        Ok((StatusCode::CREATED, axum::Json(Ticket { ticket, expires_at })))
    };
    run.await.map_err(|error: ApiError| Refusal(error.during("createTicket")))
}

/// The sandbox of a path at which a WebSocket can be opened.
fn sandbox(app: &App, path: &str) -> Result<SandboxId, ApiError> {
    let rule =
        "must be the path of a WebSocket below /v1/sandboxes/{id}/ as it will be requested, without a query";
    let invalid = || ApiError::invalid("path", rule);
    let is_text =
        path.len() <= MAX_PATH && path.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
    let below = path.strip_prefix("/v1/sandboxes/").filter(|_| is_text).ok_or_else(invalid)?;
    let (id, rest) = below.split_at(below.find('/').ok_or_else(invalid)?);
    let opens = match app.routes.find(&Method::GET, rest) {
        Found::Route(route, _) => route.allows(StatusCode::SWITCHING_PROTOCOLS),
        Found::Invalid(_, error) => return Err(ApiError::invalid("path", error.message)),
        Found::WrongMethod(_) | Found::Unknown => crate::ports::connected(rest)?.is_some(),
    };
    if !opens {
        return Err(invalid());
    }
    crate::proxy::sandbox_id(id).map_err(|error| ApiError::invalid("path", error.message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c05_a_ticket_is_good_once_soon_and_for_one_path() {
        let tickets = Tickets::default();
        let life = InstanceId::random();
        let mint = |path: &str| tickets.mint(AccountId(7), life.clone(), path.into()).unwrap();
        let ticket = mint("/v1/sandboxes/a/x");
        let caller = tickets.redeem(&ticket, "/v1/sandboxes/a/x").unwrap();
        assert_eq!((caller.account.0, caller.life), (7, Some(life.clone())));
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
        let mint = || tickets.mint(AccountId(1), InstanceId::random(), "/p".into());
        for _ in 0..WAITING {
            mint().unwrap();
        }
        assert_eq!(mint().unwrap_err().http_status, 429);
        tickets.waiting().values_mut().for_each(|right| right.until = Instant::now());
        assert!(mint().is_ok());
        assert_eq!(tickets.waiting().len(), 1);
    }
}
