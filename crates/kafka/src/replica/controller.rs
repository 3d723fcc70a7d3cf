//! Questions to the active controller, wherever it is.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::DescribeClusterRequest;
use kafka_protocol::protocol::Request;
use parking_lot::Mutex;

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

    /// Whether the active one can be asked.
    ///
    /// # Errors
    /// Why not.
    pub async fn check(&self) -> Result<()> {
        self.connection().await.map(drop)
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
        let mut backoff = self.client.backoff();
        loop {
            let asked = async { self.connection().await?.call(request.clone()).await };
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
