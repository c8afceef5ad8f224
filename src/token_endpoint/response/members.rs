//! The members of a response's JSON object.

use std::fmt;

use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

const NOT_AN_OBJECT: &str = "the body is not a JSON object";

/// The members that are used, unparsed: a value that cannot be read must not hide the others. Of a
/// repeated member the last one counts.
#[derive(Default)]
pub(super) struct Members<'a> {
    pub(super) access_token: Option<&'a RawValue>,
    pub(super) refresh_token: Option<&'a RawValue>,
    pub(super) token_type: Option<&'a RawValue>,
    pub(super) expires_in: Option<&'a RawValue>,
    pub(super) scope: Option<&'a RawValue>,
    pub(super) error: Option<&'a RawValue>,
    pub(super) error_description: Option<&'a RawValue>,
}

impl<'a> Members<'a> {
    pub(super) fn parse(body: &'a str) -> Result<Self, &'static str> {
        if body.bytes().all(|byte| byte.is_ascii_whitespace()) {
            return Err("the body is empty");
        }
        let mut json = serde_json::Deserializer::from_str(body);
        // serde's message is dropped, since it may repeat parts of the body.
        let members = json.deserialize_map(Object).map_err(|_| NOT_AN_OBJECT)?;
        json.end().map_err(|_| NOT_AN_OBJECT)?;
        Ok(members)
    }

    fn member(&mut self, name: &str) -> Option<&mut Option<&'a RawValue>> {
        match name {
            "access_token" => Some(&mut self.access_token),
            "refresh_token" => Some(&mut self.refresh_token),
            "token_type" => Some(&mut self.token_type),
            "expires_in" => Some(&mut self.expires_in),
            "scope" => Some(&mut self.scope),
            "error" => Some(&mut self.error),
            "error_description" => Some(&mut self.error_description),
            _ => None,
        }
    }
}

/// Returns the text of a value that is a string.
pub(super) fn text(value: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(value?.get()).ok()
}

/// Accepts any object. serde's own visitors accept no repeated members.
struct Object;

impl<'a> Visitor<'a> for Object {
    type Value = Members<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Members<'a>, A::Error> {
        let mut members = Members::default();
        while let Some(name) = map.next_key::<String>()? {
            match members.member(&name) {
                Some(member) => *member = Some(map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(members)
    }
}
