//! JSON as messages, by their descriptors: protobuf's JSON mapping, read strictly.
//!
//! prost-reflect maps; this module refuses input that prost-reflect would change without a word:
//!
//! | input | why it is refused |
//! |---|---|
//! | a key that stands twice in an object | one of its values would be lost |
//! | a field under both its names (`itemId`, `item_id`), a map key in two spellings (`"1"`, `"01"`) | the same |
//! | an integer written as `1.8446744073709552e19` | out of range, though its nearest `f64` is not |
//! | a `float` or `double` such as `"inf"`, `"nan"` or `"1e999"` | the mapping has `"NaN"`, `"Infinity"`, `"-Infinity"`, and finite numbers |

use std::collections::BTreeSet;
use std::fmt;

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Error, Map, Number, Value};

/// Reads a message of this type. Objects and arrays may be nested 127 levels deep.
///
/// # Errors
/// The text is not JSON, or not this message. The error names the key; its line and column count from 1.
pub fn read(descriptor: &MessageDescriptor, json: &[u8]) -> Result<DynamicMessage, Error> {
    let mut text = serde_json::Deserializer::from_slice(json);
    let mut value = UniqueKeys.deserialize(&mut text)?;
    text.end()?;
    fit_message(&mut value, descriptor)?;
    DynamicMessage::deserialize(descriptor.clone(), value).map_err(|error| {
        // A value has no place in the text; the text itself fails with one.
        let mut text = serde_json::Deserializer::from_slice(json);
        let again = DynamicMessage::deserialize(descriptor.clone(), &mut text);
        again.err().unwrap_or(error)
    })
}

/// Reads any JSON whose objects have each key once.
struct UniqueKeys;

impl<'de> DeserializeSeed<'de> for UniqueKeys {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(value) = from.next_element_seed(Self)? {
            list.push(value);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = from.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format!("key {key:?} stands twice")));
            }
            object.insert(key, from.next_value_seed(Self)?);
        }
        Ok(Value::Object(object))
    }
}

/// Checks the fields of a message. What is not of its shape is left for prost-reflect to refuse.
fn fit_message(value: &mut Value, message: &MessageDescriptor) -> Result<(), Error> {
    match message.full_name() {
        "google.protobuf.Any" => return fit_any(value, message),
        // Any JSON; no fields of their own.
        "google.protobuf.Struct" | "google.protobuf.Value" | "google.protobuf.ListValue" => {
            return Ok(());
        }
        // Written as the value that it holds: wrappers.
        name if name.starts_with("google.protobuf.") && name.ends_with("Value") => {
            let held = message.get_field_by_name("value");
            return held.map_or(Ok(()), |held| fit_scalar(value, &held.kind(), "value"));
        }
        _ => {}
    }
    let Value::Object(object) = value else {
        return Ok(());
    };
    let mut given = BTreeSet::new();
    for (key, value) in object {
        let field = message
            .get_field_by_json_name(key)
            .or_else(|| message.get_field_by_name(key));
        let Some(field) = field else {
            continue;
        };
        if !given.insert(field.number()) {
            let (json, name) = (field.json_name(), field.name());
            return Err(Error::custom(format!(
                "field {name} stands twice, as {json:?} and {name:?}"
            )));
        }
        fit_field(value, &field)?;
    }
    Ok(())
}

fn fit_field(value: &mut Value, field: &FieldDescriptor) -> Result<(), Error> {
    match (value, field.kind()) {
        (Value::Object(entries), Kind::Message(entry)) if field.is_map() => {
            let key_kind = entry.map_entry_key_field().kind();
            let value_field = entry.map_entry_value_field();
            let mut given = BTreeSet::new();
            for (key, value) in entries {
                if !given.insert(canonical(key, &key_kind)) {
                    let name = field.name();
                    return Err(Error::custom(format!(
                        "key {key:?} of map {name} stands twice"
                    )));
                }
                fit_field(value, &value_field)?;
            }
            Ok(())
        }
        (Value::Array(list), kind) if field.is_list() => list
            .iter_mut()
            .try_for_each(|value| fit_kind(value, &kind, field.name())),
        (value, kind) => fit_kind(value, &kind, field.name()),
    }
}

/// A map's key without the ways to spell it: `01` and `+1` are 1.
fn canonical(key: &str, kind: &Kind) -> String {
    match kind {
        Kind::String => key.to_owned(),
        _ => key
            .parse::<i128>()
            .map_or_else(|_| key.to_owned(), |number| number.to_string()),
    }
}

fn fit_kind(value: &mut Value, kind: &Kind, name: &str) -> Result<(), Error> {
    match kind {
        Kind::Message(message) => fit_message(value, message),
        kind => fit_scalar(value, kind, name),
    }
}

fn fit_scalar(value: &mut Value, kind: &Kind, name: &str) -> Result<(), Error> {
    let out_of_range = |value: &Value| Error::custom(format!("{name}: {value} is out of range"));
    match (kind, &*value) {
        (Kind::Float, Value::Number(number)) => {
            // Texts such as 3.4028235e38 are the nearest to a float, and as an f64 just beyond it.
            let nearest = number.as_f64().map(|number| f64::from(number as f32));
            let nearest = nearest.and_then(Number::from_f64);
            *value = Value::Number(nearest.ok_or_else(|| out_of_range(value))?);
        }
        (Kind::Float | Kind::Double, Value::String(text)) => {
            let named = matches!(text.as_str(), "NaN" | "Infinity" | "-Infinity");
            let finite = match kind {
                Kind::Float => text.parse::<f32>().is_ok_and(f32::is_finite),
                _ => text.parse::<f64>().is_ok_and(f64::is_finite),
            };
            if !named && !finite {
                return Err(Error::custom(format!(
                    "{name}: {value} is neither a number in range nor \"NaN\", \"Infinity\" or \"-Infinity\""
                )));
            }
        }
        (
            Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 | Kind::Uint64 | Kind::Fixed64,
            Value::Number(number),
        ) if number.is_f64() => {
            // The largest integers are no f64: the next f64 is a power of two, out of range.
            let end = match kind {
                Kind::Uint64 | Kind::Fixed64 => 2f64.powi(64),
                _ => 2f64.powi(63),
            };
            if number.as_f64().is_none_or(|number| number >= end) {
                return Err(out_of_range(value));
            }
        }
        _ => {}
    }
    Ok(())
}

/// A message of the type that `@type` names, beside it or (one with a JSON form of its own) in `value`.
fn fit_any(value: &mut Value, any: &MessageDescriptor) -> Result<(), Error> {
    let Value::Object(object) = value else {
        return Ok(());
    };
    let name = object.get("@type").and_then(Value::as_str);
    let name = name.and_then(|url| url.rsplit('/').next());
    let held = name.and_then(|name| any.parent_pool().get_message_by_name(name));
    match (held, object.get_mut("value")) {
        (Some(held), Some(value)) if held.full_name().starts_with("google.protobuf.") => {
            fit_message(value, &held)
        }
        (Some(held), _) => fit_message(value, &held),
        (None, _) => Ok(()),
    }
}
