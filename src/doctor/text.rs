//! Numbers as people read them.

/// `1234567` as `1,234,567`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the unit that fits: `7.6 GB`, `512 KiB` where it is whole.
pub(super) fn bytes(number: u64) -> String {
    match number {
        u64::MAX => "unlimited".to_owned(),
        _ if number >= 1_000_000_000 => format!("{:.1} GB", number as f64 / 1e9),
        _ if number >= 1 << 20 && number.is_multiple_of(1 << 20) => format!("{} MiB", number >> 20),
        _ if number >= 10_000_000 => format!("{:.0} MB", number as f64 / 1e6),
        _ if number >= 1 << 10 && number.is_multiple_of(1 << 10) => format!("{} KiB", number >> 10),
        _ => format!("{} bytes", thousands(number)),
    }
}

/// A limit: `unlimited`, or the number.
pub(super) fn limit(number: u64) -> String {
    if number == u64::MAX { "unlimited".to_owned() } else { thousands(number) }
}

/// `1 ring`, `2 rings`, `2 addresses`.
pub(super) fn count(number: u64, what: &str) -> String {
    match number {
        1 => format!("1 {what}"),
        _ => format!("{} {what}{}", thousands(number), if what.ends_with('s') { "es" } else { "s" }),
    }
}

/// Cores as the kernel lists them: `0-3,8`.
pub(super) fn cores(cores: impl IntoIterator<Item = usize>) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for core in cores {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == core => *last = core,
            _ => runs.push((core, core)),
        }
    }
    let show = |(first, last)| if first == last { format!("{first}") } else { format!("{first}-{last}") };
    runs.into_iter().map(show).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_sizes_have_a_unit() {
        assert_eq!([0, 999, 1000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
        let sizes = [500, 65_536, 64 << 20, 7_600_000_000, 12_345_678, u64::MAX].map(bytes);
        assert_eq!(sizes, ["500 bytes", "64 KiB", "64 MiB", "7.6 GB", "12 MB", "unlimited"]);
        assert_eq!(
            [count(1, "ring"), count(2, "ring"), count(1000, "address")],
            ["1 ring", "2 rings", "1,000 addresses"]
        );
        assert_eq!(cores([0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
    }
}
