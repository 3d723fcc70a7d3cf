//! Being a broker as far as the controller is concerned: registered, alive, and gone in the end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kafka_protocol::ResponseError;
use kafka_protocol::messages::broker_registration_request::{Feature, Listener};
use kafka_protocol::messages::{
    BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerId, BrokerRegistrationRequest,
    UnregisterBrokerRequest,
};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::Mutex;
use uuid::Uuid;
use varve_format::Id;

use super::controller::Controller;
use crate::client::{ClientError, HostPort, Result, SecurityProtocol};

/// A low offset would make controlled shutdowns of others wait for us.
const METADATA_OFFSET: i64 = i64::MAX / 2;
/// The first version with CordonedLogDirs (KIP-1066), which the codec does not know, and their tag.
const CORDONING_VERSION: i16 = 2;
const CORDONED_LOG_DIRS: i32 = 1;
/// An id that is still taken is asked for again so soon.
const AGAIN: Duration = Duration::from_millis(500);

/// Our registration. One question at a time: a fence cycle is not torn apart.
#[derive(Debug)]
pub(super) struct Registration {
    controller: Controller,
    pub(super) broker_id: i32,
    broker_epoch: i64,
    log_dir: Id,
    asking: Mutex<()>,
    /// No topic is placed on us, where the version has it.
    cordoned: AtomicBool,
    /// We are fenced on purpose, and stay so.
    rests: AtomicBool,
}

/// What a heartbeat wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Live,
    Fence,
    ShutDown,
}

impl Registration {
    /// An earlier session of the same id is waited for so long.
    pub(super) async fn register(
        controller: Controller,
        cluster_id: &str,
        (broker_id, log_dir): (i32, Id),
        listener: (&str, &HostPort, SecurityProtocol),
        wait: Duration,
    ) -> Result<Self> {
        let endpoint = Listener::default()
            .with_name(StrBytes::from_string(listener.0.to_owned()))
            .with_host(StrBytes::from_string(listener.1.host.clone()))
            .with_port(listener.1.port)
            .with_security_protocol(listener.2.code());
        let request = BrokerRegistrationRequest::default()
            .with_broker_id(BrokerId(broker_id))
            .with_cluster_id(StrBytes::from_string(cluster_id.to_owned()))
            .with_incarnation_id(Uuid::new_v4())
            .with_listeners(vec![endpoint])
            .with_features(features(&controller).await?)
            .with_log_dirs(vec![Uuid::from_bytes(log_dir.0)])
            .with_previous_broker_epoch(-1);
        let what = format!("registering as broker {broker_id}");
        let begun = Instant::now();
        let broker_epoch = loop {
            match controller.call(&what, request.clone(), |answer| answer.error_code).await {
                Ok(answer) => break answer.broker_epoch,
                Err(ClientError::Kafka { code: ResponseError::DuplicateBrokerRegistration, .. })
                    if begun.elapsed() < wait =>
                {
                    tokio::time::sleep(AGAIN).await;
                }
                Err(error) => return Err(error),
            }
        };
        Ok(Self {
            controller,
            broker_id,
            broker_epoch,
            log_dir,
            asking: Mutex::new(()),
            cordoned: AtomicBool::new(false),
            rests: AtomicBool::new(false),
        })
    }

    pub(super) fn broker_epoch(&self) -> i64 {
        self.broker_epoch
    }

    pub(super) fn controller(&self) -> &Controller {
        &self.controller
    }

    pub(super) async fn beat(&self, want: Want) -> Result<BrokerHeartbeatResponse> {
        let _alone = self.asking.lock().await;
        self.ask(want).await
    }

    /// What keeps our session, alive or at rest. Whether the controller has us fenced against our will.
    pub(super) async fn keep(&self) -> Result<bool> {
        let _alone = self.asking.lock().await;
        let rests = self.rests.load(Ordering::Relaxed);
        let answer = self.ask(if rests { Want::Fence } else { Want::Live }).await?;
        Ok(answer.is_fenced && !rests)
    }

    /// At rest we are fenced: no topic is placed on us.
    pub(super) async fn rest(&self, rests: bool) -> Result<()> {
        let _alone = self.asking.lock().await;
        self.rests.store(rests, Ordering::Relaxed);
        self.ask(if rests { Want::Fence } else { Want::Live }).await.map(drop)
    }

    /// Out and in again: each partition that we lead alone gets a leader epoch for either.
    pub(super) async fn cycle(&self) -> Result<()> {
        let _alone = self.asking.lock().await;
        self.ask(Want::Fence).await?;
        let answer = self.ask(Want::Live).await?;
        match answer.is_fenced {
            false => Ok(()),
            true => Err(ClientError::NoLeader { what: format!("broker {} stays fenced", self.broker_id) }),
        }
    }

    /// From now on nothing is placed on us any more, not even by who asks for us. Before 4.3 this is nothing.
    pub(super) async fn cordon(&self) -> Result<()> {
        let _alone = self.asking.lock().await;
        self.cordoned.store(true, Ordering::Relaxed);
        self.ask(if self.rests.load(Ordering::Relaxed) { Want::Fence } else { Want::Live }).await.map(drop)
    }

    async fn ask(&self, want: Want) -> Result<BrokerHeartbeatResponse> {
        let mut request = BrokerHeartbeatRequest::default()
            .with_broker_id(BrokerId(self.broker_id))
            .with_broker_epoch(self.broker_epoch)
            .with_current_metadata_offset(METADATA_OFFSET)
            .with_want_fence(want == Want::Fence)
            .with_want_shut_down(want == Want::ShutDown);
        if self.cordoned.load(Ordering::Relaxed) {
            // A compact array: how many and one, then each.
            let dirs = [&[2][..], &self.log_dir.0].concat();
            request.unknown_tagged_fields.insert(CORDONED_LOG_DIRS, dirs.into());
        }
        let what = format!("a heartbeat of broker {}", self.broker_id);
        self.controller.call_to(&what, request, CORDONING_VERSION, |answer| answer.error_code).await
    }

    pub(super) async fn unregister(&self) -> Result<()> {
        self.beat(Want::ShutDown).await?;
        unregister(&self.controller, self.broker_id).await
    }
}

/// The cluster forgets a broker, whoever it was. One that it does not know is no error.
///
/// # Errors
/// Of the controller.
pub async fn unregister(controller: &Controller, broker_id: i32) -> Result<()> {
    let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(broker_id));
    let what = format!("unregistering broker {broker_id}");
    let gone = ResponseError::BrokerIdNotRegistered.code();
    let code = |code: i16| if code == gone { 0 } else { code };
    controller.call(&what, request, |answer| code(answer.error_code)).await.map(drop)
}

/// What the controller supports, and at least what is finalized: less would be refused.
async fn features(controller: &Controller) -> Result<Vec<Feature>> {
    let answer = controller.connection().await?.api_versions().await?;
    let mut found: BTreeMap<StrBytes, (i16, i16)> = answer
        .supported_features
        .into_iter()
        .map(|feature| (feature.name, (feature.min_version, feature.max_version)))
        .collect();
    for feature in answer.finalized_features {
        let level = feature.max_version_level;
        let range = found.entry(feature.name).or_insert((level, level));
        *range = (range.0.min(level), range.1.max(level));
    }
    let feature = |(name, (min, max))| {
        Feature::default().with_name(name).with_min_supported_version(min).with_max_supported_version(max)
    };
    Ok(found.into_iter().map(feature).collect())
}
