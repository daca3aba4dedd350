//! The API's document: the server's own routes, and the agent's below `/v1/sandboxes/{id}`.

use super::service;
use crate::proxy::{Routes, RoutesError};
use sandcrab_agent::http::error::error_response;
use sandcrab_api::{ApiError, SandboxId};
use utoipa::OpenApi as _;
use utoipa::openapi::content::ContentBuilder;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{ObjectBuilder, Type};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{OpenApi, Ref, RefOr, Required};

/// Statuses that the front may answer any request with that needs a key.
const FRONT: [(u16, &str); 9] = [
    (400, "The request cannot be right; the message names the field"),
    (401, "No key, or an unknown one"),
    (403, "Not allowed, or the server was called by a foreign name"),
    (404, "Not found"),
    (405, "The path has other methods"),
    (415, "The body is encoded, or is not application/json where that is asked for"),
    (429, "A limit is reached"),
    (500, "It failed"),
    (501, "The machine, the image or the server lacks what this needs"),
];
/// Statuses of routes that make or use a sandbox.
const USE: [(u16, &str); 5] = [
    (409, "Clashes with what is there, or busy"),
    (413, "Too large"),
    (502, "What runs in the sandbox did not answer as it should"),
    (503, "The sandbox could not be started"),
    (507, "No space is left"),
];

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Sandcrab",
        description = "Isolated Linux sandboxes with sessions that never die. The first use of a sandbox's id makes it."
    ),
    components(schemas(ApiError, SandboxId)),
    tags(
        (name = "server", description = "The server itself"),
        (name = "git", description = "Repositories that are cloned inside a sandbox"),
        (name = "sandboxes", description = "Sandboxes as wholes"),
        (name = "images", description = "What sandboxes are made of"),
        (name = "ports", description = "Ports of sandboxes that can be reached from outside"),
    )
)]
struct Document;

/// The document cannot be made: a mistake in the annotations of a route.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// The agent's routes cannot be passed on.
    #[error("read the agent's routes")]
    Routes(#[from] RoutesError),
    /// It cannot be written as JSON.
    #[error("write the API document")]
    Json(#[from] serde_json::Error),
}

/// The whole document, and the table of the agent's routes that it names.
pub(crate) fn document() -> Result<(OpenApi, Routes), DocumentError> {
    let mut document = Document::openapi();
    document.merge(service::documented().into_openapi());
    let agent = sandcrab_agent::http::document();
    let routes = Routes::from_document(&agent)?;
    for (path, item) in &mut document.paths.paths {
        let uses = path.starts_with("/v1/sandboxes/{id}")
            || path.starts_with("/v1/images/{name}")
            || path == "/v1/tickets";
        each_operation(item, |operation| {
            add_responses(operation, &FRONT);
            if uses {
                add_responses(operation, &USE);
            }
        });
    }
    for (path, mut item) in agent.paths.paths {
        each_operation(&mut item, |operation| {
            let id = ParameterBuilder::new()
                .name("id")
                .parameter_in(ParameterIn::Path)
                .required(Required::True)
                .description(Some("The sandbox; made with defaults if it does not exist"))
                .schema(Some(Ref::from_schema_name("SandboxId")))
                .build();
            operation.parameters.get_or_insert_default().insert(0, id.into());
            add_responses(operation, &FRONT);
            add_responses(operation, &USE);
        });
        document.paths.paths.insert(format!("/v1/sandboxes/{{id}}{path}"), item);
    }
    if let (Some(ours), Some(agents)) = (&mut document.components, agent.components) {
        for (name, schema) in agents.schemas {
            ours.schemas.entry(name).or_insert(schema);
        }
        let key = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The key that `sandcrab serve` printed at its first start"))
            .build();
        ours.security_schemes.insert("key".to_owned(), SecurityScheme::Http(key).into());
    }
    for item in document.paths.paths.values_mut() {
        each_operation(item, describe_streams);
    }
    document.security = Some(vec![SecurityRequirement::new("key", [] as [&str; 0])]);
    Ok((document, routes))
}

fn each_operation(item: &mut PathItem, mut change: impl FnMut(&mut Operation)) {
    let operations = [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch];
    operations.into_iter().flatten().for_each(&mut change);
}

/// What each event of a stream is: some text, whose form the annotations say, under the number to go on from.
fn describe_streams(operation: &mut Operation) {
    for response in operation.responses.responses.values_mut() {
        let RefOr::T(response) = response else { continue };
        let Some(RefOr::T(content)) = response.content.get_mut("text/event-stream") else { continue };
        let Some(RefOr::Ref(event)) = content.schema.take() else { continue };
        let name = event.ref_location.rsplit('/').next().unwrap_or_default();
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let data = text().content_media_type("application/json").description(Some(format!("A `{name}`.")));
        let event = ObjectBuilder::new()
            .description(Some(format!("One server-sent event; its data is a `{name}` as JSON.")))
            .property("data", data)
            .required("data")
            .property("id", text().description(Some("Where to go on: what `Last-Event-ID` takes.")))
            .property("event", text());
        *content = ContentBuilder::new().schema(Some(event)).build();
    }
}

/// Lists error statuses that the operation does not list itself.
fn add_responses(operation: &mut Operation, statuses: &[(u16, &str)]) {
    for (status, description) in statuses {
        let entry = operation.responses.responses.entry(status.to_string());
        entry.or_insert_with(|| error_response(description).into());
    }
}
