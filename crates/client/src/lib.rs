//! Rust client of Sandcrab's API.
