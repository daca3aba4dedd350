//! Reading a request: whatever is wrong becomes a typed 4xx that names the field (contract X02).

use super::error::Refusal;
use crate::room::Holding;
use axum::body::HttpBody as _;
use axum::extract::{FromRequest, FromRequestParts, MatchedPath, Request};
use axum::http::{Extensions, HeaderMap, Method, Uri, header, request::Parts};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use sandcrab_api::{ApiError, ErrorCode, limits};
use serde::Deserialize as _;
use serde::de::DeserializeOwned;

/// A JSON body.
pub struct Json<T>(pub T);

/// The query string.
pub struct Query<T>(pub T);

/// The parameters in the path.
pub struct Path<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let route = Route::of(request.method(), request.extensions());
        let read = async {
            require_json(request.headers())?;
            let holding = request.extensions().get::<Holding>().cloned();
            let body = gather(request.into_body(), holding.as_ref()).await?;
            let value = parse_json(&body)?;
            if let Some(holding) = holding {
                // As much as was sent, in another form.
                holding.resize(body.len())?;
            }
            Ok(value)
        };
        Ok(Self(read.await.map_err(|error| route.refuse(error))?))
    }
}

/// Reads a body to its end, as far as there is room for it, and for what is read from it meanwhile.
async fn gather(body: axum::body::Body, holding: Option<&Holding>) -> Result<Vec<u8>, ApiError> {
    let hold = |bytes: usize| holding.map_or(Ok(()), |holding| holding.resize(2 * bytes));
    let announced = body.size_hint().exact().and_then(|length| usize::try_from(length).ok());
    let announced = announced.filter(|length| *length <= limits::MAX_JSON_BODY_BYTES);
    if let Some(length) = announced {
        hold(length)?;
    }
    let mut bytes = Vec::with_capacity(announced.unwrap_or_default());
    let mut body = Limited::new(body, limits::MAX_JSON_BODY_BYTES);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|error| unreadable_body(&*error))?.into_data() else { continue };
        if announced.is_none() {
            // A vector that grows has up to twice as much room as it needs.
            hold(2 * (bytes.len() + data.len()))?;
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// Which route a request came in by, so that a refusal can name the operation (contract X01).
struct Route(Method, Option<MatchedPath>);

impl Route {
    fn of(method: &Method, extensions: &Extensions) -> Self {
        Self(method.clone(), extensions.get().cloned())
    }

    fn refuse(self, mut error: ApiError) -> Refusal {
        let Self(method, path) = self;
        error.operation = path.and_then(|path| super::operation(&method, path.as_str())).map(Into::into);
        Refusal(error)
    }
}

pub(crate) fn require_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let said = if value.is_empty() { "none".to_owned() } else { format!("{value:?}") };
    Err(ApiError::new(
        ErrorCode::UnsupportedMediaType,
        format!("Content-Type must be application/json, it is {said}"),
    ))
}

/// Why a body could not be read: it is too long, or its sender broke off.
pub fn unreadable_body(error: &(dyn std::error::Error + Send + Sync + 'static)) -> ApiError {
    if error.is::<LengthLimitError>() {
        let bound = limits::MAX_JSON_BODY_BYTES;
        return ApiError::new(ErrorCode::PayloadTooLarge, format!("the body is longer than {bound} bytes"))
            .with("limit", bound);
    }
    ApiError::invalid("body", format!("could not be read to its end: {error}"))
}

/// Where a stream of output is to be resumed: the raw byte offsets that the header says, else its beginning.
pub(crate) fn last_event_id(headers: &HeaderMap) -> Result<[u64; 2], ApiError> {
    let Some(value) = headers.get("last-event-id") else { return Ok([0, 0]) };
    let offsets = value.to_str().ok().and_then(|value| value.split_once('-'));
    let offsets = offsets.and_then(|(out, err)| Some([out.parse().ok()?, err.parse().ok()?]));
    offsets.ok_or_else(|| ApiError::invalid("Last-Event-ID", "must be STDOUT-STDERR, two byte offsets"))
}

/// Reads JSON; an error names the field by its path.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // serde would take an array for an object's fields in their order.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        return Err(ApiError::invalid("body", "must be a JSON object, it is an array"));
    }
    if bytes.trim_ascii().is_empty() {
        return Err(ApiError::invalid("body", "must be a JSON object, it is empty"));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| named(&error, "body"))?;
    reader.end().map_err(|error| ApiError::invalid("body", error.to_string()))?;
    Ok(value)
}

