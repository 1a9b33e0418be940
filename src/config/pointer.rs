//! JSON pointers (RFC 6901), as rules name the fields that they look at.

/// A JSON pointer (RFC 6901), taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(Vec<Box<str>>);

/// Why a text is no JSON pointer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no JSON pointer: it starts with `/`, like `/symbol` or `/quote/id`, and `~` is written `~0`, `/` in a name `~1`"
)]
pub struct BadPointer(pub String);

impl Pointer {
    /// Parses a pointer; the empty one means the whole payload.
    ///
    /// # Errors
    /// It does not start with a slash, or has a tilde that escapes nothing.
    pub fn parse(text: &str) -> Result<Self, BadPointer> {
        let bad = || BadPointer(text.to_owned());
        if text.is_empty() {
            return Ok(Self(Vec::new()));
        }
        let names = text.strip_prefix('/').ok_or_else(bad)?.split('/').map(|name| {
            let escapes_nothing = name.replace("~0", "").replace("~1", "").contains('~');
            if escapes_nothing { Err(bad()) } else { Ok(name.replace("~1", "/").replace("~0", "~").into()) }
        });
        names.collect::<Result<_, _>>().map(Self)
    }

    /// The names on the way from the whole payload to the field.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|name| &**name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_read_as_rfc_6901_writes_them() {
        let names = |text| Pointer::parse(text).map(|pointer| pointer.names().map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(names("").unwrap(), [""; 0]);
        assert_eq!(names("/").unwrap(), [""]);
        assert_eq!(names("/a~1b/m~0n/~01").unwrap(), ["a/b", "m~n", "~1"]);
        for bad in ["a", "a/b", "/a~", "/~2"] {
            assert_eq!(names(bad), Err(BadPointer(bad.to_owned())));
        }
    }
}
