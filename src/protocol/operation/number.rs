//! Numbers as clients write them, and ranges.

use std::ops::Range;

/// How many digits behind the point are exact.
const FRACTION_DIGITS: usize = 17;

/// One, in units of the last of these digits.
const ONE: i128 = 10i128.pow(FRACTION_DIGITS as u32);

/// Why two numbers have no sum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoSum {
    /// One of them is no number.
    NotFloat,
    /// It is not finite.
    NotFinite,
}

/// Reads a whole number as strictly as Redis: no blanks, no plus, no zeros in front.
pub fn integer(bytes: &[u8]) -> Option<i64> {
    let digits = bytes.strip_prefix(b"-").unwrap_or(bytes);
    let plain = match digits {
        [b'0'] => bytes.len() == 1,
        [b'1'..=b'9', rest @ ..] => digits.len() <= 19 && rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    if !plain { None } else { std::str::from_utf8(bytes).ok()?.parse().ok() }
}

/// Reads a number with a fraction, or one that is called infinite; not what is no number, nor what is too
/// great for one.
pub fn float(bytes: &[u8]) -> Option<f64> {
    let number: f64 = std::str::from_utf8(bytes).ok()?.parse().ok()?;
    let too_great = number.is_infinite() && bytes.iter().any(u8::is_ascii_digit);
    (!number.is_nan() && !too_great).then_some(number)
}

/// The sum of two numbers as text. Decimal where both are short enough, as people expect it (Redis has
/// a few binary digits more than we, with which it comes to the same).
pub(super) fn sum(one: &[u8], other: &[u8]) -> Result<String, NoSum> {
    let (first, second) = (float(one), float(other));
    let (Some(first), Some(second)) = (first, second) else { return Err(NoSum::NotFloat) };
    if let (Some(one), Some(other)) = (decimal(one), decimal(other)) {
        let sum = one + other;
        let (sign, sum) = (if sum < 0 { "-" } else { "" }, sum.abs());
        let text = format!("{sign}{}.{:0FRACTION_DIGITS$}", sum / ONE, sum % ONE);
        return Ok(text.trim_end_matches('0').trim_end_matches('.').to_owned());
    }
    let sum = first + second;
    if sum.is_finite() { Ok(sum.to_string()) } else { Err(NoSum::NotFinite) }
}

/// A score as text.
pub(super) fn plain(number: f64) -> String {
    match number {
        _ if number.is_infinite() => if number > 0.0 { "inf" } else { "-inf" }.to_owned(),
        _ if number != 0.0 && !(1e-5..1e17).contains(&number.abs()) => format!("{number:e}"),
        _ => number.to_string(),
    }
}

/// A decimal number of up to 18 digits before and 17 behind the point, in units of the last of them.
fn decimal(bytes: &[u8]) -> Option<i128> {
    let (negative, digits) = match bytes {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    let mut parts = digits.splitn(2, |byte| *byte == b'.');
    let (whole, fraction) = (parts.next()?, parts.next().unwrap_or_default());
    let plain = whole.iter().chain(fraction).all(u8::is_ascii_digit);
    if !plain || whole.len() > 18 || fraction.len() > FRACTION_DIGITS || digits.is_empty() {
        return None;
    }
    let number =
        |digits: &[u8]| digits.iter().fold(0i128, |sum, it| sum * 10 + i128::from(it - b'0'));
    let scale = 10i128.pow((FRACTION_DIGITS - fraction.len()) as u32);
    let sum = number(whole) * ONE + number(fraction) * scale;
    Some(if negative { -sum } else { sum })
}

/// The elements from `start` to `end`, both included, of `length`; negative ones count from the end.
pub(super) fn span(start: i64, end: i64, length: usize) -> Option<Range<usize>> {
    let size = i64::try_from(length).ok()?;
    let from = if start < 0 { (size.saturating_add(start)).max(0) } else { start };
    let to = if end < 0 { size.saturating_add(end) } else { end.min(size - 1) };
    (from <= to && from < size).then(|| from as usize..to as usize + 1)
}

/// As [`span`] for the bytes of a string, of which Redis shows the first where the end lies before it.
pub(super) fn text_span(start: i64, end: i64, length: usize) -> Option<Range<usize>> {
    if start < 0 && end < 0 && start > end {
        return None;
    }
    let size = i64::try_from(length).ok()?;
    let end = if end < 0 { size.saturating_add(end).max(0) } else { end };
    span(start, end, length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums of short decimals are exact, others as exact as a float.
    #[test]
    fn sums_are_what_people_expect() {
        let sum = |one: &str, other: &str| sum(one.as_bytes(), other.as_bytes());
        assert_eq!(sum("0.1", "0.2").unwrap(), "0.3");
        assert_eq!(sum("10.50", "0.1").unwrap(), "10.6");
        assert_eq!(sum("5.0e3", "2.0e2").unwrap(), "5200");
        assert_eq!(sum("3", "-1.5").unwrap(), "1.5");
        assert_eq!(sum("-1", "0.25").unwrap(), "-0.75");
        assert_eq!(sum("x", "1"), Err(NoSum::NotFloat));
        assert_eq!(sum("inf", "1"), Err(NoSum::NotFinite));
        assert_eq!(sum("nan", "1"), Err(NoSum::NotFloat));
    }

    /// Infinite is what is called so, not what does not fit.
    #[test]
    fn floats_are_read_as_in_redis() {
        assert_eq!(float(b"-inf"), Some(f64::NEG_INFINITY));
        assert_eq!(float(b"Infinity"), Some(f64::INFINITY));
        assert_eq!(float(b"1e308"), Some(1e308));
        for text in ["1e400", "-1e400", "nan", "", " 1", "1 ", "1e"] {
            assert_eq!(float(text.as_bytes()), None, "{text}");
        }
    }

    /// Ranges are cut to what there is.
    #[test]
    fn ranges_are_cut() {
        assert_eq!(span(0, -1, 3), Some(0..3));
        assert_eq!(span(-100, 100, 3), Some(0..3));
        assert_eq!(span(1, 0, 3), None);
        assert_eq!(span(3, 9, 3), None);
        assert_eq!(span(0, -4, 3), None);
        assert_eq!(span(i64::MIN, i64::MAX, 0), None);
        assert_eq!(text_span(0, -4, 3), Some(0..1));
        assert_eq!(text_span(-1, -2, 3), None);
    }
}
