use super::*;
use std::sync::LazyLock;

static PROGRAMS: LazyLock<[Vec<bpf::Instruction>; 2]> =
    LazyLock::new(|| [Agent::Apart, Agent::SameId].map(|agent| program(agent, &USUAL).unwrap()));

const USUAL: Isolation = Isolation { debugging: None, socket_lists: None, async_io: None, ping: None };

fn run(program: &[bpf::Instruction], call: &str, arguments: &[u64]) -> u32 {
    let mut all = [0; 6];
    all[..arguments.len()].copy_from_slice(arguments);
    bpf::run(program, bpf::NATIVE, names::number(call).unwrap(), all)
}

fn verdict(agent: Agent, call: &str, arguments: &[u64]) -> u32 {
    run(&PROGRAMS[agent as usize], call, arguments)
}

fn errno(number: i32) -> u32 {
    bpf::ERRNO | number as u32
}

#[test]
fn every_known_call_stands_in_one_rule() {
    let rules = policy().unwrap().rules(Agent::Apart, &USUAL).unwrap();
    let missing: Vec<_> =
        names::all().filter(|(_, number)| rules.iter().all(|(other, _)| other != number)).collect();
    assert_eq!(missing, []);
    assert_eq!(rules.len(), names::all().count());
}

#[test]
fn each_call_gets_its_own_answer() {
    for (number, action) in policy().unwrap().rules(Agent::Apart, &USUAL).unwrap() {
        let seen = bpf::run(&PROGRAMS[0], bpf::NATIVE, number, [0; 6]);
        match action {
            Action::Always(Answer::Allow) => assert_eq!(seen, bpf::ALLOW, "{number}"),
            Action::Always(Answer::Errno(expected)) => {
                assert_eq!(seen, errno(expected.into()), "{number}");
            }
            Action::Always(Answer::Ask) => panic!("{number} waits for an answer that does not come"),
            Action::Cases(..) => {}
        }
    }
}

#[test]
fn a10_new_namespaces_are_refused_by_any_way() {
    for flag in [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
        assert_eq!(verdict(Agent::Apart, "clone", &[flag | 17]), errno(libc::EPERM), "{flag:#x}");
        assert_eq!(verdict(Agent::Apart, "unshare", &[flag]), errno(libc::EPERM), "{flag:#x}");
    }
    assert_eq!(verdict(Agent::Apart, "unshare", &[0x80]), errno(libc::EPERM), "CLONE_NEWTIME");
    let thread =
        libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
    assert_eq!(verdict(Agent::Apart, "clone", &[thread as u64]), bpf::ALLOW);
    assert_eq!(verdict(Agent::Apart, "unshare", &[libc::CLONE_FS as u64]), bpf::ALLOW);
    assert_eq!(verdict(Agent::Apart, "clone3", &[]), errno(libc::ENOSYS));
}

#[test]
fn sockets_are_of_the_listed_families_types_and_protocols() {
    let (stream, datagram, raw) = (1, 2, 3);
    let allowed = [
        (1, stream, 0),
        (1, datagram, 0),
        (1, 5, 0),
        (1, stream, 1),
        (2, stream, 0),
        (2, stream, 6),
        (2, datagram, 0),
        (2, datagram, 17),
        (2, datagram, 1),
        (10, stream, 0),
        (10, stream, 6),
        (10, datagram, 0),
        (10, datagram, 17),
        (10, datagram, 58),
        (16, raw, 0),
        (16, raw, 4),
    ];
    for wanted in allowed {
        let (family, kind, protocol) = wanted;
        for flags in [0, 0x80000, 0x800] {
            let seen = verdict(Agent::Apart, "socket", &[family, kind | flags, protocol]);
            assert_eq!(seen, bpf::ALLOW, "{wanted:?}");
        }
    }
    for family in 0..46 {
        for kind in [stream, datagram, raw, 5, 10] {
            for protocol in (0..=262).filter(|protocol| !allowed.contains(&(family, kind, *protocol))) {
                let seen = verdict(Agent::Apart, "socket", &[family, kind, protocol]);
                // The kernel itself looks at the types of those.
                let expected = match family {
                    1 if protocol < 2 => bpf::ALLOW,
                    16 if [0, 4].contains(&protocol) => bpf::ALLOW,
                    2 | 10 if kind == raw => errno(libc::EPERM),
                    2 | 10 | 16 => errno(libc::EPROTONOSUPPORT),
                    _ => errno(libc::EAFNOSUPPORT),
                };
                assert_eq!(seen, expected, "family {family} type {kind} protocol {protocol}");
            }
        }
    }
}

