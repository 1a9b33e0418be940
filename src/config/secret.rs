//! Keeps passwords out of whatever is printed.

/// What stands where a password stood.
pub const MASK: &str = "***";

/// The text with the passwords of URLs masked: what is between `user:` and `@`, and a `pass` in the query. It rather
/// hides too much than too little: a password may hold any character, unescaped ones too.
pub fn mask(text: &str) -> String {
    let Some(scheme_end) = text.find("://").map(|at| at + 3) else { return text.to_owned() };
    let (scheme, rest) = text.split_at(scheme_end);
    let rest = match rest.split_once("pass=") {
        Some((before, pass)) => {
            let after = pass.find(['&', '"', '`']).map_or("", |end| &pass[end..]);
            format!("{before}pass={MASK}{after}")
        }
        None => rest.to_owned(),
    };
    match rest.rsplit_once('@').and_then(|(userinfo, host)| Some((userinfo.split_once(':')?.0, host))) {
        Some((user, host)) => format!("{scheme}{user}:{MASK}@{host}"),
        None => format!("{scheme}{rest}"),
    }
}

/// Whether the text holds the mask where a password belongs: someone loads what `config print` printed.
pub fn is_masked(text: &str) -> bool {
    text.contains(&format!(":{MASK}@")) || text.contains(&format!("pass={MASK}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        for (text, shown) in [
            ("redis://127.0.0.1:6379/1", "redis://127.0.0.1:6379/1"),
            ("redis://:secret@host", "redis://:***@host"),
            ("redis://app:secret@host:6379/1", "redis://app:***@host:6379/1"),
            ("redis://app:se/c@r?e#t:x@host", "redis://app:***@host"),
            ("redis://app@host", "redis://app@host"),
            ("unix:///run/redis.sock?user=app&pass=secret&db=1", "unix:///run/redis.sock?user=app&pass=***&db=1"),
            ("unix:///run/redis.sock?pass=a@b", "unix:///run/redis.sock?pass=***"),
            ("redis://app:pass=y&z@host", "redis://app:***@host"),
            ("string \"redis://:secret@host\", expected usize", "string \"redis://:***@host\", expected usize"),
            ("no URL: a@b", "no URL: a@b"),
        ] {
            assert_eq!(mask(text), shown);
            assert_eq!(is_masked(&mask(text)), shown.contains(MASK), "{text}");
        }
    }
}
