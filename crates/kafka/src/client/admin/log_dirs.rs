//! Room on the brokers' disks.

use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};

use super::super::asking::Refused;
use super::super::cluster::Client;
use super::error::{AdminResult, NeededAcl};

/// One log directory of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDir {
    pub broker: i32,
    pub path: String,
    /// `None` where the broker doesn't tell.
    pub usable_bytes: Option<u64>,
}

impl Client {
    /// Those of one broker that are online.
    pub async fn log_dirs(&self, broker: i32) -> AdminResult<Vec<LogDir>> {
        let what = format!("log directories of broker {broker}");
        let request = DescribeLogDirsRequest::default().with_topics(Some(Vec::new()));
        let ask = async || Ok(self.connection(broker).await?.call(request.clone()).await?);
        let refused = |answer: &DescribeLogDirsResponse| {
            Refused::by(answer.error_code, NeededAcl::on_cluster("Describe"))
        };
        let answer = self.ask_until_done(&what, ask, refused).await?;
        let online = answer.results.into_iter().filter(|dir| dir.error_code == 0);
        let dirs = online.map(|dir| LogDir {
            broker,
            path: dir.log_dir.to_string(),
            usable_bytes: u64::try_from(dir.usable_bytes).ok(),
        });
        Ok(dirs.collect())
    }
}