fn named<E: std::fmt::Display>(error: &serde_path_to_error::Error<E>, whole: &str) -> ApiError {
    let path = error.path().to_string();
    let message = error.inner().to_string();
    // serde reports a missing or unknown field at the object that lacks or has it: the name is in the message.
    let quoted = (message.starts_with("missing field") || message.starts_with("unknown field"))
        .then(|| message.split('`').nth(1).unwrap_or_default());
    match (path.as_str(), quoted) {
        (".", Some(name)) => ApiError::invalid(name, in_words(&message)),
        // "?" is where the text ended or broke before any field: its place is all there is to say.
        ("." | "?", None) if !message.starts_with("invalid ") => ApiError::invalid(whole, &*message),
        ("." | "?", None) => ApiError::invalid(whole, in_words(&message)),
        (path, Some(name)) if !path.ends_with(name) => {
            ApiError::invalid(&format!("{path}.{name}"), in_words(&message))
        }
        (path, _) => ApiError::invalid(path, in_words(&message)),
    }
}

/// What serde says of a value, for people: what must stand there and what does, in JSON's words instead of Rust's.
fn in_words(message: &str) -> String {
    // The field is named beside it; where in the text it stands says nothing more.
    let message = message.rfind(" at line ").map_or(message, |place| &message[..place]);
    let said = ["invalid type: ", "invalid value: "].iter().find_map(|kind| message.strip_prefix(kind));
    let Some((found, wanted)) = said.and_then(|said| said.rsplit_once(", expected ")) else {
        return match message {
            // Of numbers in a query, which is all text.
            "invalid digit found in string" | "cannot parse integer from empty string" => {
                "must be a whole number"
            }
            "number too large to fit in target type" => "is too large a number",
            message => message,
        }
        .to_owned();
    };
    let found = match found {
        "map" => "an object",
        "sequence" => "an array",
        found => found,
    };
    let wanted = match wanted {
        "u8" => "a whole number of 0 to 255",
        "u16" => "a whole number of 0 to 65535",
        "u32" => "a whole number of 0 to 4294967295",
        "u64" | "usize" => "a whole number of at least 0",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        wanted if wanted.starts_with("struct ") || wanted == "a map" => "an object",
        "a sequence" => "an array",
        wanted => wanted,
    };
    format!("must be {wanted}, it is {found}")
}

/// Refuses percent-encoded bytes that are no UTF-8 (attack B02), for which the decoder would put U+FFFD.
fn require_text(query: &str) -> Result<(), ApiError> {
    for pair in query.split('&') {
        let mut bytes = Vec::with_capacity(pair.len());
        let mut rest = pair.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            let encoded = rest.get(1..3).and_then(|digits| std::str::from_utf8(digits).ok());
            match encoded.filter(|_| byte == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
                Some(decoded) => {
                    bytes.push(decoded);
                    rest = &rest[3..];
                }
                None => {
                    bytes.push(byte);
                    rest = after;
                }
            }
        }
        if std::str::from_utf8(&bytes).is_err() {
            let name = pair.split('=').next().unwrap_or_default();
            return Err(ApiError::invalid(name, "must be percent-encoded UTF-8"));
        }
    }
    Ok(())
}

/// A byte offset of a query: one that the document's `int64` has.
pub(crate) fn offset<'a, D: serde::Deserializer<'a>>(value: D) -> Result<Option<u64>, D::Error> {
    let offset = Option::<u64>::deserialize(value)?;
    match offset {
        Some(offset) if i64::try_from(offset).is_err() => {
            Err(serde::de::Error::custom(format!("must be at most {}", i64::MAX)))
        }
        _ => Ok(offset),
    }
}

