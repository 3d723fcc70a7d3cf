//! Questions to the active controller, wherever it is.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::DescribeClusterRequest;
use kafka_protocol::protocol::Request;
use parking_lot::Mutex;

use crate::client::admin::lacking;
use crate::client::{Client, ClientConfig, ClientError, Connection, HostPort, Result};

/// Of DescribeCluster: its endpoints are controllers.
const CONTROLLERS: i8 = 2;

/// Knows the controllers from those that it is given, and follows the active one.
#[derive(Debug)]
pub struct Controller {
    client: Client,
    active: Mutex<Option<HostPort>>,
}

impl Controller {
    /// `bootstrap.servers` are controllers, at the listener that `controller.listener.names` has.
    ///
    /// # Errors
    /// Of certificates that can't be read.
    pub fn new(config: ClientConfig) -> Result<Self> {
        Ok(Self { client: Client::new(config)?, active: Mutex::new(None) })
    }

    /// Which of these operations on the cluster we lack at the active one, in Kafka's words: CREATE, ALTER … It tells
    /// nothing but to who has ALTER: without it that one is named.
    ///
    /// # Errors
    /// Why it can't be asked.
    pub async fn lacking(&self, operations: &[&str]) -> Result<Vec<String>> {
        let asked = async {
            let connection = self.connection().await?;
            let request = DescribeClusterRequest::default()
                .with_endpoint_type(CONTROLLERS)
                .with_include_cluster_authorized_operations(true);
            let answer = connection.call(request).await?;
            match ResponseError::try_from_code(answer.error_code) {
                None => Ok(lacking(answer.cluster_authorized_operations, operations)),
                Some(code) => Err(ClientError::kafka("the controllers", code)),
            }
        };
        match asked.await {
            Err(ClientError::Kafka { code: ResponseError::ClusterAuthorizationFailed, .. }) => {
                Ok(vec!["ALTER".to_owned()])
            }
            told => told,
        }
    }

    pub(super) async fn connection(&self) -> Result<Connection> {
        let known = self.active.lock().clone();
        let address = match known {
            Some(address) => address,
            None => self.find().await?,
        };
        let connection = self.client.connect(&address).await;
        if connection.is_err() {
            self.active.lock().take();
        }
        connection
    }

    /// Asks them one after the other who is active.
    async fn find(&self) -> Result<HostPort> {
        let mut last = ClientError::NoLeader { what: "the active controller".to_owned() };
        for address in &self.client.config().bootstrap_servers {
            match self.ask(address).await {
                Ok(Some(active)) => {
                    *self.active.lock() = Some(active.clone());
                    return Ok(active);
                }
                Ok(None) => {}
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn ask(&self, address: &HostPort) -> Result<Option<HostPort>> {
        let connection = self.client.connect(address).await?;
        if connection.version::<DescribeClusterRequest>(i16::MAX)? < 1 {
            return Err(connection.too_old::<DescribeClusterRequest>(1));
        }
        let request = DescribeClusterRequest::default().with_endpoint_type(CONTROLLERS);
        let answer = connection.call(request).await?;
        if let Some(code) = ResponseError::try_from_code(answer.error_code) {
            return Err(ClientError::kafka(format!("the controllers, of {address}"), code));
        }
        let active = answer.brokers.iter().find(|node| node.broker_id == answer.controller_id);
        Ok(active.and_then(|node| {
            Some(HostPort { host: node.host.to_string(), port: u16::try_from(node.port).ok()? })
        }))
    }

    /// Asks the active controller, and its successor if it is none any more. What comes back may still hold codes of
    /// its own, which `code_of` does not tell.
    pub(super) async fn call<R: Request + Clone>(
        &self,
        what: &str,
        request: R,
        code_of: impl Fn(&R::Response) -> i16,
    ) -> Result<R::Response> {
        self.call_to(what, request, R::VERSIONS.max, code_of).await
    }

    /// In a version up to `newest`, see [`Connection::call_version`].
    pub(super) async fn call_to<R: Request + Clone>(
        &self,
        what: &str,
        request: R,
        newest: i16,
        code_of: impl Fn(&R::Response) -> i16,
    ) -> Result<R::Response> {
        let mut backoff = self.client.backoff();
        loop {
            let asked = async {
                let connection = self.connection().await?;
                let version = connection.version_to::<R>(newest)?;
                connection.call_version(request.clone(), version).await
            };
            let error = match asked.await {
                Ok(answer) => match ResponseError::try_from_code(code_of(&answer)) {
                    None => return Ok(answer),
                    Some(code) => ClientError::kafka(what, code),
                },
                Err(error) => error,
            };
            let moved = matches!(&error, ClientError::Kafka { code: ResponseError::NotController, .. });
            if moved || !matches!(&error, ClientError::Kafka { .. }) {
                self.active.lock().take();
            }
            backoff.wait_or_fail(what, error).await?;
        }
    }
}
