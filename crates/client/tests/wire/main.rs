//! The client against real peers on loopback.

#[cfg(test)]
mod peer;
#[cfg(test)]
mod streams;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod transport;
