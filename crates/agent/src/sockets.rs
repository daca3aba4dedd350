//! The memory that sockets hold, which no memory limit of the kernel counts (attack E12).
//!
//! What waits in the queues of TCP, UDP, ping and netlink sockets is charged to nothing: a small sandbox could hold a
//! gigabyte of the host's memory. One socket is bounded by the launch (`tcp_rmem`, `tcp_wmem`) and by the system call filter
//! (`SO_RCVBUF`); this bounds their sum. The number of sockets is read a few times a second, and only where so many could
//! hold the bound they are looked at one by one. Above the bound the process that holds most is ended; where that does not help,
//! because many hold a little each, all of the sandbox's processes are.

use crate::events::Events;
use rustix::fd::OwnedFd;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, send, socket_with, sockopt,
};
use rustix::process::{Pid, Signal, kill_process};
use sandcrab_api::sandbox::AgentEventKind;
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How often the number of sockets is read, which takes 4 us.
const QUIET: Duration = Duration::from_millis(250);
/// How often while there are so many that they could soon hold the bound: a machine fills 10 MiB meanwhile.
const BUSY: Duration = Duration::from_millis(20);
/// Looks at every socket are further apart than they took, so that they cost a twentieth of one CPU at the most.
const PAUSES: u32 = 20;
/// What one socket can hold at the most in its two queues, where the kernel does not say: Linux's own `wmem_max` of 4 MiB,
/// which it doubles, and a receive queue.
const EACH: u64 = 9 << 20;
/// After so many looks at which a process was ended and the sum is still above the bound, all are.
const PATIENCE: u32 = 3;
/// Descriptors that one look goes through to find who has a socket.
const MOST_LINKS: usize = 200_000;

/// linux/sock_diag.h, linux/inet_diag.h, linux/netlink.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NLMSG_DONE: u16 = 3;
const SKMEMINFO: u16 = 7;
const TCP_LISTEN: u8 = 10;
/// An `inet_diag_msg` behind its `nlmsghdr`.
const MESSAGE: usize = 16 + 72;

/// What one socket holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Held {
    /// 0 for a connection that has not been accepted.
    inode: u64,
    port: u16,
    listens: bool,
    bytes: u64,
}

/// Looks after the sockets of this network namespace for ever. `bound` is in bytes.
pub(crate) async fn watch(bound: u64, events: Arc<Events>) {
    let each = each().unwrap_or(EACH);
    let (mut ended, mut pause) = (0, QUIET);
    loop {
        tokio::time::sleep(pause).await;
        pause = QUIET;
        let number = match std::fs::read_to_string("/proc/self/net/sockstat") {
            Ok(text) => count(&text),
            Err(error) => {
                tracing::warn!(%error, "the number of sockets is not known");
                u64::MAX
            }
        };
        if number.saturating_mul(each) <= bound / 2 {
            continue;
        }
        let begun = Instant::now();
        let look = tokio::task::spawn_blocking(move || look(bound, ended >= PATIENCE)).await;
        pause = if ended > 0 { BUSY } else { (begun.elapsed() * PAUSES).clamp(BUSY, QUIET) };
        ended = match look {
            Ok(Ok(None)) => 0,
            Ok(Ok(Some(over))) => {
                let reason = format!(
                    "sockets held {} bytes of memory, more than {bound}: {} was ended",
                    over.bytes,
                    over.pid.map_or("every process".to_owned(), |pid| format!("process {pid}"))
                );
                let detail = serde_json::json!({ "bytes": over.bytes, "bound": bound, "pid": over.pid });
                events.add(AgentEventKind::SocketMemory, reason, detail);
                ended + 1
            }
            Ok(Err(error)) => {
                tracing::warn!(%error, "what sockets hold is not known");
                0
            }
            Err(panic) => {
                tracing::error!(%panic, "looking at sockets");
                0
            }
        };
    }
}

/// What one socket can hold at the most here: what a send queue is given that asks for all, and the receive queue that no
/// program makes larger (`SO_RCVBUF`), or that of TCP, which the launch has set.
fn each() -> io::Result<u64> {
    const TCP_RECEIVES: usize = 256 << 10;
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_send_buffer_size(&socket, i32::MAX as usize)?;
    let sends = sockopt::socket_send_buffer_size(&socket)?;
    let receives = sockopt::socket_recv_buffer_size(&socket)?.max(TCP_RECEIVES);
    Ok((sends + receives) as u64)
}

/// What was done about too much memory.
struct Over {
    bytes: u64,
    /// The process that was ended; none if all were.
    pid: Option<i32>,
}

fn look(bound: u64, end_all: bool) -> io::Result<Option<Over>> {
    let sockets = sockets()?;
    let bytes = sockets.iter().map(|socket| socket.bytes).sum();
    if bytes <= bound {
        return Ok(None);
    }
    let holder = if end_all { None } else { largest(&by_inode(&sockets), bytes)? };
    match holder {
        Some(pid) => end(pid)?,
        None => {
            for pid in processes()? {
                end(pid)?;
            }
        }
    }
    Ok(Some(Over { bytes, pid: holder }))
}

