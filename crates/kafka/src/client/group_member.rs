//! Membership of a group by the classic protocol, to share work with others of the same kind.
//!
//! What is shared is the caller's: members say in `metadata` what they can do, and the group's leader gives each
//! its share by a pure function of all of them. The broker only carries bytes.
//!
//! A task joins, sends heartbeats and joins again whenever the group changes; the caller hears of it by events:
//! `Assigned`, then `Revoked` or `Lost`, then `Assigned` again. After `Revoked` the share is still ours: nobody
//! else gets it until [`Released`] is dropped, or the rebalance timeout is over. After `Lost` others may have it
//! already. So a share is exclusive only as far as clocks and pauses allow: what is written under it must stand
//! two writers. Dropping the member leaves it to the session timeout to tell the others; [`GroupMember::leave`]
//! tells them at once. A crash is the same as dropping it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, SyncGroupRequest,
};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::admin::AdminError;
use super::cluster::Client;
use super::connection::Connection;
use super::error::{ClientError, Result};
use super::retry::Backoff;

/// Beyond the rebalance timeout, which the broker may use up before it answers.
const JOIN_SLACK: Duration = Duration::from_secs(5);

/// Which group, and on what terms.
#[derive(Clone, Debug)]
pub struct Membership {
    pub group_id: String,
    /// Keeps the share over a restart that is quicker than the session timeout.
    pub group_instance_id: Option<String>,
    /// Not `consumer`, unless metadata and assignments are those of Kafka's consumers.
    pub protocol_type: String,
    /// All members must have it in common.
    pub protocol_name: String,
    pub metadata: Bytes,
    pub session_timeout: Duration,
    pub rebalance_timeout: Duration,
    pub heartbeat_interval: Duration,
}

impl Membership {
    /// With the timeouts that Java's consumers have by default.
    pub fn new(group_id: &str, protocol_type: &str, protocol_name: &str, metadata: Bytes) -> Self {
        Self {
            group_id: group_id.to_owned(),
            group_instance_id: None,
            protocol_type: protocol_type.to_owned(),
            protocol_name: protocol_name.to_owned(),
            metadata,
            session_timeout: Duration::from_secs(45),
            rebalance_timeout: Duration::from_secs(60),
            heartbeat_interval: Duration::from_secs(3),
        }
    }
}

/// One of a group, as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub metadata: Bytes,
}

/// Shares by member id; who is left out gets an empty one. Members come in the order of their ids.
pub type Assignor = Arc<dyn Fn(&[JoinedMember]) -> BTreeMap<String, Bytes> + Send + Sync>;

#[derive(Debug)]
pub enum GroupEvent {
    Assigned {
        generation_id: i32,
        member_id: String,
        assignment: Bytes,
    },
    /// The group changes: finish what is under way, then drop this.
    Revoked(Released),
    /// The group went on without us; the member joins again by itself.
    Lost {
        reason: String,
    },
    /// The member has ended and will not join again.
    Failed(ClientError),
}

/// Lets the member join again, by being dropped.
#[derive(Debug)]
pub struct Released {
    /// Its drop is the message.
    _back: oneshot::Sender<()>,
}

