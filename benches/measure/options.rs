//! The command line: `cargo bench --bench NAME -- [--quick] [WORD]...`.

/// What to run, and how long.
pub(crate) struct Options {
    /// Fewer and shorter blocks: to see that everything runs, not to quote.
    pub(crate) quick: bool,
    words: Vec<String>,
}

impl Options {
    /// Reads the command line; other flags, such as cargo's `--bench`, are ignored.
    pub(crate) fn from_arguments() -> Options {
        let (mut quick, mut words) = (false, Vec::new());
        for argument in std::env::args().skip(1) {
            match argument.as_str() {
                "--quick" => quick = true,
                flag if flag.starts_with("--") => {}
                _ => words.push(argument),
            }
        }
        Options { quick, words }
    }

    /// Whether a case is asked for: by a word that its name contains, or by no word at all.
    pub(crate) fn wants(&self, case: &str) -> bool {
        self.words.is_empty() || self.wants_extra(case)
    }

    /// Whether a case that is for information only is asked for: by a word, never by default.
    pub(crate) fn wants_extra(&self, case: &str) -> bool {
        self.words.iter().any(|word| case.contains(word.as_str()))
    }
}
