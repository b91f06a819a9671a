//! Figures as people read them.

/// `1,204,118`.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 window`, `3 windows`, `1,204,118 kernels`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 {
        ""
    } else if noun.ends_with('s') {
        "es"
    } else {
        "s"
    };
    format!("{} {noun}{plural}", grouped(count))
}

/// `18.9 MB`: three digits, decimal units.
pub(crate) fn bytes(count: u64) -> String {
    scaled(count, 1000, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// `12.4 s`, `820 ms`: three digits; minutes from 100 s on.
pub(crate) fn nanoseconds(ns: u64) -> String {
    const SECOND: u64 = 1_000_000_000;
    let seconds = ns.div_ceil(SECOND / 2) / 2;
    if ns >= 100 * SECOND {
        return match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
            (0, minutes, seconds) => format!("{minutes} min {seconds:02} s"),
            (hours, minutes, _) => format!("{hours} h {minutes:02} min"),
        };
    }
    scaled(ns, 1000, &["ns", "us", "ms", "s"])
}

/// A figure of three digits in the largest unit that keeps it at or above 1.
fn scaled(count: u64, step: u64, units: &[&str]) -> String {
    let mut unit = 0;
    let mut divisor = 1;
    // 999.5 and more would show as 1000: the next unit, then.
    while unit + 1 < units.len() && count as f64 / divisor as f64 >= 999.5 {
        divisor *= step;
        unit += 1;
    }
    let value = count as f64 / divisor as f64;
    let digits = if unit == 0 || value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    format!("{value:.digits$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_and_agree_in_number() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_000), "1,000");
        assert_eq!(grouped(1_204_118), "1,204,118");
        assert_eq!(counted(1, "kernel"), "1 kernel");
        assert_eq!(counted(0, "kernel"), "0 kernels");
        assert_eq!(counted(2, "process"), "2 processes");
    }

    #[test]
    fn sizes_have_three_digits() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1_000), "1.00 kB");
        assert_eq!(bytes(18_912_345), "18.9 MB");
        assert_eq!(bytes(999_999), "1.00 MB");
        assert_eq!(bytes(123_456_789), "123 MB");
    }

    #[test]
    fn durations_change_unit() {
        assert_eq!(nanoseconds(12_400_000_000), "12.4 s");
        assert_eq!(nanoseconds(999_700), "1.00 ms");
        assert_eq!(nanoseconds(820_400_000), "820 ms");
        assert_eq!(nanoseconds(100_000_000_000), "1 min 40 s");
        assert_eq!(nanoseconds(7_384_000_000_000), "2 h 03 min");
    }
}
