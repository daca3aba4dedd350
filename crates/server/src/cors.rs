//! Which pages of a browser may call the server (`--cors-origin`).

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};

const METHODS: HeaderValue = HeaderValue::from_static("GET, PUT, POST, PATCH, DELETE");
const HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, last-event-id, x-request-id");
const EXPOSED: HeaderValue =
    HeaderValue::from_static("x-request-id, retry-after, x-sandcrab-mime-type, x-sandcrab-is-binary");
/// How long a browser may remember a preflight, in seconds: the most that Chromium accepts.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// An origin that is none.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("--cors-origin {0:?} is not an origin: use scheme://host[:port], or * for all")]
pub struct OriginError(String);

/// The origins that are let in. Keys travel in a header and never in cookies, so even `*` gives a page nothing that it
/// does not know already.
#[derive(Debug, Default)]
pub(crate) struct Cors {
    origins: Vec<HeaderValue>,
    any: bool,
}

impl Cors {
    pub(crate) fn new(origins: &[String]) -> Result<Self, OriginError> {
        let mut cors = Self::default();
        for text in origins {
            let wrong = || OriginError(text.clone());
            if text == "*" {
                cors.any = true;
                continue;
            }
            let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
            let is_host = rest.parse::<http::uri::Authority>().is_ok() && !rest.contains('@');
            if scheme.is_empty() || !is_host {
                return Err(wrong());
            }
            cors.origins.push(HeaderValue::try_from(text.to_ascii_lowercase()).map_err(|_| wrong())?);
        }
        Ok(cors)
    }

    /// The origin to name in the answer to this request; none if it comes from no page, or from one that is not let in.
    pub(crate) fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        (self.any || self.origins.contains(origin)).then(|| origin.clone())
    }

    /// The answer to a preflight; none if the request is something else.
    pub(crate) fn preflight<B: Default>(&self, request: &Request<impl Sized>) -> Option<Response<B>> {
        let asks = request.method() == Method::OPTIONS
            && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        if !asks || self.allowed(request.headers()).is_none() {
            return None;
        }
        let mut response = Response::new(B::default());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
        Some(response)
    }

    /// Lets the page at `origin` read the answer.
    pub(crate) fn open(origin: Option<HeaderValue>, headers: &mut HeaderMap) {
        if let Some(origin) = origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_origins_are_let_in() {
        let cors = Cors::new(&["https://App.example:8443".into()]).unwrap();
        let origin = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ORIGIN, HeaderValue::from_static(value));
            cors.allowed(&headers).is_some()
        };
        assert!(origin("https://app.example:8443"));
        for other in ["https://app.example", "http://app.example:8443", "null", "https://evil.example"] {
            assert!(!origin(other), "{other}");
        }
        for bad in ["app.example", "https://", "https://a/b", "://a", "https://u@a"] {
            assert_eq!(Cors::new(&[bad.into()]).unwrap_err(), OriginError(bad.into()));
        }
    }
}
