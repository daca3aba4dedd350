//! Classic BPF as seccomp takes it (linux/filter.h, linux/seccomp.h), and how a table of rules becomes a program.
//!
//! The program finds the call's number by bisection, so no call waits behind a long chain of comparisons. Calls whose
//! answer does not depend on an argument are moreover answered by the kernel from a bitmap, without a run.

/// `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) jump_true: u8,
    pub(super) jump_false: u8,
    pub(super) value: u32,
}

/// BPF_LD | BPF_W | BPF_ABS: loads a word of `struct seccomp_data`.
pub(super) const LOAD: u16 = 0x20;
/// BPF_ALU | BPF_AND | BPF_K.
pub(super) const AND: u16 = 0x54;
/// BPF_JMP | BPF_JA.
pub(super) const JUMP: u16 = 0x05;
/// BPF_JMP | BPF_JEQ | BPF_K.
pub(super) const JUMP_EQUAL: u16 = 0x15;
/// BPF_JMP | BPF_JGE | BPF_K.
pub(super) const JUMP_AT_LEAST: u16 = 0x35;
/// BPF_RET | BPF_K.
pub(super) const RETURN: u16 = 0x06;

pub(super) const ALLOW: u32 = 0x7fff_0000;
pub(super) const KILL_PROCESS: u32 = 0x8000_0000;
pub(super) const ERRNO: u32 = 0x0005_0000;
pub(super) const ASK: u32 = 0x7fc0_0000;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

#[cfg(target_arch = "x86_64")]
const OWN_ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const OWN_ARCHITECTURE: u32 = 0xc000_00b7;

/// Numbers from here on are x32 calls of x86-64, which no other architecture has.
const X32: u32 = 0x4000_0000;

/// What a call gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Allow,
    /// It fails with this number; with 0 it succeeds and does nothing.
    Errno(u16),
    /// The listener's owner decides.
    Ask,
}

/// What happens to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Always(Answer),
    /// The answer of the first case whose tests all hold; if there is none, the last one.
    Cases(Vec<(Vec<Test>, Answer)>, Answer),
}

/// Half of an argument, masked, compared with a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Test {
    pub(super) argument: u8,
    pub(super) half: Half,
    pub(super) mask: u32,
    pub(super) compare: Compare,
    pub(super) value: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compare {
    Equal,
    AtLeast,
    Below,
}

/// Which 32 bits of an argument.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Half {
    #[default]
    Low,
    High,
}

/// A program that is written from its end to its beginning, since a jump only leads forward: what it leads to stands already.
/// Places are counted from the end.
#[derive(Default)]
struct Writer {
    reversed: Vec<Instruction>,
    /// Where each answer begins, which all that give it share.
    answers: Vec<(Action, usize)>,
}

impl Writer {
    fn put(&mut self, code: u16, value: u32) -> usize {
        self.reversed.push(Instruction { code, jump_true: 0, jump_false: 0, value });
        self.reversed.len()
    }

    /// The place itself, or that of a jump to it where a conditional jump, which reaches 255 instructions only, would soon
    /// be too short for it.
    fn near(&mut self, place: usize) -> usize {
        let distance = self.reversed.len() - place;
        if distance < 254 { place } else { self.put(JUMP, distance as u32) }
    }

    fn branch(&mut self, code: u16, value: u32, holds: usize, otherwise: usize) -> usize {
        let (holds, otherwise) = (self.near(holds), self.near(otherwise));
        let distance = |place| (self.reversed.len() - place) as u8;
        let (jump_true, jump_false) = (distance(holds), distance(otherwise));
        self.reversed.push(Instruction { code, jump_true, jump_false, value });
        self.reversed.len()
    }

    fn answer(&mut self, action: &Action) -> usize {
        if let Some((_, place)) = self.answers.iter().find(|(other, _)| other == action) {
            return *place;
        }
        let place = match action {
            Action::Always(Answer::Allow) => self.put(RETURN, ALLOW),
            Action::Always(Answer::Errno(number)) => self.put(RETURN, ERRNO | u32::from(*number)),
            Action::Always(Answer::Ask) => self.put(RETURN, ASK),
            Action::Cases(cases, otherwise) => self.cases(cases, *otherwise),
        };
        self.answers.push((action.clone(), place));
        place
    }

