//! Paths that a child follows before its exec: with the user's rights, and never through a magic link.
//!
//! The links of `/proc` to descriptors, directories and programs (`/proc/self/fd/N`, `/proc/self/exe`, ...) lead past
//! every mount and root. Until its exec a child is still the agent in them: its program is the agent's. Everything
//! here runs in that child, so as in child.rs it does nothing but system calls on memory of its own.

use std::ffi::{c_char, c_int, c_long};

/// Longest path of the kernel (PATH_MAX).
const LONGEST: usize = 4096;
/// How much of a program the kernel looks at (BINPRM_BUF_SIZE).
const HEAD: usize = 256;
/// How many scripts may run each other before the kernel gives up.
const DEPTH: usize = 6;
/// Most program headers that the kernel reads: 64 KiB of them.
const HEADERS: u64 = (64 << 10) / 32;

/// Refuse magic links (openat2(2)).
pub(crate) const NO_MAGICLINKS: u64 = 0x02;

/// Why a path cannot be used.
#[derive(Clone, Copy)]
pub(super) enum Unusable {
    /// The kernel says so.
    Errno(c_int),
    /// It leads through a magic link.
    MagicLink,
    /// It has no place below the root any more.
    Outside,
}

#[repr(C)]
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

/// Opens a path; `resolve` is how it is resolved, [`NO_MAGICLINKS`] but in tests.
///
/// # Safety
/// `path` ends with a NUL byte.
unsafe fn open(path: *const c_char, flags: c_int, resolve: u64) -> Result<c_int, Unusable> {
    let how = |flags: c_int, resolve| OpenHow { flags: (flags | libc::O_CLOEXEC) as u64, mode: 0, resolve };
    let call = |how: OpenHow| {
        let size = size_of::<OpenHow>() as c_long;
        // SAFETY: reads the caller's path and a value of this frame.
        let fd = unsafe {
            libc::syscall(libc::SYS_openat2, c_long::from(libc::AT_FDCWD), path, &raw const how, size)
        };
        if fd >= 0 {
            return Ok(fd as c_int);
        }
        // SAFETY: errno is this thread's own.
        Err(unsafe { *libc::__errno_location() })
    };
    match call(how(flags, resolve)) {
        Ok(fd) => Ok(fd),
        // So the kernel refuses a magic link, and a loop of honest ones.
        Err(libc::ELOOP) if resolve != 0 => match call(how(libc::O_PATH, 0)) {
            Err(libc::ELOOP) => Err(Unusable::Errno(libc::ELOOP)),
            _ => Err(Unusable::MagicLink),
        },
        Err(errno) => Err(Unusable::Errno(errno)),
    }
}

/// Goes to a directory, which must have a place below the root.
///
/// # Safety
/// As for [`open`].
pub(super) unsafe fn enter(path: *const c_char, resolve: u64) -> Result<(), Unusable> {
    // SAFETY: the caller's path; the other calls read and write values of this frame.
    unsafe {
        let fd = open(path, libc::O_PATH | libc::O_DIRECTORY, resolve)?;
        if libc::syscall(libc::SYS_fchdir, c_long::from(fd)) < 0 {
            return Err(Unusable::Errno(*libc::__errno_location()));
        }
        let mut here = [0u8; LONGEST];
        if libc::syscall(libc::SYS_getcwd, here.as_mut_ptr(), LONGEST as c_long) < 0 {
            let errno = *libc::__errno_location();
            // Removed, as the kernel says it of a directory that could be entered.
            return Err(if errno == libc::ENOENT { Unusable::Outside } else { Unusable::Errno(errno) });
        }
        // The kernel writes "(unreachable)" before one that is not below the root.
        if here[0] == b'/' { Ok(()) } else { Err(Unusable::Outside) }
    }
}

/// Looks at a program, and at the interpreters that the kernel would run for it.
///
/// What a hostile process swaps between this look and the exec gets it the agent's program, as the user and with the
/// user's confinement; nothing else that a magic link names is left in this child.
///
/// # Safety
/// As for [`open`].
pub(super) unsafe fn check_program(program: *const c_char, resolve: u64) -> Result<(), Unusable> {
    let mut name = [0u8; LONGEST];
    for depth in 0..DEPTH {
        let path = if depth == 0 { program } else { name.as_ptr().cast() };
        // A FIFO must not block here; the exec refuses it.
        let flags = libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY;
        // SAFETY: the caller's path, or one of this frame that ends with a NUL byte.
        let fd = unsafe { open(path, flags, resolve)? };
        let mut head = [0u8; HEAD];
        if read_at(fd, &mut head, 0) == 0 {
            return Ok(());
        }
        if let Some(line) = head.strip_prefix(b"#!") {
            if !script_interpreter(line, &mut name) {
                return Ok(());
            }
            continue;
        }
        if elf_interpreter(fd, &head, &mut name) {
            // SAFETY: a path of this frame that ends with a NUL byte.
            unsafe { open(name.as_ptr().cast(), libc::O_PATH, resolve)? };
        }
        return Ok(());
    }
    Ok(())
}

