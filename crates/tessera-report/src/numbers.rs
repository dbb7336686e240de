//! Numbers, times and sizes as a person reads them.

/// A number in four significant digits, whole ones with their thousands apart.
pub(crate) fn short(value: f64) -> String {
    digits(value, 4)
}

/// A number in six significant digits, for tables.
pub(crate) fn long(value: f64) -> String {
    digits(value, 6)
}

/// A number for an axis: thousands as k, millions as M, no zeros at the end.
pub(crate) fn tick(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, "G"),
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        size if size > 0.0 && size < 1e-3 => {
            return trimmed(&format!("{value:.1e}").replace(".0e", "e"));
        }
        _ => (value, ""),
    };
    let text = format!("{scaled:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{}{unit}", if text == "-0" { "0" } else { text })
}

fn trimmed(text: &str) -> String {
    text.replace('-', "\u{2212}").replace("e\u{2212}", "e-")
}

fn digits(value: f64, num: i32) -> String {
    if !value.is_finite() {
        return "not finite".to_owned();
    }
    let size = value.abs();
    if value.fract() == 0.0 && size < 1e15 {
        return whole(value);
    }
    if !(1e-4..1e9).contains(&size) {
        return format!("{value:.*e}", (num - 1) as usize);
    }
    let decimals = (num - 1 - size.log10().floor() as i32).max(0) as usize;
    let text = format!("{value:.decimals$}");
    match text.split_once('.') {
        None => whole(text.parse().unwrap_or(value)),
        Some(_) => text,
    }
}

/// A whole number with its thousands apart.
fn whole(value: f64) -> String {
    let text = format!("{:.0}", value.abs());
    let mut apart = String::new();
    for (at, digit) in text.chars().enumerate() {
        if at > 0 && (text.len() - at).is_multiple_of(3) {
            apart.push(',');
        }
        apart.push(digit);
    }
    if value < 0.0 { format!("-{apart}") } else { apart }
}

/// A share in percent.
pub(crate) fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    match percent {
        _ if percent == 0.0 => "0 %".to_owned(),
        _ if percent >= 10.0 => format!("{percent:.0} %"),
        _ if percent >= 0.1 => format!("{percent:.1} %"),
        _ => format!("{percent:.1e} %"),
    }
}

/// Bytes in the unit that fits.
pub(crate) fn bytes(num: u64) -> String {
    match num as f64 {
        size if size >= 1e9 => format!("{:.1} GB", size / 1e9),
        size if size >= 1e6 => format!("{:.1} MB", size / 1e6),
        size if size >= 1e3 => format!("{:.0} kB", size / 1e3),
        _ => format!("{num} bytes"),
    }
}

/// A length of time.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.max(0.0).round() as u64;
    match (whole / 3600, whole / 60 % 60, whole % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

/// A time in UTC, to the second (the civil calendar from days since 1970: Hinnant 2014, `civil_from_days`).
pub(crate) fn time(unix_seconds: f64) -> String {
    let seconds = unix_seconds.max(0.0) as i64;
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_and_right() {
        let shown =
            [0.0, 0.008_144, 1.5e-5, 293.281_18, 10_000.0, -1_234_567.0, 12_345.67, f64::NAN];
        let wanted =
            ["0", "0.008144", "1.500e-5", "293.3", "10,000", "-1,234,567", "12,346", "not finite"];
        assert_eq!(shown.map(short), wanted);
        assert_eq!(long(0.098_997_611), "0.0989976");
        let ticks = [0.0, 0.25, 2000.0, 20_000.0, 1.5e6, 1e-5, -0.5].map(tick);
        assert_eq!(ticks, ["0", "0.25", "2000", "20k", "1.5M", "1e-5", "-0.5"]);
        assert_eq!([0.5, 0.051, 0.0, 1e-6].map(percent), ["50 %", "5.1 %", "0 %", "1.0e-4 %"]);
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(time(951_827_696.9), "2000-02-29 12:34:56 UTC");
        assert_eq!(time(1_700_000_000.0), "2023-11-14 22:13:20 UTC");
        assert_eq!([59.6, 3_725.0, 61.0].map(duration), ["1 min 0 s", "1 h 2 min", "1 min 1 s"]);
        assert_eq!([12, 1_500, 9_990_000].map(bytes), ["12 bytes", "2 kB", "10.0 MB"]);
    }
}
