//! Tests of the server over HTTP, with the fake driver. Agents are small routers or raw peers that write bytes as a
//! hostile one would; the server, its store and its sockets are real.

#[cfg(test)]
mod access;
#[cfg(test)]
mod alive;
#[cfg(test)]
mod attach;
#[cfg(test)]
mod edges;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod events;
#[cfg(test)]
mod flood;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod hostile;
#[cfg(test)]
mod images;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod peers;
#[cfg(test)]
mod preview_wire;
#[cfg(test)]
mod previews;
#[cfg(test)]
mod proxying;
#[cfg(test)]
mod restart;
#[cfg(test)]
mod schema;
#[cfg(test)]
mod starts;
#[cfg(test)]
mod tls;
#[cfg(test)]
mod wire;
