//! What is wrong with the settings, where, and what would be right.
//!
//! Invariant: no message shows a password: every text from outside passes [`mask`](super::secret::mask).

use super::check::Rule;
use super::schema::schema;
use super::secret::mask;
use std::fmt;
use std::path::PathBuf;

/// What is said of an address that is none.
pub const ADDRESS_EXPECTED: &str = "not an IP address with a port, like `0.0.0.0:8080` or `[::]:8080`";

/// What serde says, and what a user understands.
const PLAINER: [(&str, &str); 4] = [
    ("expected usize", "expected a whole number, 0 or more"),
    ("expected a duration", "expected a duration like `90s` or `1m 30s`"),
    ("expected a sequence", "expected a list"),
    ("invalid socket address syntax", ADDRESS_EXPECTED),
];

/// Why the settings are refused: everything found, the first place first. The caller prints it and exits.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{}", self.problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError {
    /// At least one; one line each when printed.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Who said it.
    pub origin: Origin,
    /// The key meant, as in `limits.update_bytes_max` or `channel[1].match`; empty where no key is meant.
    pub key: String,
    /// What is wrong with it.
    pub mistake: Mistake,
}

/// Where a value comes from. The order is that in which problems are listed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A place in the configuration file.
    File {
        /// As it was given to us.
        path: PathBuf,
        /// `None` where the file as a whole is meant.
        at: Option<Position>,
    },
    /// The environment variable of this name.
    Variable(String),
    /// The flag of this name, dashes included.
    Flag(&'static str),
    /// Nobody set it.
    Default,
}

/// A place in a text, both counted from 1; columns are characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Mistake {
    /// The file cannot be read; the text says why.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// The file is not TOML; the text says why.
    #[error("not TOML: {0}")]
    Syntax(String),
    /// No setting has this key; perhaps the named one was meant.
    #[error("unknown key{}", hint(.0))]
    UnknownKey(Option<String>),
    /// No setting has this variable; perhaps the named one was meant.
    #[error("unknown variable{}", hint(.0))]
    UnknownVariable(Option<String>),
    /// A value stands where a table of settings belongs.
    #[error("is a section, not a setting: write `[{0}]` and its settings below")]
    NotASection(String),
    /// A value stands where a list of tables belongs.
    #[error("is a list of tables: write `[[{0}]]` above each of them")]
    NotTables(String),
    /// The value is of a wrong type or cannot be read as what it should be.
    #[error("{reason}{}", default.as_ref().map(|value| format!(" (default: {value})")).unwrap_or_default())]
    BadValue {
        /// What is wrong with it.
        reason: String,
        /// What holds where nothing is written.
        default: Option<String>,
    },
    /// The value can be read and makes no sense.
    #[error("{0}")]
    Broken(#[from] Rule),
}

impl Mistake {
    /// A [`Mistake::BadValue`] with its secrets masked.
    pub(super) fn bad_value(reason: &str, default: Option<&toml::Value>) -> Self {
        let reason = PLAINER.iter().fold(mask(reason.trim_end()), |text, (from, to)| text.replace(from, to));
        Self::BadValue { reason, default: default.map(toml::Value::to_string) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named_already = match &self.origin {
            Origin::Variable(name) => schema().setting_of_variable(name).is_some_and(|setting| setting.key == self.key),
            Origin::Flag(name) => name.strip_prefix("--") == self.key.split('.').next(),
            Origin::File { .. } | Origin::Default => false,
        };
        if self.origin != Origin::Default {
            write!(f, "{}: ", self.origin)?;
        }
        if !self.key.is_empty() && !named_already {
            write!(f, "{}: ", self.key)?;
        }
        self.mistake.fmt(f)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, at: Some(at) } => write!(f, "{}:{}:{}", path.display(), at.line, at.column),
            Self::File { path, at: None } => path.display().fmt(f),
            Self::Variable(name) => f.write_str(name),
            Self::Flag(name) => f.write_str(name),
            Self::Default => f.write_str("default"),
        }
    }
}

impl Position {
    /// The place of a byte in a text; past its end, the end.
    pub(super) fn of(text: &str, byte: usize) -> Self {
        let mut byte = byte.min(text.len());
        while !text.is_char_boundary(byte) {
            byte -= 1;
        }
        let before = &text[..byte];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
    }
}

fn hint(meant: &Option<String>) -> String {
    match meant {
        Some(meant) => format!("; did you mean `{meant}`?"),
        None => "; `spillgate config print` lists them all".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_counts_lines_and_characters_from_one() {
        let text = "a = 1\nlänge = 2\n";
        for (byte, line, column) in [(0, 1, 1), (4, 1, 5), (6, 2, 1), (15, 2, 9), (999, 3, 1), (8, 2, 2)] {
            assert_eq!(Position::of(text, byte), Position { line, column }, "byte {byte}");
        }
    }
}
