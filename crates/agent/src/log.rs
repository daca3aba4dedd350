//! What the agent writes for people: a file on the host's disk, handed over as stderr. What it holds is bounded, because code
//! in the sandbox causes much of it (attack E03).

use rustix::fs::{FileType, fstat, ftruncate};
use rustix::io::{Errno, pread, write};
use rustix::stdio::stderr;
use std::io;
use std::os::fd::AsFd;

/// Past this many bytes the beginning is taken away.
const MOST: u64 = 1 << 20;
/// This much of the end is kept then.
const KEPT: usize = 256 << 10;

/// Writes to stderr.
pub(crate) struct Log;

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = rustix::io::retry_on_intr(|| write(stderr(), bytes))?;
        bound(stderr())?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Has panics told of in the log's own form. What they are told in by default passes by its bound.
pub(crate) fn tell_of_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let message = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(place, message, "a task panicked");
    }));
}

/// Takes away the beginning of a file that has become too long; leaves alone what is no file, or is not open to be read.
fn bound(log: impl AsFd) -> Result<(), Errno> {
    let stat = fstat(&log)?;
    let length = stat.st_size.cast_unsigned();
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile || length <= MOST {
        return Ok(());
    }
    let mut end = vec![0; KEPT];
    let mut filled = 0;
    while filled < KEPT {
        match pread(&log, &mut end[filled..], length - (KEPT - filled) as u64) {
            Ok(0) | Err(Errno::BADF) => break,
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    let end = &end[..filled];
    // From the first whole line on.
    let mut rest = memchr::memchr(b'\n', end).map_or(end, |at| &end[at + 1..]);
    ftruncate(&log, 0)?;
    while !rest.is_empty() {
        match write(&log, rest) {
            Ok(count) => rest = &rest[count..],
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn e03_a_log_keeps_its_end_within_a_bound() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.log");
        let mut file = std::fs::File::options().create(true).read(true).append(true).open(&path).unwrap();
        let mut longest = 0;
        for number in 0..100_000 {
            writeln!(file, "{{\"line\":{number},\"rest\":\"{}\"}}", "x".repeat(60)).unwrap();
            bound(&file).unwrap();
            longest = longest.max(file.metadata().unwrap().len());
        }
        assert!(longest <= MOST, "{longest}");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.len() >= KEPT / 2);
        let numbers: Vec<u64> = text
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["line"].as_u64().unwrap())
            .collect();
        assert_eq!(numbers.last(), Some(&99_999));
        assert!(numbers.windows(2).all(|two| two[0] + 1 == two[1]), "nothing is missing in what is kept");
    }
}
