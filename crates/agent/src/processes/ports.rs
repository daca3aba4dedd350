//! Whether something listens on a port of the sandbox.
//!
//! The kernel tells nobody that a socket begins to listen, so while somebody waits it is asked every millisecond, by a
//! look-up of one socket (sock_diag(7)): 4 us, however many sockets there are. Where the kernel lacks that, the list in
//! /proc/net says the same for milliseconds of work, and is read as seldom as that costs.

use http_body_util::Empty;
use hyper::body::Bytes;
use rustix::fd::OwnedFd;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with,
};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// How often the kernel is asked, by few.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// How much longer the pause is for each who waits: a twentieth of one CPU is the most that all of them cost.
const PAUSE_EACH: Duration = Duration::from_micros(160);
/// How much longer than reading the lists of sockets the pause between two readings is.
const LIST_PAUSES: u32 = 4;
/// How long one HTTP attempt may take.
const PROBE_WITHIN: Duration = Duration::from_secs(5);

/// linux/inet_diag.h and linux/sock_diag.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const TCP_LISTEN: u8 = 10;

/// The sockets of the network that this process is in.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    /// Where the kernel is asked; none where it cannot be.
    diag: OnceLock<Option<OwnedFd>>,
    /// How many wait.
    waiting: AtomicU32,
}

/// One who waits, counted until it is dropped.
struct Waiting<'a>(&'a AtomicU32);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Ports {
    /// Waits until something listens on the port, and says where it is reached.
    pub(super) async fn opened(&self, port: u16) -> io::Result<SocketAddr> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(&self.waiting);
        loop {
            let begin = Instant::now();
            if let Some(address) = self.listening(port)? {
                return Ok(address);
            }
            let cost = begin.elapsed();
            let each = if self.diag().is_some() { PAUSE_EACH } else { (cost * LIST_PAUSES).max(PAUSE_EACH) };
            let pause = (each * waiting.0.load(Ordering::Relaxed)).max(LOOK_EVERY);
            tokio::time::sleep(pause).await;
        }
    }

    /// Where the port is reached on loopback, if something listens on it.
    pub(crate) fn listening(&self, port: u16) -> io::Result<Option<SocketAddr>> {
        for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            let address = SocketAddr::new(ip, port);
            let listens = match self.diag() {
                Some(diag) => ask(diag, address)?,
                None => is_listed(address)?,
            };
            if listens {
                return Ok(Some(address));
            }
        }
        Ok(None)
    }

    fn diag(&self) -> Option<&OwnedFd> {
        self.diag.get_or_init(|| open_diag().ok().flatten()).as_ref()
    }
}

/// A socket to ask by; none if the kernel does not find one that certainly listens.
fn open_diag() -> io::Result<Option<OwnedFd>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let diag = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(netlink::SOCK_DIAG))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(ask(&diag, listener.local_addr()?)?.then_some(diag))
}

/// Asks for the socket that a connection to `address` would meet (inet_diag_req_v2, with no remote end).
fn ask(diag: &OwnedFd, address: SocketAddr) -> io::Result<bool> {
    let mut request = Vec::with_capacity(72);
    // nlmsghdr: length, type, NLM_F_REQUEST, sequence, port.
    request.extend_from_slice(&72u32.to_ne_bytes());
    request.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend_from_slice(&1u16.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    let (family, ip) = match address.ip() {
        IpAddr::V4(ip) => (libc::AF_INET as u8, [ip.octets().as_slice(), &[0; 12]].concat()),
        IpAddr::V6(ip) => (libc::AF_INET6 as u8, ip.octets().to_vec()),
    };
    // Family, protocol, extensions, padding, states (all).
    request.extend_from_slice(&[family, libc::IPPROTO_TCP as u8, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    // The local port and no remote one, the local address and no remote one, no interface, no cookie.
    request.extend_from_slice(&address.port().to_be_bytes());
    request.extend_from_slice(&[0; 2]);
    request.extend_from_slice(&ip);
    request.extend_from_slice(&[0; 20]);
    request.extend_from_slice(&[0xff; 8]);
    send(diag, &request, SendFlags::empty())?;
    // The kernel has answered when the request is sent. Answers are under 500 bytes: more is cut off and not needed.
    let mut answer = [0; 512];
    let (length, _) = recv(diag, &mut answer, RecvFlags::empty())?;
    let kind = answer.get(4..6).map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
    // An answer about a socket is of the same type as the request, and has its state behind the family; any other says
    // that there is none.
    Ok(length > 17 && kind == Some(SOCK_DIAG_BY_FAMILY) && answer[17] == TCP_LISTEN)
}

/// Reads the kernel's lists of sockets: `sl local_address rem_address st …`, in hexadecimal.
fn is_listed(address: SocketAddr) -> io::Result<bool> {
    let list = if address.is_ipv4() { "/proc/net/tcp" } else { "/proc/net/tcp6" };
    let text = match std::fs::read_to_string(list) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        text => text?,
    };
    let port = format!(":{:04X}", address.port());
    Ok(text.lines().skip(1).any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let local = fields.next().unwrap_or_default();
        let state = fields.nth(1).unwrap_or_default();
        local.ends_with(&port) && u8::from_str_radix(state, 16) == Ok(TCP_LISTEN)
    }))
}

/// Asks for a path over HTTP; the status, if there was an answer.
pub(super) async fn probe(address: SocketAddr, path: &str) -> Option<u16> {
    let answer = async {
        let stream = tokio::net::TcpStream::connect(address).await.ok()?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await.ok()?;
        let request = http::Request::get(path)
            .header(http::header::HOST, format!("localhost:{}", address.port()))
            .header(http::header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .ok()?;
        let driver = async {
            // Its end brings the answer to its own, too.
            let _ = connection.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            answer = sender.send_request(request) => Some(answer.ok()?.status().as_u16()),
            () = driver => None,
        }
    };
    tokio::time::timeout(PROBE_WITHIN, answer).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p04_a_listening_socket_is_seen_and_no_other() {
        let ports = Ports::default();
        assert!(ports.diag().is_some(), "this kernel has sock_diag");
        for bind in ["127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0"] {
            let listener = TcpListener::bind(bind).unwrap();
            let port = listener.local_addr().unwrap().port();
            let seen = ports.listening(port).unwrap().expect(bind);
            assert!(seen.ip().is_loopback() && seen.port() == port);
            assert!(is_listed(seen).unwrap() || bind == "[::]:0", "{bind}");
            drop(listener);
            // A child that another test is just starting may hold the socket until its exec.
            let deadline = Instant::now() + Duration::from_secs(10);
            while ports.listening(port).unwrap().is_some() {
                assert!(Instant::now() < deadline, "{bind}");
                std::thread::yield_now();
            }
        }
        // Bound, and not listening.
        let socket =
            socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        rustix::net::bind(&socket, &SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 0)).unwrap();
        let address = SocketAddr::try_from(rustix::net::getsockname(&socket).unwrap()).unwrap();
        assert_eq!(ports.listening(address.port()).unwrap(), None);
    }
}
