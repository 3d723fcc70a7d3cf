//! What could not be read, by name: never silently absent.

use std::collections::BTreeSet;

use varve_kafka::client::admin::{AdminError, AdminResult, Found, NeededAcl};

use super::document::{MissingEntry, Needs, Reason};

/// Warnings of one collection that are logged one by one; of the rest only their number is.
const WARNINGS_MAX: usize = 20;

#[derive(Debug, Default)]
pub(super) struct MissingList(Vec<MissingEntry>);

impl MissingList {
    pub(super) fn admin(&mut self, what: impl Into<String>, error: &AdminError) {
        let (reason, needs) = match error {
            AdminError::NotAuthorized { needs, .. } => (Reason::Denied, Some(needs_of(needs))),
            AdminError::Unsupported { .. } => (Reason::Unsupported, None),
            AdminError::Client(_) => (Reason::Failed, None),
        };
        self.0.push(MissingEntry { what: what.into(), reason, needs, error: told(error) });
    }

    pub(super) fn note(&mut self, what: impl Into<String>, reason: Reason, error: impl ToString) {
        self.0.push(MissingEntry { what: what.into(), reason, needs: None, error: error.to_string() });
    }

    /// What was found; the rest is noted, but for what was deleted since it was listed.
    pub(super) fn take<T>(&mut self, found: Found<T>) -> Vec<T> {
        for missing in found.missing.into_iter().filter(|m| !m.error.is_gone()) {
            self.admin(missing.what, &missing.error);
        }
        found.items
    }

    /// The same of groups: what is missing by a group's id alone is named by `what` before it.
    pub(super) fn take_of_groups<T>(
        &mut self,
        found: Found<T>,
        groups: &BTreeSet<&str>,
        what: &str,
    ) -> Vec<T> {
        for missing in found.missing.into_iter().filter(|m| !m.error.is_gone()) {
            let is_group = groups.contains(missing.what.as_str());
            let name = if is_group { format!("{what} of group {}", missing.what) } else { missing.what };
            self.admin(name, &missing.error);
        }
        found.items
    }

    /// A refusal is noted; a failure is an error, since all else would fail too.
    pub(super) fn allow<T>(&mut self, what: &str, result: AdminResult<T>) -> AdminResult<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error @ AdminError::Client(_)) => Err(error),
            Err(error) => {
                self.admin(what, &error);
                Ok(None)
            }
        }
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// In the document's order.
    pub(super) fn into_entries(mut self) -> Vec<MissingEntry> {
        self.0.sort();
        self.0.dedup();
        self.0
    }
}

fn needs_of(acl: &NeededAcl) -> Needs {
    Needs {
        operation: acl.operation.clone(),
        resource_type: acl.resource_type.clone(),
        resource_name: acl.resource_name.clone(),
    }
}

/// Without what differs from time to time and from broker to broker, where the reason is a lasting one.
fn told(error: &AdminError) -> String {
    match error {
        AdminError::NotAuthorized { .. } => "not authorized".to_owned(),
        AdminError::Unsupported { detail, .. } => {
            let versions = detail.split_once(" speaks ").map(|(_broker, rest)| format!("it speaks {rest}"));
            versions.unwrap_or_else(|| detail.clone())
        }
        AdminError::Client(e) => e.to_string(),
    }
}

/// Tells the log what someone can mend.
pub(super) fn warn(missing: &[MissingEntry]) {
    let mut mendable = missing.iter().filter(|m| matches!(m.reason, Reason::Denied | Reason::Failed));
    for entry in mendable.by_ref().take(WARNINGS_MAX) {
        let needs = entry.needs.as_ref().map(ToString::to_string).unwrap_or_default();
        tracing::warn!(what = %entry.what, needs, error = %entry.error, "not in the cluster's state");
    }
    let more = mendable.count();
    if more > 0 {
        tracing::warn!(more, "more is not in the cluster's state: the document names it");
    }
}

#[cfg(test)]
mod tests {
    use varve_script::Warnings;

    use super::*;

    fn warnings(reason: Reason, entries: usize) -> usize {
        let mut list = MissingList::default();
        (0..entries).for_each(|n| list.note(format!("thing {n:03}"), reason, "no"));
        let entries = list.into_entries();
        let warnings = Warnings::default();
        tracing::subscriber::with_default(warnings.clone(), || warn(&entries));
        warnings.count()
    }

    #[test]
    fn what_someone_can_mend_is_warned_of_and_much_of_it_in_bounds() {
        assert_eq!(warnings(Reason::Denied, 3), 3);
        assert_eq!(warnings(Reason::Failed, 1), 1);
        assert_eq!(warnings(Reason::Denied, 500), WARNINGS_MAX + 1);
        assert_eq!(warnings(Reason::Withheld, 3) + warnings(Reason::Unsupported, 3), 0);
    }
}
