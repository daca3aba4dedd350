//! Loop devices (linux/loop.h).

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long other processes may be quicker to take each device that is free. The bound is there only so that a broken
/// kernel cannot keep us here.
const PATIENCE: Duration = Duration::from_secs(10);

const LOOP_CTL_GET_FREE: libc::Ioctl = 0x4C82;
const LOOP_CONFIGURE: libc::Ioctl = 0x4C0A;
const LOOP_SET_DIRECT_IO: libc::Ioctl = 0x4C08;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

/// `struct loop_info64`.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// A loop device over `image`, open, with its path. It clears itself when nothing has it open or mounted any more.
pub(crate) fn attach(image: BorrowedFd<'_>) -> io::Result<(File, PathBuf)> {
    // The kernel names the same device to all that ask at the same time, and one of them gets it: here they take turns.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let control = File::options().read(true).write(true).open("/dev/loop-control")?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        // SAFETY: takes no argument.
        let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = File::options().read(true).write(true).open(&path)?;
        let config = LoopConfig {
            fd: image.as_raw_fd() as u32,
            block_size: 4096,
            // SAFETY: all-zero bytes are a valid loop_info64.
            info: LoopInfo { flags: LO_FLAGS_AUTOCLEAR, ..unsafe { std::mem::zeroed() } },
            reserved: [0; 8],
        };
        // SAFETY: LOOP_CONFIGURE reads a loop_config, which outlives the call.
        if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) } == 0 {
            return Ok((device, path));
        }
        let error = io::Error::last_os_error();
        // Another process took the device that was free a moment ago: the next one, then.
        if error.raw_os_error() != Some(libc::EBUSY) || Instant::now() > deadline {
            return Err(error);
        }
    }
}

/// Has a loop device pass the host's page cache by. Writes out what is in it first, which may take the disk's time.
pub(crate) fn use_direct_io(device: &File) -> io::Result<()> {
    let on: libc::c_ulong = 1;
    // SAFETY: takes a number.
    if unsafe { libc::ioctl(device.as_raw_fd(), LOOP_SET_DIRECT_IO, on) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    /// Two hundred at once: each gets a device, whoever else asks.
    #[test]
    fn e09_all_that_attach_at_once_get_a_device() {
        let dir = tempfile::tempdir().unwrap();
        let attached: Vec<_> = std::thread::scope(|scope| {
            let dir = &dir;
            let attach = move |number: usize| {
                let image = File::create_new(dir.path().join(number.to_string())).unwrap();
                image.set_len(1 << 20).unwrap();
                let image = File::options().read(true).write(true).open(dir.path().join(number.to_string()));
                attach(image.unwrap().as_fd())
            };
            let threads: Vec<_> = (0..200).map(|number| scope.spawn(move || attach(number))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut paths: Vec<_> = attached.iter().map(|one| one.as_ref().unwrap().1.clone()).collect();
        paths.sort();
        paths.dedup();
        assert_eq!(paths.len(), 200);
    }

    #[test]
    fn the_structures_have_the_kernels_size() {
        // LOOP_CONFIGURE copies sizeof(struct loop_config): 4 + 4 + 232 + 64.
        assert_eq!(size_of::<LoopInfo>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 304);
    }
}
