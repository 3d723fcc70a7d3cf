//! The entries that `io.varve.kafka.Native` declares. Each catches everything: an error or a panic leaves as a
//! `NativeException` with its kind and text, nothing else crosses.
//!
//! Memory of Java's is touched in two ways only: byte arrays are copied whole, and a read copies from the
//! cache into the caller's array.

use std::sync::Arc;
use std::time::Duration;

use jni::errors::{ErrorPolicy, Result as JniResult};
use jni::objects::{JByteArray, JClass, JString, JThrowable};
use jni::sys::{jboolean, jint, jlong};
use jni::{Env, EnvUnowned, jni_sig, jni_str};
use varve_format::ExtentKind;

use crate::error::{Error, Kind, Result};
use crate::logging;
use crate::operation::{Operation, Table};
use crate::read::stream::{LogStream, Progress};
use crate::rsm::{Rsm, panic_text};
use crate::wire::{CopyRequest, SegmentMetadata, decode_config};

static RSMS: Table<Rsm> = Table::new("RemoteStorageManager");
static OPERATIONS: Table<Operation> = Table::new("operation");
static STREAMS: Table<LogStream> = Table::new("stream");

/// What an entry fails with: ours, or one of JNI itself.
enum Failure {
    Ours(Error),
    Jni(jni::errors::Error),
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::Ours(e)
    }
}

impl From<jni::errors::Error> for Failure {
    fn from(e: jni::errors::Error) -> Self {
        Self::Jni(e)
    }
}

/// Throws `NativeException(kind, message)`.
struct Throw;

impl<T: Default> ErrorPolicy<T, Failure> for Throw {
    type Captures<'unowned_env_local: 'native_method, 'native_method> = ();

    fn on_error<'unowned_env_local: 'native_method, 'native_method>(
        env: &mut Env<'unowned_env_local>,
        _: &mut Self::Captures<'unowned_env_local, 'native_method>,
        failure: Failure,
    ) -> JniResult<T> {
        let error = match failure {
            Failure::Ours(e) => e,
            // A Java exception is pending: it is the better one.
            Failure::Jni(jni::errors::Error::JavaException) => return Ok(T::default()),
            Failure::Jni(e) => Error::internal("JNI", e),
        };
        throw(env, &error)?;
        Ok(T::default())
    }

    fn on_panic<'unowned_env_local: 'native_method, 'native_method>(
        env: &mut Env<'unowned_env_local>,
        _: &mut Self::Captures<'unowned_env_local, 'native_method>,
        payload: Box<dyn std::any::Any + Send + 'static>,
    ) -> JniResult<T> {
        throw(env, &Error::internal("panic", panic_text(&*payload)))?;
        Ok(T::default())
    }
}

fn throw(env: &mut Env<'_>, error: &Error) -> JniResult<()> {
    let message = env.new_string(&error.message)?;
    let class = env.find_class(jni_str!("io/varve/kafka/NativeException"))?;
    let exception = env.new_object(
        class,
        jni_sig!("(ILjava/lang/String;)V"),
        &[(error.kind as jint).into(), (&message).into()],
    )?;
    let exception = env.cast_local::<JThrowable>(exception)?;
    env.throw(&exception)
}

fn entry<'local, T: Default>(
    env: &mut EnvUnowned<'local>,
    f: impl FnOnce(&mut Env<'local>) -> Result<T, Failure>,
) -> T {
    env.with_env(f).resolve::<Throw>()
}

fn millis(ms: jlong) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

fn bytes(env: &mut Env<'_>, array: &JByteArray<'_>) -> Result<Vec<u8>, Failure> {
    Ok(env.convert_byte_array(array)?)
}

fn metadata(env: &mut Env<'_>, array: &JByteArray<'_>) -> Result<SegmentMetadata, Failure> {
    Ok(SegmentMetadata::decode(&bytes(env, array)?)?)
}

#[unsafe(no_mangle)]
pub extern "system" fn Java_io_varve_kafka_Native_open<'l>(
    mut env: EnvUnowned<'l>,
    _: JClass<'l>,
    config: JByteArray<'l>,
) -> jlong {
    entry(&mut env, |env| {
        let given = decode_config(&bytes(env, &config)?)?;
        Ok(RSMS.insert(Arc::new(Rsm::open(&given)?)))
    })
}