/// How many bytes there were; none of what cannot be read, which the exec says.
fn read_at(fd: c_int, into: &mut [u8], at: u64) -> usize {
    // SAFETY: writes into the slice, no further than its length.
    let count =
        unsafe { libc::syscall(libc::SYS_pread64, c_long::from(fd), into.as_mut_ptr(), into.len(), at) };
    usize::try_from(count).unwrap_or(0)
}

/// Copies the path behind `#!` as the kernel reads it (binfmt_script.c).
fn script_interpreter(line: &[u8], name: &mut [u8; LONGEST]) -> bool {
    let mut length = 0;
    for byte in line {
        match byte {
            b' ' | b'\t' if length == 0 => {}
            b' ' | b'\t' | b'\n' | 0 => break,
            byte => {
                if let Some(place) = name.get_mut(length) {
                    *place = *byte;
                    length += 1;
                }
            }
        }
    }
    if let Some(end) = name.get_mut(length) {
        *end = 0;
    }
    length > 0
}

/// A little-endian number; zero where there is none.
fn number(bytes: &[u8], at: usize, size: usize) -> u64 {
    let mut value = 0;
    for i in (0..size).rev() {
        value = value << 8 | u64::from(bytes.get(at + i).copied().unwrap_or(0));
    }
    value
}

/// Copies the path of an ELF program's own interpreter, if it names one (elf(5), binfmt_elf.c).
fn elf_interpreter(fd: c_int, head: &[u8; HEAD], name: &mut [u8; LONGEST]) -> bool {
    const PT_INTERP: u64 = 3;
    if !head.starts_with(b"\x7fELF") {
        return false;
    }
    // Where the table of headers is, the size and number of its entries; in an entry, where the text is and its length.
    let wide = head[4] == 2;
    let (table, entry_size, entries) = if wide {
        (number(head, 32, 8), number(head, 54, 2), number(head, 56, 2))
    } else {
        (number(head, 28, 4), number(head, 42, 2), number(head, 44, 2))
    };
    for i in 0..entries.min(HEADERS) {
        let mut entry = [0u8; 64];
        read_at(fd, &mut entry, table.wrapping_add(i * entry_size));
        if number(&entry, 0, 4) != PT_INTERP {
            continue;
        }
        let (text, length) = if wide {
            (number(&entry, 8, 8), number(&entry, 32, 8))
        } else {
            (number(&entry, 4, 4), number(&entry, 16, 4))
        };
        let most = usize::try_from(length).unwrap_or(LONGEST).min(LONGEST - 1);
        let count = name.get_mut(..most).map_or(0, |part| read_at(fd, part, text));
        if let Some(end) = name.get_mut(count) {
            *end = 0;
        }
        return count > 0;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a30_interpreters_are_read_as_the_kernel_reads_them() {
        let script = |line: &[u8]| {
            let mut name = [0xff; LONGEST];
            script_interpreter(line, &mut name).then(|| {
                let end = name.iter().position(|byte| *byte == 0).expect("it ends");
                String::from_utf8_lossy(&name[..end]).into_owned()
            })
        };
        assert_eq!(script(b"/bin/sh\n").as_deref(), Some("/bin/sh"));
        assert_eq!(script(b" \t/usr/bin/env -S a b\nx").as_deref(), Some("/usr/bin/env"));
        assert_eq!(script(b"/proc/self/exe\0\0").as_deref(), Some("/proc/self/exe"));
        assert_eq!(script(b"\n/bin/sh"), None);
        assert_eq!(script(b""), None);

        let elf = std::fs::File::open("/bin/sh").expect("/bin/sh opens");
        let fd = std::os::fd::AsRawFd::as_raw_fd(&elf);
        let (mut head, mut name) = ([0; HEAD], [0; LONGEST]);
        assert_eq!(read_at(fd, &mut head, 0), HEAD);
        assert!(elf_interpreter(fd, &head, &mut name));
        let end = name.iter().position(|byte| *byte == 0).expect("it ends");
        let name = String::from_utf8_lossy(&name[..end]).into_owned();
        assert!(name.contains("/ld-") && std::path::Path::new(&name).exists(), "{name}");
        assert!(!elf_interpreter(fd, &[0; HEAD], &mut [0; LONGEST]));
    }
}
