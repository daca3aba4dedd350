//! The counts and the order in which connections go.

use super::*;
use futures_util::FutureExt as _;

fn gate(most: usize) -> Gate {
    Gate::with_bounds(Bounds::of(most), Proxies::new(&["192.0.2.99".to_owned()]).unwrap())
}

fn address(number: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, number])
}

fn is_over(connection: &Connection) -> bool {
    connection.expired().now_or_never().is_some()
}

fn count(gate: &Gate) -> (usize, usize) {
    let state = gate.state();
    (state.slots.len(), state.strangers.values().sum())
}

#[tokio::test]
async fn c12_one_address_gets_its_share_and_its_idlest_goes_first() {
    let gate = gate(64);
    let many: Vec<_> = (0..40).map(|_| gate.admit(address(1)).expect("there is room")).collect();
    // A bound of 16 for one address; each more costs the one that was idle longest.
    assert_eq!(count(&gate), (16, 16));
    assert_eq!(many.iter().filter(|connection| is_over(connection)).count(), 24);
    let neighbour = gate.admit(address(2)).unwrap();
    assert!(!is_over(&neighbour));
    // A proxy speaks for many.
    let proxied: Vec<_> = (0..40).map(|_| gate.admit(address(99)).unwrap()).collect();
    assert!(proxied.iter().all(|connection| !is_over(connection)));
    drop((many, neighbour, proxied));
    assert_eq!(count(&gate), (0, 0));
}

#[tokio::test]
async fn c12_who_has_a_key_stays_and_finds_room() {
    let gate = gate(64);
    let keyed: Vec<_> = (0..40).map(|n| gate.admit(address(n)).unwrap()).collect();
    keyed.iter().for_each(|connection| drop(connection.keyed()));
    assert_eq!(count(&gate), (40, 0));
    let strangers: Vec<_> = (0..200).map(|n| gate.admit(address(n)).unwrap()).collect();
    assert!(keyed.iter().all(|connection| !is_over(connection)));
    assert_eq!(count(&gate), (64, 24));
    let newcomer = gate.admit(address(250)).unwrap();
    let busy = newcomer.keyed();
    assert!(!is_over(&newcomer));
    // With no stranger left, idle ones with a key make place, busy ones never.
    drop(strangers);
    let more: Vec<_> = (0..23).map(|n| gate.admit(address(n)).unwrap()).collect();
    let begun: Vec<_> = more.iter().map(Connection::keyed).collect();
    assert_eq!(count(&gate), (64, 0));
    let held: Vec<_> = (0..40).map(|n| gate.admit(address(n)).unwrap().keyed()).collect();
    assert!(keyed.iter().all(is_over) && !more.iter().any(is_over) && !is_over(&newcomer));
    assert!(gate.admit(address(1)).is_none(), "all are in use");
    drop((begun, held, busy));
    assert!(gate.admit(address(1)).is_some());
}

#[tokio::test]
async fn c12_visits_leave_a_reserve() {
    let gate = gate(64);
    let connections: Vec<_> = (0..64).map(|n| gate.admit(address(n)).unwrap()).collect();
    let visits: Vec<_> = connections.iter().map_while(Connection::visit).collect();
    assert_eq!(visits.len(), 48);
    let newcomer = gate.admit(address(200)).expect("what is no visit makes place");
    assert!(newcomer.visit().is_none());
    drop(newcomer.keyed());
    drop(visits);
    assert!(newcomer.visit().is_some());
    assert_eq!(gate.inner.visits.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn c12_idle_connections_end_and_busy_ones_do_not() {
    let mut gate = gate(64);
    // As if it had been made a while ago.
    Arc::get_mut(&mut gate.inner).unwrap().begun -= 2 * KNOWN_IDLE;
    let [silent, known, busy] = [1, 2, 3].map(|n| gate.admit(address(n)).unwrap());
    drop(known.keyed());
    let request = busy.keyed();
    let after = |time: Duration| {
        let used = gate.now() - time.as_millis() as u64;
        [&silent, &known, &busy].map(|connection| {
            connection.held.slot.used.store(used, Ordering::Relaxed);
            is_over(connection)
        })
    };
    assert_eq!(after(UNKNOWN_IDLE / 2), [false, false, false]);
    assert_eq!(after(UNKNOWN_IDLE), [true, false, false]);
    assert_eq!(after(KNOWN_IDLE), [true, true, false]);
    drop(request);
    assert_eq!(after(KNOWN_IDLE), [true, true, true]);
    assert_eq!(after(Duration::ZERO), [false, false, false]);
    busy.end();
    assert_eq!(after(Duration::ZERO), [false, false, true]);
}
