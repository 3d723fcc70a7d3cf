//! Object stores behind one contract.

mod contract;
mod error;
mod filesystem;
mod key;
mod memory;
mod parts;

pub use contract::{
    Create, GetRange, GetResult, Limits, ListPage, ObjectMeta, PendingUpload, PutOptions, Result,
    SharedStore, Store, Upload, delete,
};
pub use error::{Error, Kind};
pub use filesystem::FilesystemStore;
pub use key::Key;
pub use memory::MemoryStore;
