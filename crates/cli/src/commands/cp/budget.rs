//! How much a sandbox may bring onto this machine: no more than the file system has free, holes counted as if they were
//! written. Zeros become holes again.

use super::rooted::Root;
use anyhow::{Context as _, Result};
use sandcrab_client::FileReader;
use std::io::SeekFrom;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

/// Bytes read at a time.
const BUFFER: usize = 256 << 10;
/// A run of zeros of this length, at a multiple of it, is left out: a block of the usual file systems.
const BLOCK: usize = 4 << 10;

/// The copy is larger than what is free where it goes.
#[derive(Debug)]
pub(super) struct Exhausted {
    size: u64,
    free: u64,
}

impl std::fmt::Display for Exhausted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { size, free } = self;
        write!(f, "the sandbox's files have {size} bytes or more, and {free} are free here")
    }
}

impl std::error::Error for Exhausted {}

pub(super) struct Budget {
    free: u64,
    used: AtomicU64,
}

impl Budget {
    /// All that is free where `root` is.
    pub(super) fn of(root: &Root) -> Result<Self> {
        Ok(Self { free: root.free()?, used: AtomicU64::new(0) })
    }

    /// Refuses at once what the sandbox itself says is too large.
    pub(super) fn expect(&self, sizes: impl Iterator<Item = u64>) -> Result<(), Exhausted> {
        let size = sizes.fold(0, u64::saturating_add);
        if size > self.free { Err(Exhausted { size, free: self.free }) } else { Ok(()) }
    }

    fn take(&self, bytes: u64) -> Result<(), Exhausted> {
        let size = self.used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if size > self.free { Err(Exhausted { size, free: self.free }) } else { Ok(()) }
    }

    /// Copies a file's content, and gives its length.
    pub(super) async fn copy(&self, mut content: FileReader, mut file: tokio::fs::File) -> Result<u64> {
        if let Some(length) = content.length() {
            self.expect(std::iter::once(length))?;
        }
        let mut buffer = vec![0; BUFFER];
        let (mut length, mut hole) = (0, 0_i64);
        loop {
            let mut filled = 0;
            while filled < BUFFER {
                match content.read(&mut buffer[filled..]).await? {
                    0 => break,
                    count => filled += count,
                }
            }
            if filled == 0 {
                break;
            }
            self.take(filled as u64)?;
            length += filled as u64;
            for run in runs(&buffer[..filled]) {
                if is_zero(run) {
                    hole += run.len() as i64;
                    continue;
                }
                if hole > 0 {
                    file.seek(SeekFrom::Current(hole)).await?;
                    hole = 0;
                }
                file.write_all(run).await?;
            }
        }
        // tokio's file writes behind; flushing waits for it.
        file.flush().await?;
        if hole > 0 {
            file.set_len(length).await.context("set the file's length")?;
        }
        Ok(length)
    }
}

fn is_zero(block: &[u8]) -> bool {
    block.len() == BLOCK && block.iter().all(|&byte| byte == 0)
}

/// Whole blocks of zeros, and what is between them.
fn runs(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = match rest.chunks(BLOCK).position(is_zero) {
            Some(0) => BLOCK,
            Some(blocks) => blocks * BLOCK,
            None => rest.len(),
        };
        let (run, after) = rest.split_at(length);
        rest = after;
        Some(run)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b13_zeros_are_told_from_content_by_blocks() {
        let mut bytes = vec![0; 5 * BLOCK + 10];
        bytes[BLOCK] = 1;
        bytes[3 * BLOCK - 1] = 1;
        let lengths: Vec<(usize, bool)> = runs(&bytes).map(|run| (run.len(), is_zero(run))).collect();
        let expected = [(BLOCK, true), (2 * BLOCK, false), (BLOCK, true), (BLOCK, true), (10, false)];
        assert_eq!(lengths, expected);
    }

    #[test]
    fn b13_the_sum_of_all_files_is_bounded() {
        let budget = Budget { free: 10, used: AtomicU64::new(0) };
        budget.expect([4, 6].into_iter()).unwrap();
        assert!(budget.expect([u64::MAX, 6].into_iter()).is_err());
        budget.take(10).unwrap();
        assert!(budget.take(1).unwrap_err().to_string().contains("11 bytes"));
    }
}