    fn cases(&mut self, cases: &[(Vec<Test>, Answer)], otherwise: Answer) -> usize {
        let mut next = self.answer(&Action::Always(otherwise));
        for (all, answer) in cases.iter().rev() {
            let failed = next;
            next = self.answer(&Action::Always(*answer));
            for test in all.iter().rev() {
                match test.compare {
                    Compare::Equal => self.branch(JUMP_EQUAL, test.value, next, failed),
                    Compare::AtLeast => self.branch(JUMP_AT_LEAST, test.value, next, failed),
                    Compare::Below => self.branch(JUMP_AT_LEAST, test.value, failed, next),
                };
                if test.mask != u32::MAX {
                    self.put(AND, test.mask);
                }
                next = self.put(LOAD, 16 + 8 * u32::from(test.argument) + test.half.offset());
            }
        }
        next
    }

    /// Finds the stretch that a number lies in, `end` being where the last one ends. Each question halves the numbers that
    /// are left: the kernel asks for every one of them when it takes the program.
    fn bisect(&mut self, stretches: &[(u32, Action)], end: u32) -> usize {
        let [(start, action), rest @ ..] = stretches else { unreachable!("a program answers every number") };
        if rest.is_empty() {
            return self.answer(action);
        }
        let middle = start + end.saturating_sub(*start) / 2;
        let at = rest.partition_point(|(start, _)| *start < middle).clamp(0, rest.len() - 1) + 1;
        let (left, right) = stretches.split_at(at);
        let pivot = right[0].0;
        let (left, right) = (self.bisect(left, pivot), self.bisect(right, end));
        self.branch(JUMP_AT_LEAST, pivot, right, left)
    }
}

/// Compiles rules, which are sorted by number. What has no rule gets `default`, and so do the calls of x32; a call of
/// another architecture returns `foreign`.
pub(super) fn compile(rules: &[(u32, Action)], default: Answer, foreign: u32) -> Vec<Instruction> {
    let default = Action::Always(default);
    // Stretches of numbers with the same answer, beginning at 0.
    let mut stretches: Vec<(u32, Action)> = vec![(0, default.clone())];
    let mut next = 0;
    let mut add = |start: u32, action: Action| {
        if stretches.last().is_some_and(|(_, last)| *last == action) {
            return;
        }
        stretches.retain(|(other, _)| *other != start);
        stretches.push((start, action));
    };
    for (number, action) in rules {
        if *number > next {
            add(next, default.clone());
        }
        add(*number, action.clone());
        next = number + 1;
    }
    add(next, default.clone());

    let mut writer = Writer::default();
    let native = writer.bisect(&stretches, next);
    let unknown = writer.answer(&default);
    writer.branch(JUMP_AT_LEAST, X32, unknown, native);
    let native = writer.put(LOAD, NUMBER);
    let foreign = writer.put(RETURN, foreign);
    writer.branch(JUMP_EQUAL, OWN_ARCHITECTURE, native, foreign);
    writer.put(LOAD, ARCHITECTURE);
    writer.reversed.reverse();
    writer.reversed
}

impl Half {
    /// Where it lies in the argument.
    const fn offset(self) -> u32 {
        match (self, cfg!(target_endian = "big")) {
            (Self::Low, false) | (Self::High, true) => 0,
            (Self::High, false) | (Self::Low, true) => 4,
        }
    }
}

/// Runs a program as the kernel would; for tests.
#[cfg(test)]
pub(super) fn run(program: &[Instruction], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let load = |offset: u32| match offset {
        NUMBER => number,
        ARCHITECTURE => architecture,
        argument if argument % 8 == Half::Low.offset() => arguments[(argument as usize - 16) / 8] as u32,
        argument => (arguments[(argument as usize - 16) / 8] >> 32) as u32,
    };
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let instruction = program[at];
        at += 1;
        let jump =
            |holds: bool| usize::from(if holds { instruction.jump_true } else { instruction.jump_false });
        match instruction.code {
            LOAD => accumulator = load(instruction.value),
            AND => accumulator &= instruction.value,
            JUMP => at += instruction.value as usize,
            JUMP_EQUAL => at += jump(accumulator == instruction.value),
            JUMP_AT_LEAST => at += jump(accumulator >= instruction.value),
            RETURN => return instruction.value,
            other => panic!("no such instruction: {other:#x}"),
        }
    }
}

#[cfg(test)]
pub(super) const NATIVE: u32 = OWN_ARCHITECTURE;
