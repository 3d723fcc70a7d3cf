//! ACLs.

use kafka_protocol::messages::DescribeAclsRequest;
use serde::{Deserialize, Serialize};

use super::super::asking::Refused;
use super::super::cluster::Client;
use super::error::{AdminResult, NeededAcl};

const ANY: i8 = 1;
const RESOURCE_TYPES: [&str; 8] =
    ["UNKNOWN", "ANY", "TOPIC", "GROUP", "CLUSTER", "TRANSACTIONAL_ID", "DELEGATION_TOKEN", "USER"];
const PATTERN_TYPES: [&str; 5] = ["UNKNOWN", "ANY", "MATCH", "LITERAL", "PREFIXED"];
const PERMISSIONS: [&str; 4] = ["UNKNOWN", "ANY", "DENY", "ALLOW"];
const OPERATIONS: [&str; 16] = [
    "UNKNOWN",
    "ANY",
    "ALL",
    "READ",
    "WRITE",
    "CREATE",
    "DELETE",
    "ALTER",
    "DESCRIBE",
    "CLUSTER_ACTION",
    "DESCRIBE_CONFIGS",
    "ALTER_CONFIGS",
    "IDEMPOTENT_WRITE",
    "CREATE_TOKENS",
    "DESCRIBE_TOKENS",
    "TWO_PHASE_COMMIT",
];

/// One binding, in the names of Kafka's own tools.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AclEntry {
    pub resource_type: String,
    pub resource_name: String,
    pub pattern_type: String,
    pub principal: String,
    pub host: String,
    pub operation: String,
    pub permission: String,
}

impl Client {
    /// All of them, in order. A cluster without an authorizer is `Unsupported`. One request per type of resource
    /// bounds the answers.
    pub async fn list_acls(&self) -> AdminResult<Vec<AclEntry>> {
        let mut all = Vec::new();
        for resource_type in 2_i8..8 {
            let request = DescribeAclsRequest::default()
                .with_resource_type_filter(resource_type)
                .with_resource_name_filter(None)
                .with_pattern_type_filter(ANY)
                .with_principal_filter(None)
                .with_host_filter(None)
                .with_operation(ANY)
                .with_permission_type(ANY);
            let needs = NeededAcl::on_cluster("Describe");
            let answer =
                self.ask_any_broker("ACLs", &request, |a| Refused::by(a.error_code, needs.clone())).await?;
            for resource in answer.resources {
                for acl in resource.acls {
                    all.push(AclEntry {
                        resource_type: name(&RESOURCE_TYPES, resource.resource_type),
                        resource_name: resource.resource_name.to_string(),
                        pattern_type: name(&PATTERN_TYPES, resource.pattern_type),
                        principal: acl.principal.to_string(),
                        host: acl.host.to_string(),
                        operation: name(&OPERATIONS, acl.operation),
                        permission: name(&PERMISSIONS, acl.permission_type),
                    });
                }
            }
        }
        all.sort();
        Ok(all)
    }
}

/// A code that a later Kafka has added keeps its number.
fn name(names: &[&str], code: i8) -> String {
    let known = usize::try_from(code).ok().and_then(|at| names.get(at));
    known.map_or_else(|| format!("UNKNOWN({code})"), |name| (*name).to_owned())
}

/// A binding in Kafka's codes.
pub(in crate::client) struct AclCodes {
    pub(in crate::client) resource_type: i8,
    pub(in crate::client) pattern_type: i8,
    pub(in crate::client) operation: i8,
    pub(in crate::client) permission: i8,
}

/// `None` of what has a name that this build does not know.
pub(in crate::client) fn acl_codes(entry: &AclEntry) -> Option<AclCodes> {
    Some(AclCodes {
        resource_type: code(&RESOURCE_TYPES, &entry.resource_type)?,
        pattern_type: code(&PATTERN_TYPES, &entry.pattern_type)?,
        operation: code(&OPERATIONS, &entry.operation)?,
        permission: code(&PERMISSIONS, &entry.permission)?,
    })
}

fn code(names: &[&str], name: &str) -> Option<i8> {
    i8::try_from(names.iter().position(|known| *known == name)?).ok()
}

/// Kafka's code of an operation.
pub(super) fn operation_code(name: &str) -> Option<i8> {
    code(&OPERATIONS, name)
}
