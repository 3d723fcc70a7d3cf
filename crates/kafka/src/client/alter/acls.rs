//! Adding ACLs.

use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::{CreateAclsRequest, CreateAclsResponse};
use kafka_protocol::protocol::StrBytes;

use super::super::admin::{AclEntry, AdminError, AdminResult, NeededAcl, acl_codes};
use super::super::asking::Refused;
use super::super::cluster::Client;

const AT_ONCE: usize = 500;

impl Client {
    /// Adds these bindings; those that there are already stay as they are.
    pub async fn create_acls(&self, entries: &[AclEntry]) -> AdminResult<()> {
        for some in entries.chunks(AT_ONCE) {
            self.create_some(some).await?;
        }
        Ok(())
    }

    async fn create_some(&self, entries: &[AclEntry]) -> AdminResult<()> {
        let what = "adding ACLs";
        let mut creations = Vec::with_capacity(entries.len());
        for entry in entries {
            let Some(codes) = acl_codes(entry) else {
                let what =
                    format!("the ACL {} on {} {}", entry.operation, entry.resource_type, entry.resource_name);
                return Err(AdminError::Unsupported {
                    what,
                    detail: "this build does not know it".to_owned(),
                });
            };
            creations.push(
                AclCreation::default()
                    .with_resource_type(codes.resource_type)
                    .with_resource_name(StrBytes::from_string(entry.resource_name.clone()))
                    .with_resource_pattern_type(codes.pattern_type)
                    .with_principal(StrBytes::from_string(entry.principal.clone()))
                    .with_host(StrBytes::from_string(entry.host.clone()))
                    .with_operation(codes.operation)
                    .with_permission_type(codes.permission),
            );
        }
        let request = CreateAclsRequest::default().with_creations(creations);
        let refused = |answer: &CreateAclsResponse| {
            Refused::worst(answer.results.iter().map(|r| {
                let why = r.error_message.as_deref().unwrap_or_default();
                Refused::of(r.error_code, why, NeededAcl::on_cluster("Alter"))
            }))
        };
        self.ask_any_broker(what, &request, refused).await.map(drop)
    }
}
