//! The null device, whatever stands at `/dev/null` by now: root in the sandbox may put a FIFO there, whose opening waits for
//! another end, or a link to somewhere else (attack A33). The device is opened once, before anything of the user's runs.

use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags, fstat, major, minor};
use std::io;
use std::sync::OnceLock;

static DEVICE: OnceLock<OwnedFd> = OnceLock::new();

/// What a null device is, on every Linux (devices.txt).
const NUMBER: (u32, u32) = (1, 3);

/// Opens the device for [`open`]; called as the agent starts.
///
/// # Errors
/// If something else stands there.
pub(crate) fn find() -> io::Result<&'static OwnedFd> {
    if let Some(device) = DEVICE.get() {
        return Ok(device);
    }
    // O_PATH opens nothing of what is found.
    let device = rustix::fs::open(c"/dev/null", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let stat = fstat(&device)?;
    let is_device = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_char_device();
    if !is_device || (major(stat.st_rdev), minor(stat.st_rdev)) != NUMBER {
        return Err(io::Error::other("/dev/null is not the null device"));
    }
    Ok(DEVICE.get_or_init(|| device))
}

/// The device, opened anew: flags and locks of one command are not another's.
pub(crate) fn open(access: OFlags) -> io::Result<OwnedFd> {
    // The link leads to the device itself, by no path.
    let path = format!("/proc/self/fd/{}", find()?.as_raw_fd());
    Ok(rustix::fs::open(path, access | OFlags::CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a33_it_is_the_device_and_a_fresh_one_each_time() {
        let [first, second] = [OFlags::RDWR, OFlags::WRONLY].map(|access| open(access).unwrap());
        assert_eq!(rustix::io::write(&second, b"x").unwrap(), 1);
        let mut byte = [0];
        assert_eq!(rustix::io::read(&first, &mut byte).unwrap(), 0);
        rustix::io::ioctl_fionbio(&first, true).unwrap();
        assert!(!rustix::fs::fcntl_getfl(&second).unwrap().contains(OFlags::NONBLOCK));
    }
}
