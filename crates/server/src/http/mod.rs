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
use sandcrab_runtime::DriverError;
use std::sync::Arc;

/// Names a request in its answer and in every log line about it.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A fault of the server's own (contract X03): the caller gets an id, the log gets the fault under that id. A disk without
/// room is no fault.
pub(crate) fn internal(operation: &'static str, error: &(dyn std::error::Error + 'static)) -> ApiError {
    match no_space(error) {
        Some(full) => full.during(operation),
        None => fault(operation, &crate::chain(error)),
    }
}

/// The error where the disk of the server's data has no room (attack E09).
pub(crate) fn no_space(error: &(dyn std::error::Error + 'static)) -> Option<ApiError> {
    let is_full = |cause: &&(dyn std::error::Error + 'static)| {
        let io = cause.downcast_ref::<std::io::Error>();
        let database = cause.downcast_ref::<Arc<rusqlite::Error>>().map(AsRef::as_ref);
        let database = database.or_else(|| cause.downcast_ref::<rusqlite::Error>());
        let launch = match cause.downcast_ref() {
            Some(DriverError::Launch { failure, .. }) => {
                Some(std::io::Error::from_raw_os_error(failure.errno))
            }
            _ => None,
        };
        io.or(launch.as_ref()).is_some_and(|io| io.kind() == std::io::ErrorKind::StorageFull)
            || database.and_then(rusqlite::Error::sqlite_error_code) == Some(rusqlite::ErrorCode::DiskFull)
    };
    std::iter::successors(Some(error), |error| error.source()).find(is_full)?;
    let what = crate::chain(error);
    tracing::error!(what, "the disk of the server's data is full");
    Some(ApiError::new(ErrorCode::NoSpace, "the disk of the server's data is full").suggest(
        "Make room on the disk of the server's data directory, for instance by destroying sandboxes.",
    ))
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
    fn e09_a_full_disk_is_no_fault_wherever_it_is_met() {
        let full = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let io = DriverError::Io { operation: "create", subject: "/data/x".into(), source: full() };
        let sqlite = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_FULL);
        let source = Arc::new(rusqlite::Error::SqliteFailure(sqlite, None));
        let store = crate::store::StoreError::Job { operation: "write", source };
        for error in [&io as &(dyn std::error::Error + 'static), &store] {
            let error = internal("createSandbox", error);
            assert_eq!((error.code, error.http_status), (ErrorCode::NoSpace, 507), "{error:?}");
        }
        assert_eq!(internal("exec", &std::io::Error::other("odd")).code, ErrorCode::InternalError);
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
