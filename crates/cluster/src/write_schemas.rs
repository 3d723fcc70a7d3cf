//! Changing a Schema Registry.
//!
//! Each call may be made twice: what is there already, or gone already, is no error. In import mode a registry takes
//! ids and versions as they are given, and checks no compatibility; it also replaces what has a version already, so
//! look first.

use hyper::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::read_schemas::{own_config, version_of};
use super::schema_registry::{RegistryError, SchemaRegistry};
use super::schemas::{RegistryConfig, SchemaReference, SchemaVersion};

/// The mode in which ids and versions are given.
pub const IMPORT: &str = "IMPORT";
/// No mode, and no subject that anyone has.
const NO_MODE: &str = "VARVE_ASKS_WHICH_THERE_ARE";
const NO_SUBJECT: &str = "varve-restore-asks-for-modes";
/// What a version has beside its text that a registry takes back.
const TAKEN_BACK: [&str; 2] = ["metadata", "ruleSet"];

/// What is registered, or looked for.
#[derive(Clone, Copy, Debug)]
pub struct NewSchema<'a> {
    pub schema_type: &'a str,
    pub schema: &'a str,
    pub references: &'a [SchemaReference],
    /// As [`SchemaVersion::more`] has it.
    pub more: Option<&'a str>,
    /// In import mode.
    pub id_and_version: Option<(i64, i32)>,
}

/// Under its subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Registered {
    pub id: i64,
    pub version: i32,
}

#[derive(Deserialize)]
struct Id {
    id: i64,
}

impl NewSchema<'_> {
    fn body(&self) -> Value {
        let mut body = json!({ "schemaType": self.schema_type, "schema": self.schema });
        if !self.references.is_empty() {
            body["references"] = json!(self.references);
        }
        let more = self.more.and_then(|more| serde_json::from_str::<Map<String, Value>>(more).ok());
        for (name, value) in more.into_iter().flatten() {
            if TAKEN_BACK.contains(&name.as_str()) {
                body[name] = value;
            }
        }
        if let Some((id, version)) = self.id_and_version {
            body["id"] = json!(id);
            body["version"] = json!(version);
        }
        body
    }
}

/// A registry's answers that say nothing more than that it was done.
type Done = serde::de::IgnoredAny;

