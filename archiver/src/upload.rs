//! An object on its way into the store in parts, while it is being made.
//!
//! A task of its own sends parts in parallel, in any order. Dropping it without completing aborts the upload;
//! a crash leaves an unfinished one, which a sweep finds.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use varve_store::{
    Create, Error as StoreError, Key, Kind, ObjectMeta, PutOptions, Result, SharedStore, Upload,
};

use crate::memory::Room;

/// Parts that wait besides those that are being sent.
const WAITING: usize = 1;

pub(crate) struct Uploading {
    messages: mpsc::Sender<Message>,
    task: JoinHandle<Result<ObjectMeta>>,
}

enum Message {
    Part(u32, Bytes, Room),
    Complete,
}

impl Uploading {
    pub(crate) fn begin(
        store: SharedStore,
        key: Key,
        part_bytes: usize,
        parallel: usize,
        storage_class: Option<String>,
    ) -> Self {
        let (messages, receiver) = mpsc::channel(WAITING);
        let options = PutOptions { create: Create::IfAbsent, storage_class };
        let task = tokio::spawn(async move {
            let upload = store.upload(&key, part_bytes as u64, None, &options).await?;
            match send(&upload, receiver, parallel).await {
                Ok(()) => upload.complete().await,
                Err(error) => {
                    // What can't be aborted now is left to a sweep; the first error tells more.
                    if let Err(error) = upload.abort().await {
                        tracing::debug!(%key, %error, "an upload was not aborted");
                    }
                    Err(error)
                }
            }
        });
        Self { messages, task }
    }

    /// Waits while enough parts are on their way. Errors come with [`Uploading::complete`].
    pub(crate) async fn part(&self, number: u32, body: Bytes, room: Room) {
        // A task that has ended knows why.
        let _ = self.messages.send(Message::Part(number, body, room.leave())).await;
    }

    pub(crate) async fn complete(self) -> Result<ObjectMeta> {
        let _ = self.messages.send(Message::Complete).await;
        match self.task.await {
            Ok(outcome) => outcome,
            Err(error) => Err(StoreError::new(Kind::Other, "upload", "", error.to_string())),
        }
    }
}

async fn send(
    upload: &Arc<dyn Upload>,
    mut messages: mpsc::Receiver<Message>,
    parallel: usize,
) -> Result<()> {
    let mut sending = JoinSet::new();
    let landed = |joined: Option<Result<Result<()>, tokio::task::JoinError>>| match joined {
        None => Ok(()),
        Some(Ok(outcome)) => outcome,
        Some(Err(error)) => Err(StoreError::new(Kind::Other, "upload", "", error.to_string())),
    };
    loop {
        match messages.recv().await {
            Some(Message::Part(number, body, room)) => {
                while sending.len() >= parallel.max(1) {
                    landed(sending.join_next().await)?;
                }
                let upload = Arc::clone(upload);
                sending.spawn(async move {
                    let outcome = upload.put_part(number, body).await;
                    drop(room);
                    outcome
                });
            }
            Some(Message::Complete) => break,
            None => return Err(StoreError::new(Kind::Other, "upload", "", "given up before its end")),
        }
    }
    while !sending.is_empty() {
        landed(sending.join_next().await)?;
    }
    Ok(())
}
