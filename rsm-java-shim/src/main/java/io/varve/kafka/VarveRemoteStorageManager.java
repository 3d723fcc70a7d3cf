package io.varve.kafka;

import java.io.ByteArrayInputStream;
import java.io.InputStream;
import java.util.Map;
import java.util.Optional;
import org.apache.kafka.server.log.remote.storage.LogSegmentData;
import org.apache.kafka.server.log.remote.storage.RemoteLogSegmentMetadata;
import org.apache.kafka.server.log.remote.storage.RemoteLogSegmentMetadata.CustomMetadata;
import org.apache.kafka.server.log.remote.storage.RemoteStorageException;
import org.apache.kafka.server.log.remote.storage.RemoteStorageManager;

/**
 * What Kafka loads ({@code remote.log.storage.manager.class.name}). Arguments go in, waiting and
 * interrupts are minded, exceptions come out; all else is native. Any number of threads may call at once.
 * Its life is configure, use, close, each once: a second close does nothing, any other order is an error.
 */
public final class VarveRemoteStorageManager implements RemoteStorageManager {
    private enum State { NEW, OPEN, CLOSED }

    private final Object transition = new Object();
    private volatile State state = State.NEW;
    private long rsm;
    private NativeMetrics metrics;

    @Override
    public void configure(Map<String, ?> configs) {
        synchronized (transition) {
            if (state != State.NEW) {
                throw new IllegalStateException("the remote storage manager is already "
                        + (state == State.OPEN ? "configured" : "closed"));
            }
            NativeLibrary.load(configs);
            // Before open, so that what the native side says about its configuration is seen.
            LogPump.acquire();
            try {
                rsm = Native.open(SegmentCodec.config(configs));
                metrics = new NativeMetrics(rsm, String.valueOf(configs.get("broker.id")));
                LogPump.watch(metrics);
                state = State.OPEN;
            } catch (NativeException e) {
                LogPump.release();
                throw Failures.ofOpen(e);
            } catch (RuntimeException | Error e) {
                LogPump.release();
                throw e;
            }
        }
    }

    @Override
    public Optional<CustomMetadata> copyLogSegmentData(RemoteLogSegmentMetadata metadata, LogSegmentData data)
            throws RemoteStorageException {
        String what = "copying " + name(metadata);
        try {
            long operation = Native.copy(open(what), SegmentCodec.copyRequest(metadata, data));
            byte[] custom = Operation.await(operation, Operation.OnInterrupt.CANCEL);
            return custom == null ? Optional.empty() : Optional.of(new CustomMetadata(custom));
        } catch (NativeException e) {
            throw Failures.ofWrite(what, e);
        } catch (Operation.Interrupted e) {
            throw new RemoteStorageException(what + " was " + e.getMessage(), e);
        } catch (RuntimeException | LinkageError e) {
            throw Failures.unexpected(what, e);
        }
    }

    @Override
    public InputStream fetchLogSegment(RemoteLogSegmentMetadata metadata, int startPosition)
            throws RemoteStorageException {
        return stream(metadata, startPosition, Long.MAX_VALUE);
    }

    @Override
    public InputStream fetchLogSegment(RemoteLogSegmentMetadata metadata, int startPosition, int endPosition)
            throws RemoteStorageException {
        return stream(metadata, startPosition, endPosition);
    }

    private InputStream stream(RemoteLogSegmentMetadata metadata, long start, long endInclusive)
            throws RemoteStorageException {
        String what = "fetching " + name(metadata);
        try {
            checkRange(start, endInclusive);
            long stream = Native.openStream(open(what), SegmentCodec.metadata(metadata), start, endInclusive);
            return new SegmentInputStream(stream, () -> state == State.OPEN);
        } catch (NativeException e) {
            throw Failures.ofRead(what, e);
        } catch (RuntimeException | LinkageError e) {
            throw Failures.unexpected(what, e);
        }
    }

    @Override
    public InputStream fetchIndex(RemoteLogSegmentMetadata metadata, IndexType indexType)
            throws RemoteStorageException {
        String what = "fetching the " + indexType + " index of " + name(metadata);
        try {
            long operation = Native.fetchIndex(open(what), SegmentCodec.metadata(metadata), nativeType(indexType));
            byte[] index = Operation.await(operation, Operation.OnInterrupt.CANCEL);
            return new ByteArrayInputStream(index == null ? new byte[0] : index);
        } catch (NativeException e) {
            throw Failures.ofRead(what, e);
        } catch (Operation.Interrupted e) {
            throw new RemoteStorageException(what + " was " + e.getMessage(), e);
        } catch (RuntimeException | LinkageError e) {
            throw Failures.unexpected(what, e);
        }
    }

    @Override
    public void deleteLogSegmentData(RemoteLogSegmentMetadata metadata) throws RemoteStorageException {
        String what = "deleting " + name(metadata);
        try {
            long operation = Native.delete(open(what), SegmentCodec.metadata(metadata));
            Operation.await(operation, Operation.OnInterrupt.FINISH);
        } catch (NativeException e) {
            throw Failures.ofWrite(what, e);
        } catch (Operation.Interrupted e) {
            throw new RemoteStorageException(what + " was " + e.getMessage(), e);
        } catch (RuntimeException | LinkageError e) {
            throw Failures.unexpected(what, e);
        }
    }

    @Override
    public void close() {
        synchronized (transition) {
            State before = state;
            state = State.CLOSED;
            if (before != State.OPEN) return;
            LogPump.unwatch(metrics);
            metrics.close();
            try {
                Native.close(rsm);
            } catch (NativeException e) {
                throw new IllegalStateException("closing the remote storage manager: " + e.getMessage(), e);
            } finally {
                LogPump.release();
            }
        }
    }

    private long open(String what) throws RemoteStorageException {
        State now = state;
        if (now != State.OPEN) {
            throw new RemoteStorageException(
                    what + ": the remote storage manager is " + (now == State.NEW ? "not configured" : "closed"));
        }
        return rsm;
    }

    static void checkRange(long start, long endInclusive) {
        if (start < 0) throw new IllegalArgumentException("start position " + start + " is negative");
        if (endInclusive < start) {
            throw new IllegalArgumentException("end position " + endInclusive + " is before start position " + start);
        }
    }

    /** By name: the order of Kafka's constants is not promised. */
    static int nativeType(IndexType type) {
        switch (type.name()) {
            case "OFFSET": return Native.INDEX_OFFSET;
            case "TIMESTAMP": return Native.INDEX_TIMESTAMP;
            case "TRANSACTION": return Native.INDEX_TRANSACTION;
            case "PRODUCER_SNAPSHOT": return Native.INDEX_PRODUCER_SNAPSHOT;
            case "LEADER_EPOCH": return Native.INDEX_LEADER_EPOCH;
            default: throw new IllegalArgumentException("unknown index type " + type);
        }
    }

    private static String name(RemoteLogSegmentMetadata metadata) {
        return metadata == null ? "null" : metadata.topicIdPartition() + " segment "
                + metadata.remoteLogSegmentId().id() + " at offset " + metadata.startOffset();
    }
}
