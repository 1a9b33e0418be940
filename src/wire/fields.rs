//! The keys of a command, collected whole before any of them is judged, so that a refusal can name the command's id.
//!
//! Promise: any serde parser fills it; what is wrong with the keys is recorded, and only broken JSON is an error.

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

use super::command::Verb;

/// What stood in a command's object.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Fields {
    pub id: Option<Scalar>,
    pub verb: Option<(Verb, Scalar)>,
    /// Whether there is a `data`.
    pub data: bool,
    /// A key that came again (or a second verb).
    pub repeated: Option<&'static str>,
    /// A key that means nothing.
    pub unknown: Option<String>,
}

/// The value of a key that takes a name or a number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scalar {
    Unsigned(u64),
    Signed(i64),
    Text(String),
    /// Anything else.
    Other,
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Fields;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Fields::default();
                while let Some(key) = map.next_key()? {
                    fields.add(key, &mut map)?;
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

impl Fields {
    fn add<'de, A: MapAccess<'de>>(&mut self, key: Key, map: &mut A) -> Result<(), A::Error> {
        match key {
            Key::Id => {
                let again = self.id.replace(map.next_value()?).is_some();
                self.repeated = if again { Some("id") } else { self.repeated };
            }
            Key::Verb(verb) => {
                let again = self.verb.replace((verb, map.next_value()?)).is_some();
                self.repeated = self.repeated.or(again.then_some(verb.name()));
            }
            Key::Data => {
                let again = std::mem::replace(&mut self.data, true);
                map.next_value::<IgnoredAny>()?;
                self.repeated = self.repeated.or(again.then_some("data"));
            }
            Key::Unknown(name) => {
                map.next_value::<IgnoredAny>()?;
                self.unknown.get_or_insert(name);
            }
        }
        Ok(())
    }
}

enum Key {
    Id,
    Verb(Verb),
    Data,
    Unknown(String),
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;

        impl Visitor<'_> for Name {
            type Value = Key;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a key")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Key, E> {
                Ok(match name {
                    "id" => Key::Id,
                    "subscribe" => Key::Verb(Verb::Subscribe),
                    "unsubscribe" => Key::Verb(Verb::Unsubscribe),
                    "publish" => Key::Verb(Verb::Publish),
                    "data" => Key::Data,
                    _ => Key::Unknown(name.into()),
                })
            }
        }

        deserializer.deserialize_str(Name)
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Scalar;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a value")
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<Scalar, E> {
                Ok(Scalar::Unsigned(number))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<Scalar, E> {
                // Only simd-json says a signed zero, for `-0`, which no integer repeats as it came; serde_json says
                // a float.
                Ok(if number == 0 { Scalar::Other } else { Scalar::Signed(number) })
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.into()))
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<Scalar, E> {
                Ok(Scalar::Other)
            }

            fn visit_bool<E: Error>(self, _: bool) -> Result<Scalar, E> {
                Ok(Scalar::Other)
            }

            fn visit_unit<E: Error>(self) -> Result<Scalar, E> {
                Ok(Scalar::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
        }

        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_collected_in_any_order_and_faults_recorded() {
        let fields: Fields =
            serde_json::from_str(r#"{"x":[{}],"data":1e999,"publish":"a","subscribe":{"b":[1]},"id":-1,"data":2}"#)
                .unwrap();
        assert_eq!(
            fields,
            Fields {
                id: Some(Scalar::Signed(-1)),
                verb: Some((Verb::Subscribe, Scalar::Other)),
                data: true,
                repeated: Some("subscribe"),
                unknown: Some("x".into()),
            }
        );
    }

    #[test]
    fn both_parsers_fill_it_alike() {
        for json in [
            r#"{"id":18446744073709551615,"subscribe":"\u0063"}"#,
            r#"{"id":-9223372036854775808,"publish":[1,{"a":[]}],"data":{"b":[null,true,1.5]}}"#,
            r#"{"id":null,"id":1.0,"unsubscribe":"💧","z":{}}"#,
            "{}",
        ] {
            let simd: Fields = simd_json::from_slice(&mut json.as_bytes().to_vec()).unwrap();
            assert_eq!(simd, serde_json::from_str(json).unwrap(), "{json}");
        }
    }
}
