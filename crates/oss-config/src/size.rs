//! File sizes in human-readable form.

/// Number of bytes in a size such as `"5GB"`, `"512 MiB"` or `"1000000"`; `None` if it is invalid or zero.
///
/// `kB`, `MB`, `GB`, `TB` are powers of 1000; `KiB`, `MiB`, `GiB`, `TiB` are powers of 1024. Case does not matter.
pub fn parse_bytes(size: &str) -> Option<u64> {
    let size = size.trim();
    let unit_start = size.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(size.len());
    let (number, unit) = size.split_at(unit_start);
    let unit_bytes: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1000,
        "mb" => 1000_u64.pow(2),
        "gb" => 1000_u64.pow(3),
        "tb" => 1000_u64.pow(4),
        "kib" => 1024,
        "mib" => 1024_u64.pow(2),
        "gib" => 1024_u64.pow(3),
        "tib" => 1024_u64.pow(4),
        _ => return None,
    };
    let bytes = match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(unit_bytes)?,
        Err(_) => {
            let bytes = number.parse::<f64>().ok()? * unit_bytes as f64;
            // Beyond 2^53, a float cannot represent every byte count; no file is that large.
            (bytes < 2_f64.powi(53)).then_some(bytes as u64)?
        }
    };
    (bytes > 0).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::parse_bytes;

    #[test]
    fn reads_decimal_and_binary_units() {
        assert_eq!(parse_bytes("5GB"), Some(5_000_000_000));
        assert_eq!(parse_bytes("5 GiB"), Some(5 << 30));
        assert_eq!(parse_bytes("1.5mb"), Some(1_500_000));
        assert_eq!(parse_bytes("4096"), Some(4096));
    }

    #[test]
    fn rejects_invalid_sizes() {
        for wrong in ["", "GB", "five GB", "5 parsecs", "-1GB", "0", "0.0GB", "1.2.3MB", "99999999999TB"] {
            assert_eq!(parse_bytes(wrong), None, "{wrong}");
        }
    }
}
