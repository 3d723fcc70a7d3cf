//! Room on the brokers' disks.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::DescribeLogDirsRequest;

use super::super::cluster::Client;
use super::super::error::ClientError;
use super::error::{AdminError, AdminResult, NeededAcl};

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
        let mut backoff = self.backoff();
        loop {
            let asked = async { self.connection(broker).await?.call(request.clone()).await };
            let error = match asked.await {
                Ok(answer) => match ResponseError::try_from_code(answer.error_code) {
                    None => {
                        let online = answer.results.into_iter().filter(|dir| dir.error_code == 0);
                        let dirs = online.map(|dir| LogDir {
                            broker,
                            path: dir.log_dir.to_string(),
                            usable_bytes: u64::try_from(dir.usable_bytes).ok(),
                        });
                        return Ok(dirs.collect());
                    }
                    Some(code) if code.is_retriable() => ClientError::kafka(&what, code),
                    Some(code) => {
                        return Err(AdminError::from_code(what, code, NeededAcl::on_cluster("Describe")));
                    }
                },
                Err(e) => e,
            };
            backoff.wait_or_fail(&what, error).await.map_err(|e| AdminError::from_client(&what, e))?;
        }
    }
}
