//! The words of an inline request, quoted as a person types them.
//!
//! The rules are Redis' (`sds.c`: `sdssplitargs`). Double quotes understand `\n \r \t \b \a`, `\xHH`
//! and a backslash before any other character; single quotes only `\'`. A quote may open in the
//! middle of a word; where it closes the word must end.

use super::parse::ProtocolError;

/// Unquotes the next word of `line` onto the end of `scratch`; answers what follows it, or nothing
/// if there is no further word.
///
/// # Errors
/// [`ProtocolError::QuotesUnbalanced`] when a quote never closes, or closes in the middle of a word.
pub(super) fn next<'a>(
    line: &'a [u8],
    scratch: &mut Vec<u8>,
) -> Result<Option<&'a [u8]>, ProtocolError> {
    let mut rest = line;
    while let [b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, tail @ ..] = rest {
        rest = tail;
    }
    if rest.is_empty() { Ok(None) } else { word(rest, scratch).map(Some) }
}

/// Unquotes the word at the start of `rest` into `scratch`; what follows it is left.
fn word<'a>(mut rest: &'a [u8], scratch: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    while let [byte, tail @ ..] = rest {
        match byte {
            b' ' | b'\n' | b'\r' | b'\t' => return Ok(rest),
            b'"' => return end_of_quotes(double_quoted(tail, scratch)?),
            b'\'' => return end_of_quotes(single_quoted(tail, scratch)?),
            _ => scratch.push(*byte),
        }
        rest = tail;
    }
    Ok(rest)
}

/// Unquotes up to and over the closing double quote; what follows it is left.
fn double_quoted<'a>(mut rest: &'a [u8], scratch: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    loop {
        rest = match rest {
            [] => return Err(ProtocolError::QuotesUnbalanced),
            [b'"', tail @ ..] => return Ok(tail),
            [b'\\', b'x', high, low, tail @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                scratch.push(hex_digit(*high) << 4 | hex_digit(*low));
                tail
            }
            [b'\\', escaped, tail @ ..] => {
                scratch.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 0x08,
                    b'a' => 0x07,
                    other => *other,
                });
                tail
            }
            [byte, tail @ ..] => {
                scratch.push(*byte);
                tail
            }
        };
    }
}

/// Unquotes up to and over the closing single quote; what follows it is left.
fn single_quoted<'a>(mut rest: &'a [u8], scratch: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    loop {
        rest = match rest {
            [] => return Err(ProtocolError::QuotesUnbalanced),
            [b'\'', tail @ ..] => return Ok(tail),
            [b'\\', b'\'', tail @ ..] => {
                scratch.push(b'\'');
                tail
            }
            [byte, tail @ ..] => {
                scratch.push(*byte);
                tail
            }
        };
    }
}

/// Checks that a word ends where its quotes end.
fn end_of_quotes(rest: &[u8]) -> Result<&[u8], ProtocolError> {
    match rest {
        [] | [b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c, ..] => Ok(rest),
        _ => Err(ProtocolError::QuotesUnbalanced),
    }
}

/// The value of a hexadecimal digit.
fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20).wrapping_sub(b'a') + 10,
    }
}
