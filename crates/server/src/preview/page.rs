//! What a caller sees of a preview that cannot be shown: a page for people, JSON for programs.

use axum::body::Body;
use axum::response::IntoResponse;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response};
use sandcrab_agent::http::error::Refusal;
use sandcrab_api::ApiError;

/// Nothing in the page may load or run, whatever stands in it.
const POLICY: HeaderValue =
    HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; sandbox");

/// Whether the caller is a browser that wants to show something.
pub(super) fn wants_page(method: &Method, headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    matches!(*method, Method::GET | Method::HEAD) && accept.contains("text/html")
}

/// The answer to a request that failed here.
pub(super) fn failed(error: ApiError, as_page: bool) -> Response<Body> {
    let mut response = if as_page {
        let page = page(&error);
        let mut response = Refusal(error).into_response();
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.map(|_json| Body::from(page))
    } else {
        Refusal(error).into_response()
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn page(error: &ApiError) -> String {
    let (status, code) = (error.http_status, error.code);
    let message = escaped(&error.message);
    let suggestion = escaped(error.suggestion.as_deref().unwrap_or_default());
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>{status} {code}</title>\
         <style>body{{font:16px/1.5 system-ui,sans-serif;max-width:36em;margin:15vh auto;padding:0 1em}}\
         code{{color:#666}}</style><h1>{message}</h1><p>{suggestion}</p><p><code>{status} {code}</code></p></html>\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sandcrab_api::ErrorCode;

    #[test]
    fn b11_nothing_in_an_error_page_is_markup() {
        let error = ApiError::new(ErrorCode::ServiceNotResponding, "<script>alert(1)</script>\" & '");
        let page = page(&error);
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot; &amp; '"), "{page}");
    }
}