#[unsafe(no_mangle)]
pub extern "system" fn Java_io_varve_kafka_Native_close<'l>(
    mut env: EnvUnowned<'l>,
    _: JClass<'l>,
    rsm: jlong,
) {
    entry(&mut env, |_| {
        if let Some(rsm) = RSMS.remove(rsm) {
            rsm.close();
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "system" fn Java_io_varve_kafka_Native_copy<'l>(
    mut env: EnvUnowned<'l>,
    _: JClass<'l>,
    rsm: jlong,
    request: JByteArray<'l>,
) -> jlong {
    entry(&mut env, |env| {
        let request = CopyRequest::decode(&bytes(env, &request)?)?;
        Ok(OPERATIONS.insert(RSMS.get(rsm)?.copy(request)?))
    })
}

#[unsafe(no_mangle)]
pub extern "system" fn Java_io_varve_kafka_Native_fetchIndex<'l>(
    mut env: EnvUnowned<'l>,
    _: JClass<'l>,
    rsm: jlong,
    segment: JByteArray<'l>,
    kind: jint,
) -> jlong {
    entry(&mut env, |env| {
        let segment = metadata(env, &segment)?;
        Ok(OPERATIONS.insert(RSMS.get(rsm)?.fetch_index(&segment, index_kind(kind)?)?))
    })
}

/// The shim's numbers of Kafka's index types.
fn index_kind(kind: jint) -> Result<ExtentKind> {
    match kind {
        0 => Ok(ExtentKind::OffsetIndex),
        1 => Ok(ExtentKind::TimeIndex),
        2 => Ok(ExtentKind::TransactionIndex),
        3 => Ok(ExtentKind::ProducerSnapshot),
        4 => Ok(ExtentKind::LeaderEpochs),
        other => Err(Error::new(Kind::Invalid, format!("unknown index type {other}"))),
    }
}

#[unsafe(no_mangle)]
pub extern "system" fn Java_io_varve_kafka_Native_delete<'l>(
    mut env: EnvUnowned<'l>,
    _: JClass<'l>,
    rsm: jlong,
    segment: JByteArray<'l>,
) -> jlong {
    entry(&mut env, |env| {
        let segment = metadata(env, &segment)?;
        Ok(OPERATIONS.insert(RSMS.get(rsm)?.delete(&segment)?))
    })
}

#[unsafe(no_mangle)]
pub extern "system" fn Java_io_varve_kafka_Native_await<'l>(
    mut env: EnvUnowned<'l>,
    _: JClass<'l>,
    operation: jlong,
    timeout_ms: jlong,
) -> jboolean {
    entry(&mut env, |_| Ok(OPERATIONS.get(operation)?.wait(millis(timeout_ms))))
}

#[unsafe(no_mangle)]
pub extern "system" fn Java_io_varve_kafka_Native_result<'l>(
    mut env: EnvUnowned<'l>,
    _: JClass<'l>,
    operation: jlong,
) -> JByteArray<'l> {
    entry(&mut env, |env| {
        let done = OPERATIONS
            .remove(operation)
            .ok_or_else(|| Error::new(Kind::Closed, "the operation is closed"))?;
        match done.take()? {
            Some(bytes) => Ok(env.byte_array_from_slice(&bytes)?),
            None => Ok(JByteArray::default()),
        }
    })
}

