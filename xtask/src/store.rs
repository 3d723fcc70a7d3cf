//! The stores that tests and the demo run on, by the names that people type.

use clap::ValueEnum;

/// Each but the directory is a server on this machine, which is installed when it is first wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Store {
    /// A directory
    File,
    /// MinIO
    S3,
    /// fake-gcs-server
    Gcs,
    /// Azurite
    Azure,
}

impl Store {
    /// As the tests' programs are told it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::S3 => "s3",
            Self::Gcs => "gcs",
            Self::Azure => "azure",
        }
    }
}
