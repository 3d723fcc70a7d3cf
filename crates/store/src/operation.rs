//! Names of what can be done to a store, for counting and for faults.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    Put,
    Upload,
    PutPart,
    Complete,
    Abort,
    Get,
    Head,
    List,
    DeleteMany,
    Copy,
    ListUploads,
    AbortUpload,
    /// Asks whether the store keeps versions. What is done to versions counts as `Get`, `Head`, `List` and
    /// `DeleteMany`.
    Versions,
}

impl Operation {
    /// In the order of their values.
    pub const ALL: [Operation; 13] = [
        Operation::Put,
        Operation::Upload,
        Operation::PutPart,
        Operation::Complete,
        Operation::Abort,
        Operation::Get,
        Operation::Head,
        Operation::List,
        Operation::DeleteMany,
        Operation::Copy,
        Operation::ListUploads,
        Operation::AbortUpload,
        Operation::Versions,
    ];

    /// For metrics: `put_part`.
    pub fn name(self) -> &'static str {
        match self {
            Operation::Put => "put",
            Operation::Upload => "upload",
            Operation::PutPart => "put_part",
            Operation::Complete => "complete",
            Operation::Abort => "abort",
            Operation::Get => "get",
            Operation::Head => "head",
            Operation::List => "list",
            Operation::DeleteMany => "delete_many",
            Operation::Copy => "copy",
            Operation::ListUploads => "list_uploads",
            Operation::AbortUpload => "abort_upload",
            Operation::Versions => "versions",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
