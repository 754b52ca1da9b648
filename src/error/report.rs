//! Text building blocks for errors: one line for `{}`, the report for `{:#}`. Pure.
//!
//! Text from a worker is written without control characters and indented, so it cannot forge a line of the report or
//! of the log.

use std::fmt;
use std::time::Duration;

/// Most characters of a worker's text in one line.
const MOST_CHARS: usize = 300;

/// Joins a text into one line: each run of white space and control characters becomes one space. Cuts a long text.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::new();
    let mut chars = 0;
    for word in text.split(|letter: char| letter.is_whitespace() || is_unsafe(letter)) {
        if word.is_empty() {
            continue;
        }
        if !line.is_empty() {
            line.push(' ');
        }
        for letter in word.chars() {
            if chars == MOST_CHARS {
                line.push('…');
                return line;
            }
            line.push(letter);
            chars += 1;
        }
    }
    line
}

/// Writes `label: value` on a line of its own.
pub(crate) fn field(f: &mut fmt::Formatter<'_>, label: &str, value: &str) -> fmt::Result {
    write!(f, "\n  {label}: {}", one_line(value))
}

/// Writes a text of several lines under its label. Writes nothing if the text is empty.
pub(crate) fn block(f: &mut fmt::Formatter<'_>, label: &str, text: &str) -> fmt::Result {
    let text = text.trim_end();
    if text.is_empty() {
        return Ok(());
    }
    write!(f, "\n  {label}:")?;
    for line in text.split(['\n', '\u{2028}', '\u{2029}']) {
        f.write_str("\n    ")?;
        for letter in line.trim_end_matches('\r').chars() {
            if letter != '\t' && is_unsafe(letter) {
                write!(f, "{}", letter.escape_default())?;
            } else {
                write!(f, "{letter}")?;
            }
        }
    }
    Ok(())
}

/// Writes a traceback, unless it has only one line: the headline already says that line.
pub(crate) fn traceback_block(f: &mut fmt::Formatter<'_>, traceback: &str) -> fmt::Result {
    if traceback.trim_end().contains('\n') { block(f, "traceback", traceback) } else { Ok(()) }
}

/// Whether a character can end a line or move a terminal's cursor.
fn is_unsafe(letter: char) -> bool {
    letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}')
}

/// A duration for a person to read, rounded: `1.235s`, `123ms`.
pub(crate) fn human(time: Duration) -> String {
    let unit = match time {
        time if time >= Duration::from_secs(10) => Duration::from_millis(100),
        time if time >= Duration::from_millis(10) => Duration::from_millis(1),
        _ => Duration::from_micros(1),
    };
    let units = (time.as_nanos() + unit.as_nanos() / 2) / unit.as_nanos();
    let rounded = u32::try_from(units).ok().and_then(|units| unit.checked_mul(units)).unwrap_or(time);
    format!("{rounded:?}")
}

/// The innermost frame of a traceback or stack that is not in a library, such as `shop.py:12`. If all frames are in
/// libraries, the innermost frame. `None` if no frame has a file.
pub(crate) fn place(frames: &str) -> Option<String> {
    let mut innermost = None;
    for line in frames.lines().rev() {
        // An exception group puts a margin before its lines.
        let line = line.trim_start_matches([' ', '|', '+', '-']);
        if line.starts_with("Traceback (most recent call last)") && innermost.is_some() {
            break;
        }
        let Some((file, rest)) = line.strip_prefix("File \"").and_then(|line| line.rsplit_once("\", line "))
        else {
            continue;
        };
        let number: String = rest.chars().take_while(char::is_ascii_digit).collect();
        if number.is_empty() || file.starts_with('<') {
            continue;
        }
        let place = format!("{}:{number}", one_line(short(file)));
        if !is_library(file) {
            return Some(place);
        }
        innermost.get_or_insert(place);
    }
    innermost
}

