//! Rust sources as text, with and without what is not code.

use std::fs;
use std::path::Path;

/// One file.
pub struct Source {
    /// Its path below `src`, with slashes: `shard/read.rs`.
    pub path: String,
    /// What is in it.
    pub text: String,
    /// The same with comments, strings and characters blanked out: every byte that is left is where it was.
    pub code: String,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), text: text.into(), code: blanked(text) }
    }

    /// The room that it belongs to: its directory, or its own name where it is in none.
    pub fn room(&self) -> &str {
        self.path.split_once('/').map_or_else(|| self.path.trim_end_matches(".rs"), |(room, _)| room)
    }

    /// How many modules deep it is below the crate: 1 for `shard/mod.rs`, 2 for `shard/read.rs`.
    pub fn depth(&self) -> usize {
        self.path.split('/').count() - usize::from(self.path.ends_with("mod.rs"))
    }

    /// Its code without that of tests.
    pub fn product(&self) -> String {
        if self.path.ends_with("tests.rs") { String::new() } else { without_tests(&self.code) }
    }

    /// A fault at a byte of it.
    pub fn fault(&self, at: usize, what: &str) -> String {
        format!("src/{}:{}: {what}", self.path, self.text[..at].matches('\n').count() + 1)
    }
}

/// Every `.rs` file below `root`, in the order of their paths.
pub fn read_all(root: &Path) -> Vec<Source> {
    let mut sources = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let below = path.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
                sources.push(Source::new(&below, &fs::read_to_string(&path).unwrap()));
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

/// Where `word` stands in `code` as a word of its own.
pub fn words<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |&at| {
        let before = code[..at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_name) && !after.is_some_and(is_name)
    })
}

/// The name at the start of `code`.
pub fn name(code: &str) -> &str {
    code.split(|c| !is_name(c)).next().unwrap_or_default()
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The bytes from the bracket at `open` to the one that closes it, both included.
pub fn bracketed(code: &str, open: usize) -> &str {
    let mut depth = 0;
    for (at, c) in code[open..].char_indices() {
        match c {
            '{' | '(' | '[' => depth += 1,
            '}' | ')' | ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &code[open..open + at + 1];
        }
    }
    &code[open..]
}

fn without_tests(code: &str) -> String {
    let mut rest = code;
    let mut product = String::new();
    while let Some(at) = rest.find("#[cfg(test)]") {
        product.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = match (rest.find('{'), rest.find(';')) {
            (Some(open), semicolon) if semicolon.is_none_or(|semicolon| open < semicolon) => {
                open + bracketed(rest, open).len()
            }
            (_, Some(semicolon)) => semicolon + 1,
            (_, None) => rest.len(),
        };
        rest = &rest[end..];
    }
    product + rest
}

fn blanked(text: &str) -> String {
    let mut code = text.as_bytes().to_vec();
    let mut at = 0;
    while at < text.len() {
        let length = not_code(text, at);
        for byte in &mut code[at..at + length] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at += length.max(1);
    }
    // Other than in strings and comments there is nothing but ASCII, or whole characters that were left alone.
    String::from_utf8(code).unwrap()
}

/// Length of the comment, string or character that begins at `at`; 0 where code goes on.
fn not_code(text: &str, at: usize) -> usize {
    let rest = &text.as_bytes()[at..];
    let in_name = at > 0 && is_name(char::from(text.as_bytes()[at - 1]));
    match rest {
        [b'/', b'/', ..] => rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len()),
        [b'/', b'*', ..] => comment(rest),
        [b'"', ..] => quoted(rest, b'"'),
        [b'r', b'"' | b'#', ..] if !in_name || text.as_bytes()[at - 1] == b'b' => raw_string(rest),
        [b'\'', b'\\', ..] => quoted(rest, b'\''),
        // A character, unless it is a lifetime.
        [b'\'', ..] => text[at + 1..].chars().next().map_or(0, |c| {
            let end = 1 + c.len_utf8();
            if rest.get(end) == Some(&b'\'') { end + 1 } else { 0 }
        }),
        _ => 0,
    }
}

fn comment(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

fn raw_string(rest: &[u8]) -> usize {
    let hashes = rest[1..].iter().take_while(|&&byte| byte == b'#').count();
    if rest.get(1 + hashes) != Some(&b'"') {
        return 0; // r#name
    }
    let end: Vec<u8> = std::iter::once(b'"').chain(std::iter::repeat_n(b'#', hashes)).collect();
    let body = &rest[2 + hashes..];
    let closing = body.windows(end.len()).position(|window| window == end);
    closing.map_or(rest.len(), |at| 2 + hashes + at + end.len())
}

#[test]
fn what_is_no_code_is_blank_and_everything_else_stays_where_it_is() {
    for (text, code) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        (r#"a("b \" // c") d"#, "a(           ) d"),
        ("a(r#\"b \"c\"#) d", "a(         ) d"),
        ("a(br\"b\\\") d", "a(b     ) d"),
        ("'a' '\\'' b'{' &'a str", "         b    &'a str"),
        ("é 'é' é", "é      é"),
        ("r#type", "r#type"),
    ] {
        assert_eq!(blanked(text), code, "{text}");
    }
}

#[test]
fn tests_are_no_product() {
    let source = Source::new("a.rs", "a\n#[cfg(test)]\nmod tests {\n { b }\n}\nc\n#[cfg(test)]\nmod more;\nd");
    assert_eq!(source.product().split_whitespace().collect::<Vec<_>>(), ["a", "c", "d"]);
    assert_eq!(Source::new("a/tests.rs", "a").product(), "");
    assert_eq!(source.fault(2, "what"), "src/a.rs:2: what");
}

#[test]
fn a_file_knows_its_room_and_its_depth() {
    for (path, room, depth) in
        [("main.rs", "main", 1), ("shard/mod.rs", "shard", 1), ("wire/frame/tests.rs", "wire", 3)]
    {
        let source = Source::new(path, "");
        assert_eq!((source.room(), source.depth()), (room, depth), "{path}");
    }
}
