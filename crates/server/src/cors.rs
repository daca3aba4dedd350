//! Which pages of a browser may call the server (`--cors-origin`).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use sandcrab_api::{ApiError, ErrorCode};

const METHODS: HeaderValue = HeaderValue::from_static("GET, PUT, POST, PATCH, DELETE");
const HEADERS: HeaderValue =
    HeaderValue::from_static("authorization, content-type, last-event-id, x-request-id");
const EXPOSED: HeaderValue =
    HeaderValue::from_static("x-request-id, retry-after, x-sandcrab-mime-type, x-sandcrab-is-binary");
/// Browsers say with it how the page that sent a request relates to what it was sent to; no page can change it.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
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
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let (Some(origin), None) = (origins.next(), origins.next()) else { return None };
        (self.any || self.origins.contains(origin)).then(|| origin.clone())
    }

    /// Refuses what a page sent that was not named (attack C13). For servers without keys, where that a request came is all
    /// the right that there is: browsers send it for any page, and only hide the answer.
    pub(crate) fn require_own_page(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        if self.allowed(headers).is_some() {
            return Ok(());
        }
        let site = headers.get(FETCH_SITE).map(HeaderValue::as_bytes);
        // "none" is what a person typed.
        let is_foreign = headers.contains_key(header::ORIGIN)
            || site.is_some_and(|site| !matches!(site, b"none" | b"same-origin"));
        if !is_foreign {
            return Ok(());
        }
        let message = "a page of another origin sent this, and a server without keys answers none";
        Err(ApiError::new(ErrorCode::Forbidden, message)
            .during("authenticate")
            .suggest("Start the server with a key, or with --cors-origin ORIGIN."))
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
    fn c13_pages_of_others_are_refused_and_programs_are_not() {
        let cors = Cors::new(&["https://app.example".into()]).unwrap();
        let passes = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            cors.require_own_page(&headers).is_ok()
        };
        for good in [
            &[][..],
            &[("sec-fetch-mode", "cors")],
            &[("sec-fetch-site", "none")],
            &[("sec-fetch-site", "same-origin")],
            &[("origin", "https://app.example"), ("sec-fetch-site", "cross-site")],
        ] {
            assert!(passes(good), "{good:?}");
        }
        for bad in [
            &[("origin", "https://evil.example")][..],
            &[("origin", "null")],
            &[("origin", "https://app.example"), ("origin", "https://evil.example")],
            &[("sec-fetch-site", "cross-site")],
            &[("sec-fetch-site", "same-site")],
            &[("sec-fetch-site", "odd")],
        ] {
            assert!(!passes(bad), "{bad:?}");
        }
    }

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
