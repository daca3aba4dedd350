//! Names of things, parsed once at the boundary so that the rest of the program need not ask again.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

/// An id that breaks its rule.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{kind} id {value:?}: {rule}")]
pub struct IdError {
    kind: &'static str,
    value: String,
    rule: &'static str,
}

macro_rules! id {
    ($(#[doc = $doc:literal])* $name:ident, $kind:literal, $check:path, $length:literal, $pattern:literal) => {
        $(#[doc = $doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(std::sync::Arc<str>);

        // By hand: the derive does not see through a macro's literals.
        impl utoipa::PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .description(Some([$($doc),*].map(str::trim).join("\n")))
                    .min_length(Some(1))
                    .max_length(Some($length))
                    .pattern(Some($pattern))
                    .into()
            }
        }

        impl ToSchema for $name {
            fn name() -> Cow<'static, str> {
                stringify!($name).into()
            }
        }

        impl $name {
            /// Checks the rule of this kind of id.
            pub fn parse(value: &str) -> Result<Self, IdError> {
                match $check(value) {
                    Ok(()) => Ok(Self(value.into())),
                    // A refused id may be anything a stranger sent: quote only as much as a person would read.
                    Err(rule) => Err(IdError { kind: $kind, value: value.chars().take(80).collect(), rule }),
                }
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(value: &str) -> Result<Self, IdError> {
                Self::parse(value)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                Self::parse(&String::deserialize(d)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

id!(
    /// A sandbox's id: 1-63 printable ASCII characters without blanks, `/` and `%`, no leading or trailing `-`, and
    /// none of `www api admin root system`.
    SandboxId, "sandbox", check_sandbox, 63,
    r"^(?!(?:[wW]{3}|[aA][pP][iI]|[aA][dD][mM][iI][nN]|[rR][oO]{2}[tT]|[sS][yY][sS][tT][eE][mM]|\.{1,2})$)(?!-)[!-$&-.0-~]+(?<!-)$"
);
id!(
    /// A session's id: 1-128 bytes of UTF-8 without control characters and `/`; not `.` or `..`, which are lost
    /// when a URL is normalised. The default session's id is `default`.
    SessionId, "session", check_session, 128,
    r"^(?!\.{1,2}$)[^/\u0000-\u001f\u007f-\u009f]+$"
);
id!(
    /// The name that a client gives one command, so that it can be resumed, cancelled and safely retried:
    /// 1-64 characters of `A-Z a-z 0-9 _ -`.
    ExecId, "exec", check_exec, 64,
    r"^[A-Za-z0-9_-]+$"
);
id!(
    /// A code context's id: 1-64 characters of `A-Z a-z 0-9 _ -`.
    ContextId, "context", check_exec, 64,
    r"^[A-Za-z0-9_-]+$"
);
id!(
    /// The name that a client gives one run of code, as `ExecId` for commands.
    RunId, "run", check_exec, 64,
    r"^[A-Za-z0-9_-]+$"
);

id!(
    /// A process's name: 1-64 characters of `A-Z a-z 0-9 _ . -`, not `.` or `..`, which are lost when a URL is
    /// normalised.
    ProcessId, "process", check_process, 64,
    r"^(?!\.{1,2}$)[A-Za-z0-9_.-]+$"
);

impl SessionId {
    /// The session that every sandbox has without being asked.
    pub const DEFAULT: &'static str = "default";

    /// The default session.
    pub fn default_session() -> Self {
        Self(Self::DEFAULT.into())
    }

    /// Whether this is the default session, which cannot be deleted.
    pub fn is_default(&self) -> bool {
        &*self.0 == Self::DEFAULT
    }
}

const RESERVED: [&str; 5] = ["www", "api", "admin", "root", "system"];

fn check_sandbox(id: &str) -> Result<(), &'static str> {
    if id.is_empty() || id.len() > 63 {
        return Err("must have 1 to 63 characters");
    }
    if !id.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b'%') {
        return Err("must be printable ASCII without blanks, '/' and '%'");
    }
    if id.starts_with('-') || id.ends_with('-') {
        return Err("must not begin or end with '-'");
    }
    // URLs are normalised before they are sent: these two would name another resource.
    if id == "." || id == ".." {
        return Err("must not be '.' or '..'");
    }
    if RESERVED.iter().any(|word| id.eq_ignore_ascii_case(word)) {
        return Err("is one of the reserved words www, api, admin, root, system");
    }
    Ok(())
}

fn check_session(id: &str) -> Result<(), &'static str> {
    if id.is_empty() || id.len() > 128 {
        return Err("must have 1 to 128 bytes");
    }
    if id == "." || id == ".." || id.contains('/') || id.chars().any(char::is_control) {
        return Err("must not hold '/' or control characters, nor be '.' or '..'");
    }
    Ok(())
}

fn check_exec(id: &str) -> Result<(), &'static str> {
    if id.is_empty() || id.len() > 64 {
        return Err("must have 1 to 64 characters");
    }
    if !id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
        return Err("must be letters, digits, '_' and '-'");
    }
    Ok(())
}

fn check_process(id: &str) -> Result<(), &'static str> {
    if id.is_empty() || id.len() > 64 {
        return Err("must have 1 to 64 characters");
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    if id == "." || id == ".." || !id.bytes().all(allowed) {
        return Err("must be letters, digits, '_', '-' and '.', and not '.' or '..'");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sandbox_ids_keep_their_rule() {
        for good in ["user-123", "a", "Temp.1", "x_y~z", &"a".repeat(63)] {
            assert!(SandboxId::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "a b",
            "a/b",
            "a%b",
            "é",
            "www",
            "API",
            "root",
            ".",
            "..",
            "a\n",
            &"a".repeat(64),
        ] {
            assert!(SandboxId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn b09_session_ids_are_literal_or_refused() {
        for good in ["prod", "user@example.com", "$(touch x)", "ünï", "a b"] {
            assert_eq!(SessionId::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "a\0b", "a\nb", &"x".repeat(129)] {
            assert!(SessionId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_refused_id_is_quoted_only_in_part() {
        let error = ExecId::parse(&"!".repeat(10_000)).unwrap_err();
        assert!(error.to_string().len() < 200);
    }
}
