//! Patterns as Redis writes them: `*`, `?`, `[a-z]`, `[^a-z]`, and `\` before a character to mean it.
//!
//! The matcher remembers only the last star: whatever an earlier star took, taking more of it cannot
//! help the later one. So the work is at most pattern times text, where the recursion of Redis'
//! `stringmatchlen` can be made to take exponential time by a client's pattern. The answers are the
//! same, an unterminated class included, which reads on to the end of the pattern.

/// Whether `text` matches `pattern` from its first to its last byte.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut pattern, mut text) = (pattern, text);
    // Where to go on when what follows the last star does not fit: behind it, one byte further.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', behind @ ..] = pattern {
            if behind.is_empty() {
                return true;
            }
            pattern = behind;
            retry = Some((behind, text));
            continue;
        }
        let step = match text {
            [] if pattern.is_empty() => return true,
            // Nothing is left to match: giving a star more would leave even less.
            [] => return false,
            [byte, text_behind @ ..] => {
                one(pattern, *byte).map(|pattern_behind| (pattern_behind, text_behind))
            }
        };
        (pattern, text) = match (step, retry) {
            (Some(further), _) => further,
            (None, Some((behind, [_, later @ ..]))) => {
                retry = Some((behind, later));
                (behind, later)
            }
            (None, _) => return false,
        };
    }
}

/// What follows in `pattern` if its first element, not a star, matches `byte`.
fn one(pattern: &[u8], byte: u8) -> Option<&[u8]> {
    let (matched, behind) = match pattern {
        [] => return None,
        [b'?', behind @ ..] => (true, behind),
        [b'[', class @ ..] => self::class(class, byte),
        [b'\\', escaped, behind @ ..] => (*escaped == byte, behind),
        [literal, behind @ ..] => (*literal == byte, behind),
    };
    matched.then_some(behind)
}

/// Whether the class whose inside begins at `class` holds `byte`, and what follows the class.
fn class(class: &[u8], byte: u8) -> (bool, &[u8]) {
    let (negated, mut rest) = match class {
        [b'^', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let mut held = false;
    loop {
        let (hit, behind) = match rest {
            [] => return (held != negated, rest),
            [b'\\', escaped, behind @ ..] => (*escaped == byte, behind),
            [b']', behind @ ..] => return (held != negated, behind),
            [first, b'-', last, behind @ ..] => {
                let (low, high) = (first.min(last), first.max(last));
                ((*low..=*high).contains(&byte), behind)
            }
            [literal, behind @ ..] => (*literal == byte, behind),
        };
        held |= hit;
        rest = behind;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same by plain recursion, as Redis does it: the reference for the law below.
    fn matches_by_recursion(pattern: &[u8], text: &[u8]) -> bool {
        match pattern {
            [] => text.is_empty(),
            [b'*', behind @ ..] => {
                (0..=text.len()).any(|taken| matches_by_recursion(behind, &text[taken..]))
            }
            _ => text.split_first().is_some_and(|(byte, text)| {
                one(pattern, *byte).is_some_and(|behind| matches_by_recursion(behind, text))
            }),
        }
    }

    proptest! {
        /// Law: remembering only the last star gives the answers of trying everything.
        #[test]
        fn agrees_with_recursion(pattern in "[ab*?\\[\\]^\\\\-]{0,8}", text in "[ab\\[\\]^-]{0,8}") {
            prop_assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                matches_by_recursion(pattern.as_bytes(), text.as_bytes())
            );
        }

        /// Law: an escaped text matches itself.
        #[test]
        fn escaped_text_matches_itself(text in proptest::collection::vec(any::<u8>(), 0..20)) {
            let pattern: Vec<u8> = text.iter().flat_map(|byte| [b'\\', *byte]).collect();
            prop_assert!(matches(&pattern, &text));
        }
    }

    /// Story: the patterns of the Redis manual.
    #[test]
    fn patterns_of_the_manual() {
        for (pattern, yes, no) in [
            ("h?llo", "hallo", "hllo"),
            ("h*llo", "heeeello", "heeeell"),
            ("h[ae]llo", "hello", "hillo"),
            ("h[^e]llo", "hallo", "hello"),
            ("h[a-b]llo", "hbllo", "hcllo"),
            ("h[b-a]llo", "hbllo", "hcllo"),
            ("\\*", "*", "x"),
            ("*", "", "never"),
            ("a*b*c", "a-b-b-c", "a-c-b"),
            ("[abc", "c", "d"),
        ] {
            assert!(matches(pattern.as_bytes(), yes.as_bytes()), "{pattern} {yes}");
            assert!(
                pattern == "*" || !matches(pattern.as_bytes(), no.as_bytes()),
                "{pattern} {no}"
            );
        }
    }

    /// Story: a pattern made to explode takes no time worth naming.
    #[test]
    fn a_hostile_pattern_is_cheap() {
        let pattern = format!("{}b", "a*".repeat(5_000));
        assert!(!matches(pattern.as_bytes(), "a".repeat(20_000).as_bytes()));
    }
}
