//! Memory of this process, as reported by Linux.

use std::fs;

/// Resident memory of this process in bytes.
pub fn resident_bytes() -> u64 {
    status("VmRSS:")
}

/// Peak of [`resident_bytes`] since the start or the last call of [`forget_resident_peak`].
pub fn resident_peak_bytes() -> u64 {
    status("VmHWM:")
}

/// Resets the peak. If the system refuses, the old peak stays.
pub fn forget_resident_peak() {
    // "5" resets the peak: see proc(5).
    let _ = fs::write("/proc/self/clear_refs", "5");
}

fn status(field: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    #[test]
    fn a_large_buffer_is_seen_and_its_peak_remembered() {
        // Other tests may free memory in the meantime, but not always.
        let is_seen = (0..100).any(|_| {
            let enough = resident_bytes() + (50 << 20);
            let buffer = black_box(vec![1u8; 64 << 20]);
            let is_seen = resident_bytes() >= enough;
            drop(buffer);
            // The kernel's peak may differ from its own sums by a few pages.
            is_seen && resident_peak_bytes() >= enough
        });
        assert!(is_seen);
    }
}