impl SchemaRegistry {
    /// Whether it says that it knows import mode. It is asked for a mode that does not exist, and names those that do:
    /// nothing is changed.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn knows_import(&self) -> Result<bool, RegistryError> {
        let body = json!({ "mode": NO_MODE });
        match self.send::<Done>(Method::PUT, &["mode", NO_SUBJECT], "", Some(&body)).await {
            Err(RegistryError::Status { status: 400 | 409 | 422, message, .. }) => {
                Ok(message.contains(IMPORT))
            }
            Err(RegistryError::Status { status: 404 | 405 | 501, .. }) => Ok(false),
            Err(error) => Err(error),
            // One that takes anything knows none. It is taken back.
            Ok(_) => self.delete_mode(NO_SUBJECT).await.map(|()| false),
        }
    }

    /// Its id.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn register(&self, subject: &str, schema: &NewSchema<'_>) -> Result<i64, RegistryError> {
        let body = schema.body();
        let path = ["subjects", subject, "versions"];
        Ok(self.send::<Id>(Method::POST, &path, "", Some(&body)).await?.id)
    }

    /// Where the subject has the same schema already, deleted or not.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn lookup(
        &self,
        subject: &str,
        schema: &NewSchema<'_>,
    ) -> Result<Option<Registered>, RegistryError> {
        let body = schema.body();
        match self.send(Method::POST, &["subjects", subject], "deleted=true", Some(&body)).await {
            Ok(found) => Ok(Some(found)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// One version; if it may be a deleted one, it is not told whether it is.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn version(
        &self,
        subject: &str,
        number: i32,
        or_deleted: bool,
    ) -> Result<Option<SchemaVersion>, RegistryError> {
        version_of(self, subject, number, or_deleted).await
    }

    /// Softly.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn delete_version(&self, subject: &str, number: i32) -> Result<(), RegistryError> {
        gone(
            self.send(Method::DELETE, &["subjects", subject, "versions", &number.to_string()], "", None)
                .await,
        )
    }

    /// Softly, with all its versions.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn delete_subject(&self, subject: &str) -> Result<(), RegistryError> {
        gone(self.send(Method::DELETE, &["subjects", subject], "", None).await)
    }

    /// A subject's own, `None` if it has none; or the global one.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn mode(&self, subject: Option<&str>) -> Result<Option<String>, RegistryError> {
        #[derive(Deserialize)]
        struct Mode {
            mode: String,
        }
        let path: Vec<&str> = ["mode"].into_iter().chain(subject).collect();
        match self.get::<Mode>(&path, if subject.is_some() { "defaultToGlobal=false" } else { "" }).await {
            Ok(found) => Ok(Some(found.mode)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Of a subject, or the global one. By force: schemas that are there stay.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn set_mode(&self, subject: Option<&str>, mode: &str) -> Result<(), RegistryError> {
        let body = json!({ "mode": mode });
        let path: Vec<&str> = ["mode"].into_iter().chain(subject).collect();
        self.send::<Done>(Method::PUT, &path, "force=true", Some(&body)).await.map(drop)
    }

    /// A subject's own: from then on the global one holds. Where modes can't be deleted, it gets the global one.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn delete_mode(&self, subject: &str) -> Result<(), RegistryError> {
        match gone(self.send(Method::DELETE, &["mode", subject], "", None).await) {
            Err(RegistryError::Status { status: 405, .. }) => {
                let global = self.mode(None).await?;
                self.set_mode(Some(subject), global.as_deref().unwrap_or("READWRITE")).await
            }
            answer => answer,
        }
    }

    /// A subject's own.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn config(&self, subject: &str) -> Result<Option<RegistryConfig>, RegistryError> {
        own_config(self, subject).await
    }

    /// Of a subject, or the global one.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn set_config(
        &self,
        subject: Option<&str>,
        config: &RegistryConfig,
    ) -> Result<(), RegistryError> {
        let more = config.more.as_deref().and_then(|more| serde_json::from_str(more).ok());
        let mut body: Map<String, Value> = more.unwrap_or_default();
        if let Some(level) = &config.compatibility {
            body.insert("compatibility".to_owned(), json!(level));
        }
        let path: Vec<&str> = ["config"].into_iter().chain(subject).collect();
        self.send::<Done>(Method::PUT, &path, "", Some(&Value::Object(body))).await.map(drop)
    }

    /// A subject's own.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn delete_config(&self, subject: &str) -> Result<(), RegistryError> {
        gone(self.send(Method::DELETE, &["config", subject], "", None).await)
    }
}

fn gone(answer: Result<Done, RegistryError>) -> Result<(), RegistryError> {
    match answer {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_registry_takes_back_is_sent_and_the_rest_is_not() {
        let references =
            [SchemaReference { name: "p".to_owned(), subject: "p-value".to_owned(), version: 2 }];
        let schema = NewSchema {
            schema_type: "AVRO",
            schema: "\"string\"",
            references: &references,
            more: Some(r#"{"guid":"x","metadata":{"tags":{}},"ts":1}"#),
            id_and_version: Some((7, 3)),
        };
        let sent = json!({
            "schemaType": "AVRO",
            "schema": "\"string\"",
            "references": [{ "name": "p", "subject": "p-value", "version": 2 }],
            "metadata": { "tags": {} },
            "id": 7,
            "version": 3,
        });
        assert_eq!(schema.body(), sent);
        let bare = NewSchema { references: &[], more: None, id_and_version: None, ..schema };
        assert_eq!(bare.body(), json!({ "schemaType": "AVRO", "schema": "\"string\"" }));
    }
}