#[unsafe(no_mangle)]
pub extern "system" fn Java_io_varve_kafka_Native_cancel<'l>(
    mut env: EnvUnowned<'l>,
    _: JClass<'l>,
    operation: jlong,
) {
    entry(&mut env, |_| {
        OPERATIONS.get(operation)?.cancel.set();
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "system" fn Java_io_varve_kafka_Native_openStream<'l>(
    mut env: EnvUnowned<'l>,
    _: JClass<'l>,
    rsm: jlong,
    segment: JByteArray<'l>,
    start: jlong,
    end_inclusive: jlong,
) -> jlong {
    entry(&mut env, |env| {
        let segment = metadata(env, &segment)?;
        let range = u64::try_from(start).ok().zip(u64::try_from(end_inclusive).ok()).filter(|(s, e)| s <= e);
        let (start, end) = range.ok_or_else(|| {
            Error::new(Kind::Invalid, format!("log bytes {start} to {end_inclusive}: not a range"))
        })?;
        Ok(STREAMS.insert(Arc::new(RSMS.get(rsm)?.open_stream(&segment, start, end)?)))
    })
}

#[unsafe(no_mangle)]
pub extern "system" fn Java_io_varve_kafka_Native_read<'l>(
    mut env: EnvUnowned<'l>,
    _: JClass<'l>,
    stream: jlong,
    target: JByteArray<'l>,
    offset: jint,
    length: jint,
    timeout_ms: jlong,
) -> jint {
    entry(&mut env, |env| {
        let stream = STREAMS.get(stream)?;
        let max =
            usize::try_from(length).map_err(|_| Error::new(Kind::Invalid, format!("length {length}")))?;
        let mut failed = None;
        let progress = stream.read(max, millis(timeout_ms), |at, bytes| {
            // JNI checks the array's bounds.
            let copied = target.set_region(env, offset.saturating_add(at as jint), as_signed(bytes));
            copied.map_err(|e| {
                failed = Some(e);
                Error::new(Kind::Invalid, "the target array is too short")
            })
        });
        if let Some(e) = failed {
            return Err(e.into());
        }
        Ok(match progress? {
            Progress::Bytes(n) => n as jint,
            Progress::End => -1,
            Progress::Waiting => 0,
        })
    })
}

/// Java's bytes are signed.
fn as_signed(bytes: &[u8]) -> &[i8] {
    // SAFETY: u8 and i8 have the same size and alignment, and all bit patterns are valid for both.
    unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast::<i8>(), bytes.len()) }
}

#[unsafe(no_mangle)]
pub extern "system" fn Java_io_varve_kafka_Native_skip<'l>(
    mut env: EnvUnowned<'l>,
    _: JClass<'l>,
    stream: jlong,
    n: jlong,
) -> jlong {
    entry(&mut env, |_| Ok(STREAMS.get(stream)?.skip(u64::try_from(n).unwrap_or(0)) as jlong))
}

#[unsafe(no_mangle)]
pub extern "system" fn Java_io_varve_kafka_Native_available<'l>(
    mut env: EnvUnowned<'l>,
    _: JClass<'l>,
    stream: jlong,
) -> jint {
    entry(&mut env, |_| Ok(STREAMS.get(stream)?.available() as jint))
}

#[unsafe(no_mangle)]
pub extern "system" fn Java_io_varve_kafka_Native_closeStream<'l>(
    mut env: EnvUnowned<'l>,
    _: JClass<'l>,
    stream: jlong,
) {
    entry(&mut env, |_| {
        if let Some(stream) = STREAMS.remove(stream) {
            stream.close();
        }
        Ok(())
    })
}

#[unsafe(no_mangle)]
pub extern "system" fn Java_io_varve_kafka_Native_nextLog<'l>(
    mut env: EnvUnowned<'l>,
    _: JClass<'l>,
    timeout_ms: jlong,
) -> JByteArray<'l> {
    entry(&mut env, |env| match logging::next(millis(timeout_ms)) {
        None => Ok(JByteArray::default()),
        Some(line) => {
            let mut blob = line.level.to_be_bytes().to_vec();
            put_string(&mut blob, &line.logger);
            put_string(&mut blob, &line.message);
            Ok(env.byte_array_from_slice(&blob)?)
        }
    })
}

#[unsafe(no_mangle)]
pub extern "system" fn Java_io_varve_kafka_Native_metrics<'l>(
    mut env: EnvUnowned<'l>,
    _: JClass<'l>,
    rsm: jlong,
) -> JByteArray<'l> {
    entry(&mut env, |env| {
        let beans = RSMS.get(rsm)?.beans();
        let mut blob = (beans.len() as jint).to_be_bytes().to_vec();
        for (bean, attributes) in beans {
            put_string(&mut blob, &bean);
            blob.extend_from_slice(&(attributes.len() as jint).to_be_bytes());
            for (name, value) in attributes {
                put_string(&mut blob, name);
                blob.extend_from_slice(&value.to_be_bytes());
            }
        }
        Ok(env.byte_array_from_slice(&blob)?)
    })
}

#[unsafe(no_mangle)]
pub extern "system" fn Java_io_varve_kafka_Native_version<'l>(
    mut env: EnvUnowned<'l>,
    _: JClass<'l>,
) -> JString<'l> {
    entry(&mut env, |env| Ok(env.new_string(env!("CARGO_PKG_VERSION"))?))
}

fn put_string(blob: &mut Vec<u8>, text: &str) {
    blob.extend_from_slice(&(text.len() as jint).to_be_bytes());
    blob.extend_from_slice(text.as_bytes());
}
