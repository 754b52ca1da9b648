//! Makes text from outside safe to show on a terminal or in a log.

use std::borrow::Cow;

use crate::budget::NAME_BYTES;

/// Starts every line after the first.
const CONTINUATION: &str = "\n  | ";

/// Whether a character can end a line, move the cursor, or change the display order.
fn is_unsafe(letter: char) -> bool {
    matches!(letter,
        '\u{0}'..='\u{8}' | '\u{a}'..='\u{1f}' // the controls but tab
        | '\u{7f}'..='\u{9f}' // DEL and C1
        | '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' // bidi
        | '\u{2028}' | '\u{2029}' // line and paragraph separators
        | '\u{feff}')
}

/// The text on one line. Unsafe characters are escaped as in a Rust string: `\n`, `\u{1b}`.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        if is_unsafe(letter) { safe.extend(letter.escape_default()) } else { safe.push(letter) }
    }
    Cow::Owned(safe)
}

/// A text of several lines, such as a traceback, as one log record. Each line is [escaped]. Every line after the first
/// begins with ` | `, so that it cannot pass for a record of its own.
pub(crate) fn escaped_lines(text: &str) -> Cow<'_, str> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    if !text.contains('\n') {
        return escaped(text);
    }
    let lines = text.split('\n').map(|line| escaped(line.strip_suffix('\r').unwrap_or(line)));
    let mut safe = String::with_capacity(text.len() + 64);
    for (at, line) in lines.enumerate() {
        if at > 0 {
            safe.push_str(CONTINUATION);
        }
        safe.push_str(&line);
    }
    Cow::Owned(safe)
}

/// The first bytes of a text, at most `most`, and the number of bytes left out.
pub(crate) fn beginning(text: &str, most: usize) -> (&str, usize) {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    (&text[..end], text.len() - end)
}

/// A name from outside for a message, cut at [`NAME_BYTES`].
pub(crate) fn name(name: &str) -> Cow<'_, str> {
    match beginning(name, NAME_BYTES) {
        (_, 0) => Cow::Borrowed(name),
        (kept, more) => Cow::Owned(format!("{kept}… [{more} more bytes]")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_left_alone() {
        for text in ["", "plain", "tab\tand ünïcode \u{1f425}", "a \\n backslash"] {
            assert!(matches!(escaped(text), Cow::Borrowed(same) if same == text));
            assert!(matches!(escaped_lines(text), Cow::Borrowed(same) if same == text));
        }
    }

    #[test]
    fn unsafe_characters_are_escaped() {
        let cases = [
            ("a\nb\r\n", "a\\nb\\r\\n"),
            ("\u{1b}[2Jgone\u{7}", "\\u{1b}[2Jgone\\u{7}"),
            ("\u{9b}1A\u{85}\u{0}\u{8}\u{7f}", "\\u{9b}1A\\u{85}\\u{0}\\u{8}\\u{7f}"),
            ("\u{202e}gnp.exe\u{2066}\u{2028}", "\\u{202e}gnp.exe\\u{2066}\\u{2028}"),
        ];
        for (text, safe) in cases {
            assert_eq!(escaped(text), safe);
        }
    }

    #[test]
    fn lines_after_the_first_cannot_begin_a_record() {
        let text = "one\r\n[2026-01-01 ERROR] forged\n\u{1b}[A\rthree\n";
        assert_eq!(escaped_lines(text), "one\n  | [2026-01-01 ERROR] forged\n  | \\u{1b}[A\\rthree");
    }

    #[test]
    fn long_names_are_cut_between_characters() {
        assert_eq!(name("short"), "short");
        let cut = name(&"ü".repeat(1_000_000)).into_owned();
        assert_eq!(cut, format!("{}… [1999800 more bytes]", "ü".repeat(100)));
        assert_eq!(beginning("aü", 2), ("a", 2));
    }
}
