//! What an update is about: its key and its lane, read from its payload where its channel's rule asks for it.
//!
//! Promise: a payload that is not JSON, or has no such field, has no key and is not critical; it is delivered all the same.

use crate::config::{BadPointer, ChannelRule, Critical, Pointer};
use simd_json::BorrowedValue;
use simd_json::prelude::{ValueAsArray, ValueAsObject, ValueAsScalar, Writable};
use std::hash::{BuildHasher, RandomState};

/// How the updates of a channel are told apart.
#[derive(Debug)]
pub struct Sorter {
    key: Option<Pointer>,
    critical: Lane,
    /// Keyed at random, so that nobody can publish keys that collide.
    hasher: RandomState,
}

#[derive(Debug)]
enum Lane {
    All,
    None,
    Where(Pointer, Vec<String>),
}

fn find<'a, 'v>(pointer: &Pointer, value: &'a BorrowedValue<'v>) -> Option<&'a BorrowedValue<'v>> {
    pointer.names().try_fold(value, |value, name| match value.as_object() {
        Some(object) => object.get(name),
        None => value.as_array()?.get(name.parse::<usize>().ok()?),
    })
}

impl Sorter {
    /// The sorter of a rule; `None` where it asks for nothing.
    ///
    /// # Errors
    /// One of its pointers is none.
    pub fn of(rule: &ChannelRule) -> Result<Option<Self>, BadPointer> {
        let critical = match &rule.critical {
            None | Some(Critical::All(false)) => Lane::None,
            Some(Critical::All(true)) => Lane::All,
            Some(Critical::Where(field)) => Lane::Where(Pointer::parse(&field.pointer)?, field.values.clone()),
        };
        let key = rule.key.as_deref().map(Pointer::parse).transpose()?;
        let asks = key.is_some() || !matches!(critical, Lane::None);
        Ok(asks.then(|| Self { key, critical, hasher: RandomState::new() }))
    }

    /// The key of a payload, as a hash (0: it has none), and whether it is critical.
    pub fn sort(&self, payload: &[u8]) -> (u64, bool) {
        if self.key.is_none() && matches!(self.critical, Lane::All) {
            return (0, true);
        }
        let mut copy = payload.to_vec(); // simd-json writes into its input
        let Ok(value) = simd_json::to_borrowed_value(&mut copy) else {
            return (0, matches!(self.critical, Lane::All));
        };
        let key = self.key.as_ref().and_then(|pointer| find(pointer, &value));
        let key = key.map_or(0, |value| self.hasher.hash_one(value.encode()).max(1));
        let critical = match &self.critical {
            Lane::All => true,
            Lane::None => false,
            Lane::Where(pointer, values) => {
                let text =
                    find(pointer, &value).filter(|value| value.as_object().is_none() && value.as_array().is_none());
                let text = text.map(|value| value.as_str().map_or_else(|| value.encode(), str::to_owned));
                text.is_some_and(|text| values.contains(&text))
            }
        };
        (key, critical)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorter(rule: &str) -> Sorter {
        Sorter::of(&toml::from_str(rule).unwrap()).unwrap().unwrap()
    }

    #[test]
    fn updates_have_the_same_key_if_the_field_has_the_same_value() {
        let sorter = sorter("match = 'q*'\nkey = '/quote/id'");
        let key = |payload: &str| sorter.sort(payload.as_bytes()).0;
        assert_eq!(key(r#"{"quote":{"id":"A"},"p":1}"#), key(r#"{"p":2,"quote":{"x":0,"id":"A"}}"#));
        assert_ne!(key(r#"{"quote":{"id":"A"}}"#), key(r#"{"quote":{"id":"B"}}"#));
        assert_ne!(key(r#"{"quote":{"id":1}}"#), key(r#"{"quote":{"id":"1"}}"#), "a number is no string");
        for none in ["", "no json", "{}", r#"{"quote":7}"#, "[1,2]", r#"{"quote":{}}"#] {
            assert_eq!(key(none), 0, "{none}");
        }
    }

    #[test]
    fn messages_are_critical_by_the_value_of_a_field() {
        let sorter = sorter("match = 'm*'\ncritical = { pointer = '/type', values = ['goal', '7', 'true'] }");
        let critical = |payload: &str| sorter.sort(payload.as_bytes()).1;
        for yes in [r#"{"type":"goal"}"#, r#"{"type":7}"#, r#"{"type":true}"#] {
            assert!(critical(yes), "{yes}");
        }
        for no in [r#"{"type":"tick"}"#, r#"{"type":["goal"]}"#, "{}", "goal", "", r#"{"typ":"goal"}"#] {
            assert!(!critical(no), "{no}");
        }
    }

    #[test]
    fn pointers_go_through_objects_and_arrays() {
        let found = |pointer: &str, json: &str| {
            let mut json = json.as_bytes().to_vec();
            let value = simd_json::to_borrowed_value(&mut json).unwrap();
            find(&Pointer::parse(pointer).unwrap(), &value).map(|value| value.encode())
        };
        assert_eq!(found("/a~1b/m~0n/0", r#"{"a/b":{"m~n":[5]}}"#).as_deref(), Some("5"));
        assert_eq!(found("", "3").as_deref(), Some("3"));
        assert_eq!(found("/a/b", r#"{"a":1}"#), None);
    }
}
