//! The network as /proc/net shows it: no socket and no privilege needed, and nothing that a filter could bend.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::Network;
use super::procfs::lines;

/// `RTF_UP`: routes without it are templates of the kernel's.
const ROUTE_UP: u32 = 1;
/// State of a listening socket in /proc/net/tcp.
const LISTEN: &str = "0A";

pub(super) fn network() -> Network {
    let (mut abstract_sockets, mut path_sockets) = unix_sockets();
    let mut interfaces: Vec<String> = lines("/proc/net/dev")
        .iter()
        .skip(2)
        .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
        .collect();
    let mut addresses = addresses_4(&lines("/proc/net/fib_trie"));
    addresses.extend(lines("/proc/net/if_inet6").iter().filter_map(|line| {
        let address = Ipv6Addr::from(u128::from_str_radix(line.split(' ').next()?, 16).ok()?);
        Some(address.to_string())
    }));
    let mut routes: Vec<String> =
        lines("/proc/net/route").iter().skip(1).filter_map(|line| route_4(line)).collect();
    routes.extend(lines("/proc/net/ipv6_route").iter().filter_map(|line| route_6(line)));
    let mut listeners: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .flat_map(|path| lines(path))
        .filter_map(|line| listener(&line))
        .collect();
    for list in [
        &mut abstract_sockets,
        &mut path_sockets,
        &mut interfaces,
        &mut addresses,
        &mut routes,
        &mut listeners,
    ] {
        list.sort_unstable();
        list.dedup();
    }
    Network { interfaces, addresses, routes, abstract_sockets, path_sockets, listeners }
}

/// Names of Unix sockets: those that begin with `@` have no file.
fn unix_sockets() -> (Vec<String>, Vec<String>) {
    lines("/proc/net/unix")
        .iter()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(7).map(str::to_owned))
        .partition(|name| name.starts_with('@'))
}

/// An address is a line `|-- ADDRESS` that a line `/32 host LOCAL` follows.
fn addresses_4(trie: &[String]) -> Vec<String> {
    trie.windows(2)
        .filter(|pair| pair[1].trim() == "/32 host LOCAL")
        .filter_map(|pair| Some(pair[0].trim().strip_prefix("|-- ")?.to_owned()))
        .collect()
}

/// Numbers are hexadecimal in the machine's byte order.
fn route_4(line: &str) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [interface, to, via, flags, _, _, _, mask, ..] = fields[..] else { return None };
    let address =
        |hexadecimal: &str| Some(Ipv4Addr::from(u32::from_str_radix(hexadecimal, 16).ok()?.to_ne_bytes()));
    let flags = u32::from_str_radix(flags, 16).ok()?;
    let prefix = u32::from_str_radix(mask, 16).ok()?.count_ones();
    (flags & ROUTE_UP != 0 && interface != "lo")
        .then_some(())
        .and_then(|()| Some(format!("{}/{prefix} via {} dev {interface}", address(to)?, address(via)?)))
}

fn route_6(line: &str) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [to, prefix, _, _, via, _, _, _, flags, interface] = fields[..] else { return None };
    let address = |hexadecimal: &str| Some(Ipv6Addr::from(u128::from_str_radix(hexadecimal, 16).ok()?));
    let flags = u32::from_str_radix(flags, 16).ok()?;
    let prefix = u32::from_str_radix(prefix, 16).ok()?;
    (flags & ROUTE_UP != 0 && interface != "lo")
        .then_some(())
        .and_then(|()| Some(format!("{}/{prefix} via {} dev {interface}", address(to)?, address(via)?)))
}

fn listener(line: &str) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (address, port) = fields.get(1)?.split_once(':')?;
    if *fields.get(3)? != LISTEN {
        return None;
    }
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Option<Vec<[u8; 4]>> = address
        .as_bytes()
        .chunks(8)
        .map(|word| Some(u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?.to_ne_bytes()))
        .collect();
    match words?.as_slice() {
        [word] => Some(format!("{}:{port}", Ipv4Addr::from(*word))),
        words => Some(format!("[{}]:{port}", Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_the_kernel_are_understood() {
        let trie = ["  |-- 127.0.0.1", "     /32 host LOCAL", "  |-- 10.0.0.0", "     /24 link UNICAST"];
        assert_eq!(addresses_4(&trie.map(str::to_owned)), ["127.0.0.1"]);
        let little = cfg!(target_endian = "little");
        let route = if little {
            "eth0 00000000 010200C0 0003 0 0 0 00000000 0 0 0"
        } else {
            "eth0 00000000 C0000201 0003 0 0 0 00000000 0 0 0"
        };
        assert_eq!(route_4(route).unwrap(), "0.0.0.0/0 via 192.0.2.1 dev eth0");
        let route = "fd000000000000000000000000000000 40 00000000000000000000000000000000 00 \
                     00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0";
        assert_eq!(route_6(route).unwrap(), "fd00::/64 via :: dev eth0");
        if little {
            let line = "0: 0100007F:07E8 00000000:0000 0A 0:0 00:0 0 0 0 1061 1";
            assert_eq!(listener(line).unwrap(), "127.0.0.1:2024");
            let line = "0: 00000000000000000000000001000000:0050 0:0 0A x";
            assert_eq!(listener(line).unwrap(), "[::1]:80");
        }
        assert_eq!(listener("0: 0100007F:07E8 00000000:0000 01 0:0"), None);
    }
}
