//! Object stores behind one contract.

mod contract;
mod error;
mod key;

pub use contract::{
    Create, GetRange, GetResult, Limits, ListPage, ObjectMeta, PendingUpload, PutOptions, Result,
    SharedStore, Store, Upload, delete,
};
pub use error::{Error, Kind};
pub use key::Key;