/// The file name of a path. `__init__.py` and `__main__.py` keep their folder: `shop/__init__.py`.
fn short(path: &str) -> &str {
    let name = path.rfind('/').map_or(path, |slash| &path[slash + 1..]);
    if !matches!(name, "__init__.py" | "__main__.py") {
        return name;
    }
    let folder = path[..path.len() - name.len()].trim_end_matches('/');
    folder.rfind('/').map_or(path, |slash| &path[slash + 1..])
}

fn is_library(file: &str) -> bool {
    ["/site-packages/", "/dist-packages/", "/lib/python3", "/lib64/python3"]
        .iter()
        .any(|part| file.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Block<'a>(&'a str);

    impl fmt::Display for Block<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            block(f, "text", self.0)
        }
    }

    #[test]
    fn one_line_of_any_text_has_no_control_character() {
        assert_eq!(one_line("a\n\tb\r\nc\u{1b}[31m d\u{85}e\u{2028}f\0g"), "a b c [31m d e f g");
        let long = one_line(&"ü".repeat(10_000));
        assert!(long.chars().count() == MOST_CHARS + 1 && long.ends_with('…'));
        assert_eq!(one_line(" \n "), "");
    }

    #[test]
    fn block_indents_each_line_and_escapes_controls() {
        assert_eq!(Block("one\r\n  two\u{1b}[2J\n\n").to_string(), "\n  text:\n    one\n      two\\u{1b}[2J");
        assert_eq!(Block("a\u{2028}b").to_string(), "\n  text:\n    a\n    b");
        assert_eq!(Block("\n").to_string(), "");
    }

    #[test]
    fn time_is_rounded_to_what_a_person_reads() {
        let told = [0, 7_000, 1_234_567, 123_456_789, 1_234_567_890, 12_345_678_901]
            .map(|nanos| human(Duration::from_nanos(nanos)));
        assert_eq!(told, ["0ns", "7µs", "1.235ms", "123ms", "1.235s", "12.3s"]);
        assert_eq!(human(Duration::from_secs(30)), "30s");
        assert!(!human(Duration::MAX).is_empty());
    }

    #[test]
    fn place_is_the_innermost_frame_of_the_users_code() {
        let traceback = "Traceback (most recent call last):\n  File \"/srv/other.py\", line 1, in cause\nKeyError: 1\n\n\
            The above exception was the direct cause of the following exception:\n\n\
            Traceback (most recent call last):\n  File \"/srv/shop.py\", line 12, in price\n    json.loads(x)\n\
            \x20 File \"/usr/lib/python3.11/json/decoder.py\", line 355, in raw_decode\nValueError: no\n";
        assert_eq!(place(traceback).as_deref(), Some("shop.py:12"));
        let group = "  + Exception Group Traceback (most recent call last):\n  |   File \"/srv/a.py\", line 3, in f\n";
        assert_eq!(place(group).as_deref(), Some("a.py:3"));
        let package = "  File \"/srv/shop/__init__.py\", line 7\n    def (:\nSyntaxError: invalid syntax\n";
        assert_eq!(place(package).as_deref(), Some("shop/__init__.py:7"));
        let library = "  File \"/v/lib/python3.9/site-packages/x.py\", line 4, in g";
        assert_eq!(place(library).as_deref(), Some("x.py:4"));
        for none in ["", "  File \"<string>\", line 1, in <module>\n", "File \"x\", line y", "ValueError: x"]
        {
            assert_eq!(place(none), None, "{none}");
        }
    }

    #[test]
    fn place_does_not_look_past_the_last_traceback() {
        let traceback = "Traceback (most recent call last):\n  File \"/srv/first.py\", line 1, in f\nKeyError: 1\n\n\
            Traceback (most recent call last):\n  File \"/usr/lib/python3.11/abc.py\", line 2, in g\nValueError\n";
        assert_eq!(place(traceback).as_deref(), Some("abc.py:2"));
    }
}
