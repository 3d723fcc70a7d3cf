//! Whether two schemas are one, and which context a subject is in.

use serde_json::{Map, Value};
use varve_cluster::{SchemaReference, SchemaVersion};

/// What beside its text makes a version what it is.
const COUNTED: [&str; 2] = ["metadata", "ruleSet"];

/// Whatever their ids and versions.
pub(super) fn is_same(a: &SchemaVersion, b: &SchemaVersion) -> bool {
    is_alike(a, b) && sorted(&a.references) == sorted(&b.references)
}

/// But for the versions that they refer to.
pub(super) fn is_alike(a: &SchemaVersion, b: &SchemaVersion) -> bool {
    let named = |of: &SchemaVersion| {
        let mut all: Vec<(String, String)> =
            of.references.iter().map(|r| (r.name.clone(), r.subject.clone())).collect();
        all.sort();
        all
    };
    a.schema_type == b.schema_type
        && is_same_text(&a.schema_type, &a.schema, &b.schema)
        && named(a) == named(b)
        && counted(a) == counted(b)
}

/// Registries write schemas anew, with other blanks.
fn is_same_text(schema_type: &str, a: &str, b: &str) -> bool {
    let parsed = |text: &str| serde_json::from_str::<Value>(text).ok();
    a == b
        || match schema_type {
            "PROTOBUF" => a.split_whitespace().eq(b.split_whitespace()),
            _ => parsed(a).is_some_and(|a| Some(a) == parsed(b)),
        }
}

fn sorted(references: &[SchemaReference]) -> Vec<(&str, &str, i32)> {
    let mut all: Vec<_> =
        references.iter().map(|r| (r.name.as_str(), r.subject.as_str(), r.version)).collect();
    all.sort_unstable();
    all
}

fn counted(of: &SchemaVersion) -> Vec<(String, Value)> {
    let more = of.more.as_deref().and_then(|more| serde_json::from_str::<Map<String, Value>>(more).ok());
    more.into_iter().flatten().filter(|(name, _)| COUNTED.contains(&name.as_str())).collect()
}

/// `:.context:`, or nothing: ids are unique in one.
pub(super) fn context(subject: &str) -> &str {
    let Some(rest) = subject.strip_prefix(":.") else { return "" };
    rest.find(':').and_then(|end| subject.get(..end + 3)).unwrap_or("")
}

/// A reference without a context is within that of the subject that refers.
pub(super) fn referred(from: &str, reference: &SchemaReference) -> String {
    match context(&reference.subject) {
        "" => format!("{}{}", context(from), reference.subject),
        _ => reference.subject.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(schema_type: &str, schema: &str) -> SchemaVersion {
        SchemaVersion {
            version: 1,
            id: 1,
            schema_type: schema_type.to_owned(),
            deleted: false,
            schema: schema.to_owned(),
            references: Vec::new(),
            more: None,
        }
    }

    #[test]
    fn texts_differ_by_what_they_say() {
        let a = version("AVRO", r#"{"type": "string", "doc": "a b"}"#);
        assert!(is_same(&a, &version("AVRO", r#"{"doc":"a b","type":"string"}"#)));
        assert!(!is_same(&a, &version("AVRO", r#"{"doc":"ab","type":"string"}"#)));
        assert!(!is_same(&a, &version("JSON", r#"{"type": "string", "doc": "a b"}"#)));
        let p = version("PROTOBUF", "message A {\n  int32 a = 1;\n}\n");
        assert!(is_same(&p, &version("PROTOBUF", "message A { int32 a = 1; }")));
        assert!(!is_same(&p, &version("PROTOBUF", "message A { int64 a = 1; }")));
        let tagged = SchemaVersion { more: Some(r#"{"metadata":{"tags":{}}}"#.to_owned()), ..a.clone() };
        let told = SchemaVersion { more: Some(r#"{"guid":"x"}"#.to_owned()), ..a.clone() };
        assert!(!is_same(&a, &tagged) && is_same(&a, &told));
        let to = |version| SchemaReference { name: "n".to_owned(), subject: "s".to_owned(), version };
        let (one, two) = (
            SchemaVersion { references: vec![to(1)], ..a.clone() },
            SchemaVersion { references: vec![to(2)], ..a },
        );
        assert!(!is_same(&one, &two) && is_alike(&one, &two));
    }

    #[test]
    fn contexts() {
        assert_eq!(
            (context("a"), context(":.eu:a"), context(":.eu"), context("a:.b:c")),
            ("", ":.eu:", "", "")
        );
        let to =
            |subject: &str| SchemaReference { name: String::new(), subject: subject.to_owned(), version: 1 };
        assert_eq!(referred(":.eu:a", &to("b")), ":.eu:b");
        assert_eq!(referred(":.eu:a", &to(":.us:b")), ":.us:b");
        assert_eq!(referred("a", &to("b")), "b");
    }
}
