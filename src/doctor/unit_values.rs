//! Values of a unit, read by systemd's rules (its src/basic/parse-util.c, rlimit-util.c, cpu-set-util.c, version 252).

use super::host::Limit;
use std::collections::BTreeSet;

/// A limit of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// `infinity`, or none said.
    Unlimited,
    /// So many bytes.
    Bytes(u64),
}

/// `65536`, `1024:524288`, `infinity`; with a unit (`64M`) where it is of bytes.
pub(super) fn limit(value: &str, is_of_bytes: bool) -> Option<Limit> {
    let number = |text: &str| match text {
        "infinity" => Some(u64::MAX),
        _ if is_of_bytes => size(text),
        _ => text.trim().parse().ok(),
    };
    let (soft, hard) = value.split_once(':').unwrap_or((value, value));
    let limit = Limit { soft: number(soft)?, hard: number(hard)? };
    (limit.soft <= limit.hard).then_some(limit)
}

/// `1.5G`, `1073741824B`, `1G 512M`, `50%` of all memory, `infinity`, or nothing.
pub(super) fn memory(value: &str, memory_total: Option<u64>) -> Option<Memory> {
    if value.is_empty() || value == "infinity" {
        return Some(Memory::Unlimited);
    }
    let bytes = match part(value) {
        Some(part) if part <= 1.0 => (memory_total? as f64 * part) as u64,
        Some(_) => return None,
        None => size(value)?,
    };
    (bytes > 0).then_some(Memory::Bytes(bytes))
}

/// `CPUQuota=`: cores, none where there is no limit; nothing at all where it is not understood.
pub(super) fn quota(value: &str) -> Option<Option<f64>> {
    if value.is_empty() {
        return Some(None);
    }
    part(value).filter(|part| *part > 0.0).map(Some)
}

/// `50%`, `12.5%`, `5‰` or `5‱`, as a part of one.
fn part(value: &str) -> Option<f64> {
    let units = [("%", 100.0), ("‰", 1000.0), ("‱", 10_000.0)];
    let (number, whole) = units.iter().find_map(|(unit, whole)| Some((value.strip_suffix(unit)?, whole)))?;
    let is_plain =
        number.starts_with(|c: char| c.is_ascii_digit()) && number.chars().all(|c| c.is_ascii_digit() || c == '.');
    is_plain.then(|| number.parse::<f64>().ok()).flatten().map(|number| number / whole)
}

/// A size by 1024: numbers with a fraction and a unit, the larger units first, all added up.
fn size(value: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 8] = [
        ("E", 1 << 60),
        ("P", 1 << 50),
        ("T", 1 << 40),
        ("G", 1 << 30),
        ("M", 1 << 20),
        ("K", 1 << 10),
        ("B", 1),
        ("", 1),
    ];
    let mut units = &UNITS[..];
    let mut rest = value.trim_start();
    let mut sum = 0u64;
    loop {
        let (whole, behind) = digits(rest);
        let whole: u64 = whole.parse().ok()?;
        let (fraction, behind) = match behind.strip_prefix('.') {
            Some(behind) => digits(behind),
            None => ("", behind),
        };
        let behind = behind.trim_start();
        let at = units.iter().position(|(unit, _)| behind.starts_with(unit))?;
        let (unit, factor) = units[at];
        let fraction = format!("0.{fraction}0").parse::<f64>().ok()?;
        sum = whole.checked_mul(factor)?.checked_add((fraction * factor as f64) as u64)?.checked_add(sum)?;
        units = &units[at + 1..];
        rest = &behind[unit.len()..];
        if rest.is_empty() {
            return i64::try_from(sum).is_ok().then_some(sum);
        }
        rest = rest.trim_start();
    }
}

/// The digits that a text begins with, and what is behind them.
fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Cores as `0-3,8 9` lists them; none where a part of it is something else (`numa`).
pub(super) fn cores(value: &str) -> Option<BTreeSet<usize>> {
    let parts = value.split([' ', '\t', ',']).filter(|part| !part.is_empty());
    let ranges = parts.map(|part| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        (first <= last && last < CORES_MAX).then_some(first..=last)
    });
    Some(ranges.collect::<Option<Vec<_>>>()?.into_iter().flatten().collect())
}

/// The kernel's own bound (CONFIG_NR_CPUS).
const CORES_MAX: usize = 8192;

/// Words of a command line, which may be in quotes.
pub(super) fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in command.chars() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ' | '\t') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_plain_numbers_or_sizes() {
        assert_eq!(limit("1024:4096", false), Some(Limit { soft: 1024, hard: 4096 }));
        assert_eq!(limit("infinity", false), Some(Limit { soft: u64::MAX, hard: u64::MAX }));
        assert_eq!(limit("64M", true), Some(Limit { soft: 64 << 20, hard: 64 << 20 }));
        for ignored in ["", "many", "64K", "1M", "4096:1024", "-1"] {
            assert_eq!(limit(ignored, false), None, "{ignored}: systemd ignores it");
        }
    }

    #[test]
    fn sizes_are_what_systemd_makes_of_them() {
        for (value, bytes) in [
            ("1.5G", 3 << 29),
            ("0.5G", 1 << 29),
            ("1073741824B", 1 << 30),
            ("1073741824", 1 << 30),
            ("1G 512M", 3 << 29),
            ("1G512M", 3 << 29),
            ("10.M", 10 << 20),
            ("2 K", 2 << 10),
            ("50%", 500),
            ("12.5%", 125),
            ("5‰", 5),
        ] {
            assert_eq!(memory(value, Some(1000)), Some(Memory::Bytes(bytes)), "{value}");
        }
        assert_eq!((memory("", None), memory("infinity", None)), (Some(Memory::Unlimited), Some(Memory::Unlimited)));
        for odd in ["lots", "1X", "1GB", "512M 1G", "-1", ".5G", "0", "101%", "%", "9E", "1 2", "0x10", "1e3%"] {
            assert_eq!(memory(odd, Some(1000)), None, "{odd}");
        }
        assert_eq!(memory("50%", None), None, "of nobody knows how much");
    }

    #[test]
    fn quotas_and_cores_are_read_or_not_understood() {
        assert_eq!((quota("150%"), quota("12.5%"), quota("")), (Some(Some(1.5)), Some(Some(0.125)), Some(None)));
        assert_eq!([quota("2"), quota("0%"), quota("50%%"), quota("all")], [None; 4]);
        assert_eq!(cores("0-2, 8 9").map(Vec::from_iter), Some(vec![0, 1, 2, 8, 9]));
        assert_eq!((cores("numa"), cores("0,x"), cores("3-1")), (None, None, None));
    }
}
