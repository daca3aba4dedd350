//! Reading /proc.

use std::collections::BTreeMap;
use std::fs;

use super::errno;

/// The first line of a file; the error in angle brackets where there is none.
pub(super) fn line(path: &str) -> String {
    match fs::read(path) {
        Ok(text) => String::from_utf8_lossy(&text).lines().next().unwrap_or_default().to_owned(),
        Err(error) => format!("<{}>", errno::of(&error)),
    }
}

/// The lines of a file; none if it cannot be read.
pub(super) fn lines(path: &str) -> Vec<String> {
    let text = fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().map(str::to_owned).collect()
}

/// The value of a field of `/proc/self/status`.
pub(super) fn status(field: &str) -> String {
    let lines = lines("/proc/self/status");
    let value = lines.iter().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.unwrap_or_default().trim().to_owned()
}

/// The numbers in a field of `/proc/self/status`.
pub(super) fn status_numbers(field: &str) -> Vec<u32> {
    status(field).split_whitespace().filter_map(|number| number.parse().ok()).collect()
}

/// Open descriptors, without the one that lists them.
pub(super) fn descriptors() -> BTreeMap<u32, String> {
    let Ok(dir) = fs::read_dir("/proc/self/fd") else { return BTreeMap::new() };
    let numbers: Vec<u32> =
        dir.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    // The directory is closed by now, so its link is gone.
    let target = |number: &u32| fs::read_link(format!("/proc/self/fd/{number}")).ok();
    numbers
        .into_iter()
        .filter_map(|number| Some((number, target(&number)?.to_string_lossy().into_owned())))
        .collect()
}

/// Processes in sight.
pub(super) fn processes() -> BTreeMap<u32, String> {
    let Ok(dir) = fs::read_dir("/proc") else { return BTreeMap::new() };
    let ids = dir.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.map(|id: u32| (id, line(&format!("/proc/{id}/comm")))).collect()
}
