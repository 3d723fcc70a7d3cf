//! What stands in a gap's only section: why its offsets are not archived.

use serde::{Deserialize, Serialize};
use varve_format::{Encoder, ExtentKind, Finished, Footer, Plan, SegmentInfo, WriteOptions};

use super::more::{More, check_more};
use crate::canonical::{Record, RecordError, V1, flaw, rule};
use crate::error::{Error, Result};

/// The section that makes an object a gap.
pub const GAP_SECTION: ExtentKind = ExtentKind::Unknown(128);

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum GapReason {
    /// The log begins later: retention, or DeleteRecords.
    LogStart,
    /// No batch is left there.
    Compacted,
    /// The source's bytes fail their checksums.
    Corrupt,
    /// The source can't give them.
    Lost,
    /// A later writer's.
    Other(String),
}

impl GapReason {
    pub fn name(&self) -> &str {
        match self {
            Self::LogStart => "log-start",
            Self::Compacted => "compacted",
            Self::Corrupt => "corrupt",
            Self::Lost => "lost",
            Self::Other(name) => name,
        }
    }
}

impl From<String> for GapReason {
    fn from(name: String) -> Self {
        match name.as_str() {
            "log-start" => Self::LogStart,
            "compacted" => Self::Compacted,
            "corrupt" => Self::Corrupt,
            "lost" => Self::Lost,
            _ => Self::Other(name),
        }
    }
}

impl From<GapReason> for String {
    fn from(reason: GapReason) -> Self {
        reason.name().to_owned()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GapRecord {
    pub varve_gap: V1,
    pub reason: GapReason,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub more: Vec<More>,
}

impl Record for GapRecord {
    const NAME: &'static str = "varve_gap";
    const MAX_BYTES: u64 = 4096;

    fn check(&self) -> Result<(), RecordError> {
        rule::safe("reason", self.reason.name(), rule::NAME_MAX_BYTES)?;
        rule::detail(self.detail.as_ref())?;
        check_more(&self.more)
    }
}

impl GapRecord {
    pub fn new(reason: GapReason, detail: Option<String>) -> Self {
        Self { varve_gap: V1, reason, detail, more: Vec::new() }
    }

    /// The whole object of a gap over the offsets of `info`.
    ///
    /// # Errors
    /// [`Error::Invalid`] and [`Error::Segment`] for what may not stand in an archive.
    pub fn object(&self, info: SegmentInfo, options: WriteOptions) -> Result<(Vec<u8>, Finished)> {
        let place = || format!("gap at {} of {} {}", info.base_offset, info.topic, info.partition);
        let segment = |source| Error::Segment { object: place(), source };
        if info.last_offset < info.base_offset {
            return Err(Error::invalid("gap", format!("no offset from {}", info.base_offset), "1 or more"));
        }
        let record = self.encode().map_err(|source| Error::Record { object: place(), source })?;
        let plan =
            Plan::new(0, options.chunk_bytes, &[(GAP_SECTION, record.len() as u64)]).map_err(segment)?;
        let mut encoder = Encoder::new(options, plan).map_err(segment)?;
        let mut object = Vec::new();
        // A record fits into the smallest frame.
        encoder.frame(&record, &mut object).map_err(segment)?;
        let finished = encoder.finish(info.clone(), &mut object).map_err(segment)?;
        Ok((object, finished))
    }
}

/// Whether an object of a chain is a gap.
///
/// # Errors
/// [`RecordError::Corrupt`] for what is neither a gap nor a segment with a log.
pub(crate) fn is_gap(footer: &Footer) -> Result<bool, RecordError> {
    let section = footer.extents.iter().any(|e| e.kind == GAP_SECTION);
    match (footer.log_bytes, section, footer.extents.len()) {
        (0, true, 1) => Ok(true),
        (1.., false, _) => Ok(false),
        (log, _, extents) => Err(flaw(
            "object of a chain",
            "a log, or one section that makes it a gap",
            format!("{log} bytes of log, {extents} extents, gap section: {section}"),
        )),
    }
}