/// See the module.
#[derive(Debug)]
pub struct GroupMember {
    events: mpsc::Receiver<GroupEvent>,
    leave: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Drop for GroupMember {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl GroupMember {
    /// Begins to join.
    pub fn join(client: &Client, membership: Membership, assignor: Assignor) -> Self {
        let (sender, events) = mpsc::channel(4);
        let (leave, left) = oneshot::channel();
        let member = Member {
            client: client.clone(),
            membership,
            assignor,
            events: sender,
            connection: None,
            member_id: String::new(),
            generation_id: -1,
            holds: false,
        };
        let task = tokio::spawn(member.run(left));
        Self { events, leave: Some(leave), task }
    }

    /// `None` after [`GroupEvent::Failed`]. May be dropped at any time: no event is lost by that.
    pub async fn next(&mut self) -> Option<GroupEvent> {
        self.events.recv().await
    }

    /// Gives the share to the others at once. It must not be worked on any more.
    pub async fn leave(mut self) {
        // No event is waited for: a member that waits for room in the channel, or for a release, ends too.
        self.events.close();
        while self.events.try_recv().is_ok() {}
        if let Some(leave) = self.leave.take() {
            // A member that has ended by itself has nothing to leave.
            let _ = leave.send(());
        }
        if let Err(error) = (&mut self.task).await {
            tracing::debug!(%error, "the member of a group did not end well");
        }
    }
}

struct Member {
    client: Client,
    membership: Membership,
    assignor: Assignor,
    events: mpsc::Sender<GroupEvent>,
    connection: Option<Connection>,
    member_id: String,
    generation_id: i32,
    /// Whether the caller believes to have a share.
    holds: bool,
}

/// Why a generation ended.
enum Over {
    /// A new one is being made.
    Rebalance,
    /// Others may have the share: `forgotten` if our member id is no longer known either.
    Lost { reason: String, forgotten: bool },
    /// It won't get better.
    Failed(ClientError),
}

impl Member {
    async fn run(mut self, mut left: oneshot::Receiver<()>) {
        let ended = tokio::select! {
            // Dropped without a word: the task is being aborted.
            _ = &mut left => None,
            error = self.live() => Some(error),
        };
        match ended {
            None => self.say_goodbye().await,
            // Nobody listens any more: nobody to tell.
            Some(error) => drop(self.events.send(GroupEvent::Failed(error)).await),
        }
    }

    async fn live(&mut self) -> ClientError {
        let mut backoff = self.endless_backoff();
        loop {
            let over = match self.join_generation().await {
                Err(over) => over,
                Ok(assignment) => {
                    backoff = self.endless_backoff();
                    self.holds = true;
                    let (generation_id, member_id) = (self.generation_id, self.member_id.clone());
                    self.tell(GroupEvent::Assigned { generation_id, member_id, assignment }).await;
                    self.heartbeats().await
                }
            };
            match over {
                Over::Rebalance => {}
                Over::Failed(error) => return error,
                Over::Lost { reason, forgotten } => {
                    if forgotten {
                        self.member_id.clear();
                    }
                    if std::mem::take(&mut self.holds) {
                        self.tell(GroupEvent::Lost { reason: reason.clone() }).await;
                    }
                    let pause = ClientError::NoLeader { what: format!("{}: {reason}", self.what()) };
                    if let Err(error) = backoff.wait_or_fail(&self.what(), pause).await {
                        return error;
                    }
                }
            }
        }
    }

    /// Members wait for their cluster however long it takes.
    fn endless_backoff(&self) -> Backoff {
        let config = self.client.config();
        Backoff::new(config.retry_backoff, config.retry_backoff_max, Duration::MAX)
    }

    fn what(&self) -> String {
        format!("group {}", self.membership.group_id)
    }

    async fn tell(&self, event: GroupEvent) {
        // Nobody listens any more: the member is about to be told to leave.
        let _ = self.events.send(event).await;
    }

    /// JoinGroup and SyncGroup: returns our share.
    async fn join_generation(&mut self) -> Result<Bytes, Over> {
        let connection = self.coordinator().await?;
        let joined = loop {
            let answer = connection.call(self.join_request()).await.map_err(|e| self.transport(e))?;
            match ResponseError::try_from_code(answer.error_code) {
                None => break answer,
                // The broker has named us; it wants to hear that the name arrived.
                Some(ResponseError::MemberIdRequired) => self.member_id = answer.member_id.to_string(),
                Some(code) => return Err(self.code(code)),
            }
        };
        self.member_id = joined.member_id.to_string();
        self.generation_id = joined.generation_id;
        let request = self.sync_request(joined);
        let answer = connection.call(request).await.map_err(|e| self.transport(e))?;
        match ResponseError::try_from_code(answer.error_code) {
            None => Ok(answer.assignment),
            Some(code) => Err(self.code(code)),
        }
    }

    fn join_request(&self) -> JoinGroupRequest {
        let terms = &self.membership;
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(StrBytes::from_string(terms.protocol_name.clone()))
            .with_metadata(terms.metadata.clone());
        JoinGroupRequest::default()
            .with_group_id(self.group_id())
            .with_session_timeout_ms(millis(terms.session_timeout))
            .with_rebalance_timeout_ms(millis(terms.rebalance_timeout))
            .with_member_id(StrBytes::from_string(self.member_id.clone()))
            .with_group_instance_id(self.instance_id())
            .with_protocol_type(StrBytes::from_string(terms.protocol_type.clone()))
            .with_protocols(vec![protocol])
    }

    /// The leader's carries everyone's share.
    fn sync_request(&self, joined: JoinGroupResponse) -> SyncGroupRequest {
        let mut assignments = Vec::new();
        if joined.leader == joined.member_id && !joined.skip_assignment {
            let members = joined.members.into_iter().map(|m| JoinedMember {
                member_id: m.member_id.to_string(),
                group_instance_id: m.group_instance_id.map(|i| i.to_string()),
                metadata: m.metadata,
            });
            let mut members: Vec<JoinedMember> = members.collect();
            members.sort_by(|a, b| a.member_id.cmp(&b.member_id));
            let mut shares = (self.assignor)(&members);
            for member in members {
                let share = shares.remove(&member.member_id).unwrap_or_default();
                assignments.push(
                    SyncGroupRequestAssignment::default()
                        .with_member_id(StrBytes::from_string(member.member_id))
                        .with_assignment(share),
                );
            }
        }
        SyncGroupRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(self.generation_id)
            .with_member_id(StrBytes::from_string(self.member_id.clone()))
            .with_group_instance_id(self.instance_id())
            .with_protocol_type(Some(StrBytes::from_string(self.membership.protocol_type.clone())))
            .with_protocol_name(Some(StrBytes::from_string(self.membership.protocol_name.clone())))
            .with_assignments(assignments)
    }

    /// Until the generation is over. When the group changes, it goes on while the caller finishes.
    async fn heartbeats(&mut self) -> Over {
        let mut heard = Instant::now();
        let mut releasing: Option<(oneshot::Receiver<()>, Instant)> = None;
        loop {
            let pause = tokio::time::sleep(self.membership.heartbeat_interval);
            match &mut releasing {
                None => pause.await,
                Some((released, deadline)) => {
                    tokio::select! {
                        _ = released => return self.released(),
                        () = tokio::time::sleep_until((*deadline).into()) => return self.released(),
                        () = pause => {}
                    }
                }
            }
            let beat = tokio::time::timeout(self.membership.session_timeout, self.heartbeat()).await;
            match beat {
                Ok(Ok(None)) => heard = Instant::now(),
                Ok(Ok(Some(ResponseError::RebalanceInProgress))) => {
                    heard = Instant::now();
                    if releasing.is_none() {
                        let (sender, receiver) = oneshot::channel();
                        let deadline = heard + self.membership.rebalance_timeout.mul_f32(0.9);
                        releasing = Some((receiver, deadline));
                        self.tell(GroupEvent::Revoked(Released { _back: sender })).await;
                    }
                }
                Ok(Ok(Some(code))) => match self.code(code) {
                    // It may be the same coordinator again in a moment, or another that knows us too.
                    Over::Lost { forgotten: false, .. } if code.is_retriable() => {}
                    over => return over,
                },
                Ok(Err(Over::Lost { forgotten: false, .. })) => {}
                Ok(Err(over)) => return over,
                // Whatever hangs on it hangs before the next heartbeat too.
                Err(_) => self.connection = None,
            }
            if heard.elapsed() >= self.membership.session_timeout {
                let reason = "no heartbeat was answered within the session timeout".to_owned();
                return Over::Lost { reason, forgotten: true };
            }
        }
    }

    fn released(&mut self) -> Over {
        self.holds = false;
        Over::Rebalance
    }

    async fn heartbeat(&mut self) -> Result<Option<ResponseError>, Over> {
        let connection = self.coordinator().await?;
        let request = HeartbeatRequest::default()
            .with_group_id(self.group_id())
            .with_generation_id(self.generation_id)
            .with_member_id(StrBytes::from_string(self.member_id.clone()))
            .with_group_instance_id(self.instance_id());
        let answer = connection.call(request).await.map_err(|e| self.transport(e))?;
        Ok(ResponseError::try_from_code(answer.error_code))
    }

    async fn say_goodbye(&mut self) {
        if self.member_id.is_empty() {
            return;
        }
        let member = MemberIdentity::default()
            .with_member_id(StrBytes::from_string(self.member_id.clone()))
            .with_group_instance_id(self.instance_id());
        let request = LeaveGroupRequest::default().with_group_id(self.group_id()).with_members(vec![member]);
        let leaving = async {
            // A join may be held back on the old connection, and everything behind it.
            self.connection = None;
            self.coordinator().await.ok()?.call(request).await.ok()
        };
        if !matches!(tokio::time::timeout(JOIN_SLACK, leaving).await, Ok(Some(_))) {
            tracing::debug!(group = %self.membership.group_id, "the group was not told that we leave");
        }
    }

    /// A connection of our own: the broker holds a join back until the group is complete.
    async fn coordinator(&mut self) -> Result<Connection, Over> {
        if let Some(connection) = self.connection.as_ref().filter(|c| c.is_usable()) {
            return Ok(connection.clone());
        }
        let found = self.client.group_coordinator(&self.membership.group_id).await;
        let node = found.map_err(|e| self.refused(e))?;
        let mut config = self.client.config().clone();
        config.request_timeout = config.request_timeout.max(self.membership.rebalance_timeout + JOIN_SLACK);
        let opened = self.client.own_connection_with(node, &config).await;
        let connection = opened.map_err(|e| self.transport(e))?;
        self.connection = Some(connection.clone());
        Ok(connection)
    }

    fn refused(&self, error: AdminError) -> Over {
        match error {
            AdminError::Client(e) if e.is_retriable() || matches!(e, ClientError::GaveUp { .. }) => {
                Over::Lost { reason: e.to_string(), forgotten: false }
            }
            AdminError::Client(e) => Over::Failed(e),
            AdminError::NotAuthorized { .. } => {
                Over::Failed(ClientError::kafka(self.what(), ResponseError::GroupAuthorizationFailed))
            }
            AdminError::Unsupported { .. } => {
                Over::Failed(ClientError::kafka(self.what(), ResponseError::UnsupportedVersion))
            }
        }
    }

    fn transport(&self, error: ClientError) -> Over {
        if error.is_retriable() {
            Over::Lost { reason: error.to_string(), forgotten: false }
        } else {
            Over::Failed(error)
        }
    }

    fn code(&mut self, code: ResponseError) -> Over {
        let reason = code.to_string();
        match code {
            ResponseError::RebalanceInProgress => Over::Rebalance,
            ResponseError::UnknownMemberId => Over::Lost { reason, forgotten: true },
            ResponseError::IllegalGeneration => Over::Lost { reason, forgotten: false },
            ResponseError::NotCoordinator | ResponseError::CoordinatorNotAvailable => {
                self.connection = None;
                Over::Lost { reason, forgotten: false }
            }
            code if code.is_retriable() => Over::Lost { reason, forgotten: false },
            // Such as another member with our instance id, or a group of another protocol.
            code => Over::Failed(ClientError::kafka(self.what(), code)),
        }
    }

    fn group_id(&self) -> GroupId {
        GroupId(StrBytes::from_string(self.membership.group_id.clone()))
    }

    fn instance_id(&self) -> Option<StrBytes> {
        self.membership.group_instance_id.clone().map(StrBytes::from_string)
    }
}

fn millis(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