#[test]
fn options_take_calls_away_by_name_and_give_them() {
    let with = |isolation| program(Agent::Apart, &isolation).unwrap();
    let strict = with(Isolation { debugging: Some(false), socket_lists: Some(false), ..USUAL });
    let wide = with(Isolation { async_io: Some(true), ..USUAL });
    for call in ["ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd"] {
        assert_eq!(verdict(Agent::Apart, call, &[]), bpf::ALLOW, "{call}");
        assert_eq!(run(&strict, call, &[]), errno(libc::EPERM), "{call}");
    }
    let lists = [16, 3, 4];
    assert_eq!(verdict(Agent::Apart, "socket", &lists), bpf::ALLOW);
    assert_eq!(run(&strict, "socket", &lists), errno(libc::EPROTONOSUPPORT));
    assert_eq!(run(&strict, "socket", &[16, 3, 0]), bpf::ALLOW, "routes");
    assert_eq!(verdict(Agent::Apart, "io_setup", &[]), errno(libc::ENOSYS));
    assert_eq!(run(&wide, "io_setup", &[]), bpf::ALLOW);
}

#[test]
fn e12_receive_queues_keep_their_size_and_filters_take_no_shared_memory() {
    let set = |level, option| verdict(Agent::Apart, "setsockopt", &[3, level, option]);
    for option in [8, 33] {
        assert_eq!(set(1, option), errno(0), "{option} succeeds and does nothing");
    }
    for option in [26, 50, 51, 52] {
        assert_eq!(set(1, option), errno(libc::ENOPROTOOPT), "{option}");
    }
    assert_eq!(set(1, 7), bpf::ALLOW, "SO_SNDBUF");
    assert_eq!(set(6, 8), bpf::ALLOW, "TCP_LINGER2 has the same number");
    assert_eq!(set(0, 33), bpf::ALLOW);
}

#[test]
fn e11_huge_pages_of_the_machine_are_not_there() {
    assert_eq!(verdict(Agent::Apart, "mmap", &[0, 4096, 3, 0x22]), bpf::ALLOW);
    assert_eq!(verdict(Agent::Apart, "mmap", &[0, 4096, 3, 0x40022]), errno(libc::ENOMEM));
    assert_eq!(verdict(Agent::Apart, "memfd_create", &[1, 3]), bpf::ALLOW);
    assert_eq!(verdict(Agent::Apart, "memfd_create", &[1, 7]), errno(libc::EINVAL));
    assert_eq!(verdict(Agent::Apart, "shmget", &[0, 4096, 0o1600]), bpf::ALLOW);
    assert_eq!(verdict(Agent::Apart, "shmget", &[0, 4096, 0o5600]), errno(libc::ENOMEM));
}

#[test]
fn e14_the_page_cache_of_the_host_is_neither_seen_nor_emptied() {
    for call in ["mincore", "cachestat", "process_madvise"] {
        assert_eq!(verdict(Agent::Apart, call, &[]), errno(libc::ENOSYS), "{call}");
    }
    assert_eq!(verdict(Agent::Apart, "fadvise64", &[3, 0, 0, 4]), errno(0), "POSIX_FADV_DONTNEED");
    assert_eq!(verdict(Agent::Apart, "fadvise64", &[3, 0, 0, 2]), bpf::ALLOW);
    assert_eq!(verdict(Agent::Apart, "madvise", &[0, 0, 21]), errno(0), "MADV_PAGEOUT");
    assert_eq!(verdict(Agent::Apart, "madvise", &[0, 0, 12]), errno(libc::EINVAL), "MADV_MERGEABLE");
    assert_eq!(verdict(Agent::Apart, "madvise", &[0, 0, 4]), bpf::ALLOW, "MADV_DONTNEED");
    assert_eq!(verdict(Agent::Apart, "prctl", &[67, 1]), errno(libc::EINVAL), "PR_SET_MEMORY_MERGE");
    assert_eq!(verdict(Agent::Apart, "prctl", &[38, 1]), bpf::ALLOW);
    assert_eq!(verdict(Agent::Apart, "sync", &[]), errno(0));
    assert_eq!(verdict(Agent::Apart, "syncfs", &[3]), bpf::ALLOW);
}

#[test]
fn core_dumps_stay_off_while_reading_their_limit_works() {
    let core = 4;
    for agent in [Agent::Apart, Agent::SameId] {
        assert_eq!(verdict(agent, "setrlimit", &[core, 0x1000]), errno(0));
        assert_eq!(verdict(agent, "setrlimit", &[7, 0x1000]), bpf::ALLOW);
        assert_eq!(verdict(agent, "prlimit64", &[0, core, 0x1000]), errno(0));
        assert_eq!(verdict(agent, "prlimit64", &[0, core, 0x7fff_0000_0000]), errno(0), "low half is 0");
        assert_eq!(verdict(agent, "prlimit64", &[0, core, 0, 0x1000]), bpf::ALLOW);
        assert_eq!(verdict(agent, "prlimit64", &[0, 7, 0x1000]), bpf::ALLOW);
    }
}

