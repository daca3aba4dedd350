//! HTTP API, accounts, life cycle and proxy of Sandcrab.
