//! The API over HTTP: one front that every request passes, the server's own routes, and the document.

mod document;
mod front;
mod images;
mod sandboxes;
mod service;

pub use document::DocumentError;
pub(crate) use document::document;
pub(crate) use front::{Front, Labels};

use http::{HeaderName, Method};
use sandcrab_api::{ApiError, ErrorCode};

/// Names a request in its answer and in every log line about it.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A fault of the server's own (contract X03): the caller gets an id, the log gets the fault under that id.
pub(crate) fn internal(operation: &'static str, error: &dyn std::error::Error) -> ApiError {
    fault(operation, &crate::chain(error))
}

/// A fault that has no error value, as a panic.
pub(crate) fn fault(operation: &'static str, what: &str) -> ApiError {
    let error_id = format!("err_{:016x}", rand::random::<u64>());
    tracing::error!(error_id, operation, what, "a fault of the server");
    ApiError::new(ErrorCode::InternalError, format!("the server failed; its log has more under {error_id}"))
        .during(operation)
        .with("errorId", error_id)
}

/// No route has this path.
pub(crate) fn unknown_route(method: &Method, path: &str) -> ApiError {
    ApiError::new(ErrorCode::RouteNotFound, format!("there is no route {method} {}", short(path)))
        .during("route")
}

/// The path has other methods.
pub(crate) fn wrong_method(method: &Method, path: &str) -> ApiError {
    let message = format!("{method} is not a method of {}", short(path));
    ApiError::new(ErrorCode::MethodNotAllowed, message).during("route")
}

/// The path has the methods of `allow`, as in the header of that name.
pub(crate) fn wrong_method_of(method: &Method, path: &str, allow: String) -> ApiError {
    wrong_method(method, path).with("allow", allow)
}

/// As much of a path as a person would read.
fn short(path: &str) -> &str {
    path.get(..200).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn x03_a_fault_is_found_in_the_log_by_its_id() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
        let source = std::io::Error::other("the disk is on fire");
        let error = tracing::subscriber::with_default(subscriber, || internal("exec", &source));
        assert_eq!((error.code, error.http_status), (ErrorCode::InternalError, 500));
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let id = error.context["errorId"].as_str().unwrap();
        assert!(text.lines().any(|line| line.contains(id) && line.contains("the disk is on fire")), "{text}");
        // What the fault was is for the log alone.
        assert!(!error.message.contains("fire"));
    }
}