fn end(pid: i32) -> io::Result<()> {
    let Some(pid) = Pid::from_raw(pid) else { return Ok(()) };
    match kill_process(pid, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The number of sockets of a network namespace: `sockets: used N`.
fn count(sockstat: &str) -> u64 {
    let used = sockstat.lines().find_map(|line| line.strip_prefix("sockets: used "));
    used.and_then(|number| number.trim().parse().ok()).unwrap_or(u64::MAX)
}

/// All sockets whose memory no limit counts.
fn sockets() -> io::Result<Vec<Held>> {
    let mut all = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        all.extend(tcp(family as u8)?);
    }
    for (list, parse) in [
        ("udp", datagram as fn(&str) -> Option<Held>),
        ("udp6", datagram),
        ("icmp", datagram),
        ("icmp6", datagram),
        ("netlink", netlink_socket),
    ] {
        match std::fs::read_to_string(format!("/proc/self/net/{list}")) {
            Ok(text) => all.extend(text.lines().skip(1).filter_map(parse)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

/// A line of /proc/net/{udp,icmp}: `sl local rem st tx_queue:rx_queue tr:tm retrnsmt uid timeout inode …`.
fn datagram(line: &str) -> Option<Held> {
    let mut fields = line.split_ascii_whitespace().skip(4);
    let (sent, received) = fields.next()?.split_once(':')?;
    let number = |text| u64::from_str_radix(text, 16).ok();
    let bytes = number(sent)? + number(received)?;
    Some(Held { inode: fields.nth(4)?.parse().ok()?, bytes, ..Held::default() })
}

/// A line of /proc/net/netlink: `sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode`.
fn netlink_socket(line: &str) -> Option<Held> {
    let mut fields = line.split_ascii_whitespace().skip(4);
    let bytes = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Held { inode: fields.nth(3)?.parse().ok()?, bytes, ..Held::default() })
}

/// The TCP sockets of a family, by sock_diag(7).
fn tcp(family: u8) -> io::Result<Vec<Held>> {
    let diag =
        socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::SOCK_DIAG))?;
    let mut request = Vec::with_capacity(72);
    request.extend_from_slice(&72u32.to_ne_bytes());
    request.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend_from_slice(&NLM_F_REQUEST_DUMP.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    // Family, protocol, what to tell beside the usual, padding, states (all), and no socket in particular.
    request.extend_from_slice(&[
        family,
        libc::IPPROTO_TCP as u8,
        1 << (SKMEMINFO - 1),
        0,
        0xff,
        0xff,
        0xff,
        0xff,
    ]);
    request.resize(72, 0);
    send(&diag, &request, SendFlags::empty())?;
    received(&diag)
}

fn received(diag: &OwnedFd) -> io::Result<Vec<Held>> {
    let (mut found, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let (length, _) = rustix::io::retry_on_intr(|| recv(diag, &mut buffer[..], RecvFlags::empty()))?;
        let mut rest = &buffer[..length];
        while rest.len() >= 16 {
            let size = u32_at(rest, 0).unwrap_or_default() as usize;
            let kind = u16::from_ne_bytes([rest[4], rest[5]]);
            let Some(message) = rest.get(..size).filter(|message| message.len() >= 16) else {
                return Err(io::ErrorKind::InvalidData.into());
            };
            match kind {
                SOCK_DIAG_BY_FAMILY => found.extend(held(message)),
                NLMSG_DONE => return Ok(found),
                _ => return Err(io::Error::other("the kernel lists no TCP sockets")),
            }
            rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Reads one answer: `inet_diag_msg`, and the attribute with the socket's memory.
fn held(message: &[u8]) -> Option<Held> {
    let port = u16::from_be_bytes([*message.get(20)?, *message.get(21)?]);
    let listens = *message.get(17)? == TCP_LISTEN;
    let inode = u32_at(message, MESSAGE - 4)?.into();
    let mut attributes = message.get(MESSAGE..)?;
    let mut bytes = 0;
    while attributes.len() >= 4 {
        let size = usize::from(u16::from_ne_bytes([attributes[0], attributes[1]]));
        let kind = u16::from_ne_bytes([attributes[2], attributes[3]]);
        let attribute = attributes.get(..size).filter(|attribute| attribute.len() >= 4)?;
        if kind == SKMEMINFO {
            // rmem_alloc, rcvbuf, wmem_alloc, sndbuf, fwd_alloc, wmem_queued, optmem, backlog
            let of = |index: usize| u32_at(attribute, 4 + 4 * index).map_or(0, u64::from);
            bytes = of(0) + of(5) + of(7);
        }
        attributes = attributes.get(size.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(Held { inode, port, listens, bytes })
}

/// How much each open socket answers for: a connection that nothing has accepted counts for the socket that listens.
fn by_inode(sockets: &[Held]) -> HashMap<u64, u64> {
    let listening: HashMap<u16, u64> =
        sockets.iter().filter(|socket| socket.listens).map(|socket| (socket.port, socket.inode)).collect();
    let mut sums = HashMap::new();
    for socket in sockets {
        let inode = match socket.inode {
            0 => listening.get(&socket.port).copied(),
            inode => Some(inode),
        };
        if let Some(inode) = inode {
            *sums.entry(inode).or_default() += socket.bytes;
        }
    }
    sums
}

/// The process whose descriptors answer for most of `bytes`. Where most of it is nobody's, it is that of a process whose
/// descriptors may not be read, which an agent without root's rights has: the one with the largest table of them.
fn largest(sums: &HashMap<u64, u64>, bytes: u64) -> io::Result<Option<i32>> {
    let mut links = 0;
    let (mut most, mut hidden) = ((0, None), (0, None));
    let mut seen = HashSet::new();
    for pid in processes()? {
        let inodes = match socket_inodes(pid, MOST_LINKS - links) {
            Ok((inodes, count)) => {
                links += count;
                inodes
            }
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                hidden = hidden.max((table_size(pid), Some(pid)));
                continue;
            }
            // It has just ended.
            Err(_) => continue,
        };
        let held = inodes.iter().filter_map(|inode| sums.get(inode)).sum();
        seen.extend(inodes);
        if held > most.0 {
            most = (held, Some(pid));
        }
        if links >= MOST_LINKS {
            break;
        }
    }
    let accounted: u64 = seen.iter().filter_map(|inode| sums.get(inode)).sum();
    Ok(if bytes.saturating_sub(accounted) > most.0 && hidden.1.is_some() { hidden.1 } else { most.1 })
}

/// The sockets among a process's descriptors, and how many of these were looked at, at most `limit`.
fn socket_inodes(pid: i32, limit: usize) -> io::Result<(Vec<u64>, usize)> {
    let (mut inodes, mut count) = (Vec::new(), 0);
    for descriptor in std::fs::read_dir(format!("/proc/{pid}/fd"))?.take(limit) {
        count += 1;
        // Closed meanwhile; one that may not be read is told from that.
        let target = match std::fs::read_link(descriptor?.path()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            target => target?,
        };
        let inode: Option<u64> = target
            .to_str()
            .and_then(|target| target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok());
        inodes.extend(inode);
    }
    Ok((inodes, count))
}

/// How many descriptors a process has had open at once, roughly: `FDSize` in proc_pid_status(5).
fn table_size(pid: i32) -> u64 {
    // The name in it may be no text.
    let status = std::fs::read(format!("/proc/{pid}/status")).unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    let size = status.lines().find_map(|line| line.strip_prefix("FDSize:"));
    size.and_then(|size| size.trim().parse().ok()).unwrap_or_default()
}

/// All processes but this one.
fn processes() -> io::Result<Vec<i32>> {
    let own = rustix::process::getpid().as_raw_nonzero().get();
    let names = std::fs::read_dir("/proc")?.flatten();
    let pids = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids.filter(|pid| *pid != own).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsRawFd as _;

    fn inode(socket: &impl std::os::fd::AsRawFd) -> u64 {
        let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).unwrap();
        link.to_str().unwrap().trim_start_matches("socket:[").trim_end_matches(']').parse().unwrap()
    }

    #[test]
    fn e12_what_waits_in_a_queue_is_seen_whoever_has_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut waiting = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        waiting.write_all(&[1; 30_000]).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        udp.send_to(&[1; 9_000], udp.local_addr().unwrap()).unwrap();
        let sums = by_inode(&sockets().unwrap());
        assert!(sums[&inode(&listener)] >= 30_000, "a connection that nothing accepts");
        assert!(sums[&inode(&udp)] >= 9_000);
        let (accepted, _) = listener.accept().unwrap();
        assert!(by_inode(&sockets().unwrap())[&inode(&accepted)] >= 30_000);
        assert!(udp.as_raw_fd() > 0);
    }

    #[test]
    fn e12_the_kernels_lists_are_read_by_column() {
        let udp = "  421: 0100007F:0035 00000000:0000 07 00000010:00000F00 00:00000000 00000000   100        0 19113 2 0000 0";
        assert_eq!(datagram(udp), Some(Held { inode: 19113, bytes: 0xf10, ..Held::default() }));
        let netlink =
            "00000000f3c27b32 0   1234   00000111 4096     16       0        2        0        17683";
        assert_eq!(netlink_socket(netlink), Some(Held { inode: 17683, bytes: 4112, ..Held::default() }));
        assert_eq!(count("sockets: used 17\nTCP: inuse 4\n"), 17);
        assert_eq!(count(""), u64::MAX, "what is not known is looked at");
    }

    #[test]
    fn e12_a_broken_answer_is_no_socket() {
        assert_eq!(held(&[0; 40]), None);
        let mut message = vec![0; MESSAGE + 8];
        message[MESSAGE] = 200;
        assert_eq!(held(&message), None, "an attribute longer than its message");
    }
}