#[test]
fn a32_only_requests_that_could_hold_up_an_exit_are_asked_about() {
    let guard = guard(Answer::Ask);
    let trace_exit = 0x40;
    for request in [0x4200, 0x4206, 21] {
        for options in [trace_exit, 0x7f, 0x10_0000 | trace_exit] {
            assert_eq!(run(&guard, "ptrace", &[request, 7, 0, options]), bpf::ASK, "{request:#x}");
        }
        assert_eq!(run(&guard, "ptrace", &[request, 7, 0, 0x3f]), bpf::ALLOW, "{request:#x}: gdb's");
    }
    for request in [0, 16, 0x4207] {
        assert_eq!(run(&guard, "ptrace", &[request, 7, 0, trace_exit]), bpf::ALLOW, "{request:#x}");
    }
    for (_, number) in names::all() {
        assert_eq!(bpf::run(&guard, bpf::NATIVE, number, [0; 6]), bpf::ALLOW, "{number}");
    }
    assert_eq!(bpf::run(&guard, 0x4000_0003, 26, [0x4206, 7, 0, 0x40, 0, 0]), bpf::ALLOW, "not its task");
    assert!(guard.len() < 32, "{}", guard.len());
}

#[test]
fn a21_terminals_take_no_foreign_input() {
    for request in [0x5412_u64, 0x541c, 0x541d, 0x5423, 0xdead_beef_0000_5412] {
        assert_eq!(verdict(Agent::Apart, "ioctl", &[0, request]), errno(libc::EPERM), "{request:#x}");
    }
    assert_eq!(verdict(Agent::Apart, "ioctl", &[0, 0x5401]), bpf::ALLOW, "TCGETS");
    assert_eq!(verdict(Agent::Apart, "ioctl", &[0, 0x540e, 0]), bpf::ALLOW, "TIOCSCTTY");
    assert_eq!(verdict(Agent::Apart, "ioctl", &[0, 0x540e, 1]), errno(libc::EPERM), "stolen");
}

#[test]
fn a28_with_one_id_the_agent_is_not_addressed() {
    for call in ["kill", "tgkill", "tkill", "prlimit64", "sched_setaffinity", "pidfd_open"] {
        for thread in 1..=u64::from(AGENT_THREADS) {
            assert_eq!(verdict(Agent::SameId, call, &[thread]), errno(libc::EPERM), "{call} {thread}");
        }
        for other in [0, u64::from(AGENT_THREADS) + 1, u64::MAX] {
            assert_eq!(verdict(Agent::SameId, call, &[other]), bpf::ALLOW, "{call} {other}");
        }
        assert_eq!(verdict(Agent::Apart, call, &[1]), bpf::ALLOW, "{call}");
    }
    assert_eq!(verdict(Agent::SameId, "setpriority", &[0, 1]), errno(libc::EPERM));
    assert_eq!(verdict(Agent::SameId, "setpriority", &[1, 0]), bpf::ALLOW);
    assert_eq!(verdict(Agent::SameId, "setpriority", &[2, 0]), errno(libc::EPERM), "PRIO_USER");
    assert_eq!(verdict(Agent::Apart, "setpriority", &[2, 0]), bpf::ALLOW);
    assert_eq!(verdict(Agent::SameId, "ioprio_set", &[3, 0]), errno(libc::EPERM), "IOPRIO_WHO_USER");
}

#[test]
fn a20_other_architectures_end_the_process_and_x32_does_not_exist() {
    let program = program(Agent::Apart, &USUAL).unwrap();
    assert_eq!(bpf::run(&program, 0x4000_0003, 1, [0; 6]), bpf::KILL_PROCESS, "i386");
    assert_eq!(bpf::run(&program, bpf::NATIVE, 0x4000_0001, [0; 6]), errno(libc::ENOSYS), "x32");
    assert_eq!(bpf::run(&program, bpf::NATIVE, 999, [0; 6]), errno(libc::ENOSYS), "newer than this list");
}

#[test]
fn jumps_reach_their_ends_in_long_programs() {
    let test =
        |value| vec![Test { argument: 0, half: Half::Low, mask: u32::MAX, compare: Compare::Equal, value }];
    let rules: Vec<_> = (0..400)
        .map(|number| {
            let cases = vec![(test(number), Answer::Allow), (test(7), Answer::Allow)];
            (number, Action::Cases(cases, Answer::Errno(number as u16 + 1)))
        })
        .collect();
    let program = bpf::compile(&rules, Answer::Errno(38), bpf::KILL_PROCESS);
    assert!(program.len() > 1024, "{}", program.len());
    for number in 0..400 {
        let run = |argument| bpf::run(&program, bpf::NATIVE, number, [argument, 0, 0, 0, 0, 0]);
        assert_eq!(run(u64::from(number)), bpf::ALLOW, "{number}");
        assert_eq!(run(7), bpf::ALLOW, "{number}");
        assert_eq!(run(1000), errno(number as i32 + 1), "{number}");
    }
    assert_eq!(bpf::run(&program, bpf::NATIVE, 400, [0; 6]), errno(38));
    assert_eq!(bpf::run(&program, 0, 3, [3; 6]), bpf::KILL_PROCESS);
}

#[test]
fn the_program_is_short_and_flat() {
    let program = program(Agent::SameId, &USUAL).unwrap();
    assert!(program.len() < 384, "{}", program.len());
}