/// Reads a query string; an error names the field.
pub(crate) fn parse_query<T: DeserializeOwned>(uri: &Uri) -> Result<T, ApiError> {
    require_text(uri.query().unwrap_or_default())?;
    let axum::extract::Query(value) = axum::extract::Query::<T>::try_from_uri(uri).map_err(|error| {
        // axum's text is "Failed to deserialize query string: FIELD: REASON".
        let text = error.body_text();
        let text = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
        match text.split_once(": ") {
            Some((field, reason)) => ApiError::invalid(field, reason),
            None => ApiError::invalid(text.split('`').nth(1).unwrap_or("query"), text),
        }
    })?;
    Ok(value)
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let value = parse_query(&parts.uri);
        Ok(Self(value.map_err(|error| Route::of(&parts.method, &parts.extensions).refuse(error))?))
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(error) => {
                let route = Route::of(&parts.method, &parts.extensions);
                Err(route.refuse(ApiError::invalid("path parameter", error.body_text())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandcrab_api::exec::ExecRequest;

    fn field(json: &str) -> String {
        let error = parse_json::<ExecRequest>(json.as_bytes()).unwrap_err();
        assert_eq!(error.code, ErrorCode::ValidationFailed);
        error.context["validationErrors"][0]["field"].as_str().unwrap().to_owned()
    }

    #[test]
    fn x01_what_is_wrong_with_a_value_is_said_in_words_of_json() {
        let message = |json: &str| parse_json::<ExecRequest>(json.as_bytes()).unwrap_err().message;
        for (json, expected) in [
            (r#"{"command":1}"#, "command: must be a string, it is integer `1`"),
            (
                r#"{"command":"a","timeout":-1}"#,
                "timeout: must be a whole number of at least 0, it is integer `-1`",
            ),
            (r#"{"command":"a","env":[]}"#, "env: must be an object, it is an array"),
            (r#"{"command":"a","cwd":{}}"#, "cwd: must be a string, it is an object"),
            ("", "body: must be a JSON object, it is empty"),
            (r#"{"command":null}"#, "command: must be a string, it is null"),
            ("{}", "command: missing field `command`"),
            ("5", "body: must be an object, it is integer `5`"),
        ] {
            assert_eq!(message(json), expected);
        }
        let id = message(r#"{"command":"a","sessionId":"a/b"}"#);
        assert!(
            id.starts_with("sessionId: session id \"a/b\": must not hold") && !id.contains("line"),
            "{id}"
        );
        // Where it is no JSON at all, the place is all there is to say.
        assert_eq!(message("{\"command\":\"a\",}"), "body: trailing comma at line 1 column 16");
    }

    #[test]
    fn x02_an_offset_is_one_that_the_document_has() {
        #[derive(Debug, serde::Deserialize)]
        struct Resume {
            #[serde(default, deserialize_with = "offset")]
            offset: Option<u64>,
        }
        let parse = |uri: &'static str| parse_query::<Resume>(&Uri::from_static(uri));
        assert_eq!(parse("/").unwrap().offset, None);
        assert_eq!(parse("/?offset=9223372036854775807").unwrap().offset, Some(i64::MAX as u64));
        let error = parse("/?offset=9223372036854775808").unwrap_err();
        assert_eq!(error.message, "offset: must be at most 9223372036854775807");
    }

    #[test]
    fn x01_a_query_names_its_field_once() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Offset {
            #[expect(dead_code, reason = "it is only parsed")]
            offset: u64,
        }
        let message = |uri: &'static str| parse_query::<Offset>(&Uri::from_static(uri)).unwrap_err().message;
        assert_eq!(message("/?offset=x"), "offset: invalid digit found in string");
        assert_eq!(message("/"), "offset: missing field `offset`");
        assert!(message("/?offset=1&odd=2").starts_with("odd: unknown field `odd`"));
    }

    #[test]
    fn x02_wrong_types_and_names_name_the_field() {
        assert_eq!(field(r#"{"command":1}"#), "command");
        assert_eq!(field(r#"{"command":"a","timeout":"soon"}"#), "timeout");
        assert_eq!(field(r#"{"command":"a","env":{"A":1}}"#), "env.A");
        assert_eq!(field(r#"{"command":"a","sessionId":"a/b"}"#), "sessionId");
        assert_eq!(field(r#"{"command":"a","colour":1}"#), "colour");
        assert_eq!(field("{}"), "command");
        assert_eq!(field("[]"), "body");
        assert_eq!(field("[\"true\"]"), "body");
        assert_eq!(field("{"), "body");
        assert_eq!(field("{\"command\":\"a\"} x"), "body");
        assert_eq!(field("\u{feff}nonsense"), "body");
    }
}
