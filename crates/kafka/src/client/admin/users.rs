//! SCRAM users: names, mechanisms and iterations. Kafka tells nobody the secrets.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::DescribeUserScramCredentialsRequest;
use serde::{Deserialize, Serialize};

use super::super::asking::Refused;
use super::super::cluster::Client;
use super::super::error::ClientError;
use super::error::{AdminResult, Found, NeededAcl};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScramUser {
    pub name: String,
    pub credentials: Vec<ScramCredential>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ScramCredential {
    pub mechanism: String,
    pub iterations: i32,
}

impl Client {
    pub async fn list_scram_users(&self) -> AdminResult<Found<ScramUser>> {
        // None named is all. Null would be too, but a broker that denies it then fails and never answers.
        let request = DescribeUserScramCredentialsRequest::default().with_users(Some(Vec::new()));
        let needs = NeededAcl::on_cluster("Describe");
        let answer = self
            .ask_any_broker("SCRAM users", &request, |a| Refused::by(a.error_code, needs.clone()))
            .await?;
        let mut found = Found::default();
        for result in answer.results {
            let name = result.user.to_string();
            if let Some(code) = ResponseError::try_from_code(result.error_code) {
                let what = format!("SCRAM user {name}");
                found.miss(what.clone(), ClientError::kafka(what, code).into());
                continue;
            }
            let credentials = result.credential_infos.into_iter().map(|c| {
                let mechanism = match c.mechanism {
                    1 => "SCRAM-SHA-256".to_owned(),
                    2 => "SCRAM-SHA-512".to_owned(),
                    other => format!("UNKNOWN({other})"),
                };
                ScramCredential { mechanism, iterations: c.iterations }
            });
            let mut credentials: Vec<ScramCredential> = credentials.collect();
            credentials.sort();
            found.items.push(ScramUser { name, credentials });
        }
        found.items.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }
}
