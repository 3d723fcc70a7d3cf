package io.varve.kafka;

import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Map;
import java.util.NavigableMap;
import java.util.TreeMap;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.types.Password;
import org.apache.kafka.server.log.remote.storage.LogSegmentData;
import org.apache.kafka.server.log.remote.storage.RemoteLogSegmentMetadata;
import org.apache.kafka.server.log.remote.storage.RemoteLogSegmentMetadata.CustomMetadata;

/**
 * Arguments as bytes for the native side: big-endian; a string is an int length and UTF-8; a null is
 * the length -1. The order of fields is the contract with rsm-native, which decodes it.
 */
final class SegmentCodec {
    private SegmentCodec() {}

    static byte[] config(Map<String, ?> configs) {
        TreeMap<String, String> sorted = new TreeMap<>();
        for (Map.Entry<String, ?> e : configs.entrySet()) {
            Object value = e.getValue();
            if (value instanceof Password) {
                sorted.put(e.getKey(), ((Password) value).value());
            } else if (value != null) {
                sorted.put(e.getKey(), String.valueOf(value));
            }
        }
        Out out = new Out();
        out.i32(sorted.size());
        sorted.forEach((key, value) -> {
            out.string(key);
            out.string(value);
        });
        return out.bytes();
    }

    static byte[] metadata(RemoteLogSegmentMetadata metadata) {
        Out out = new Out();
        putMetadata(out, metadata);
        return out.bytes();
    }

    static byte[] copyRequest(RemoteLogSegmentMetadata metadata, LogSegmentData data) {
        Out out = new Out();
        putMetadata(out, metadata);
        out.path(data.logSegment());
        out.path(data.offsetIndex());
        out.path(data.timeIndex());
        out.path(data.transactionIndex().orElse(null));
        out.path(data.producerSnapshotIndex());
        // The broker still owns the buffer: its position must not move.
        ByteBuffer epochs = data.leaderEpochIndex().duplicate();
        byte[] checkpoint = new byte[epochs.remaining()];
        epochs.get(checkpoint);
        out.blob(checkpoint);
        return out.bytes();
    }

    private static void putMetadata(Out out, RemoteLogSegmentMetadata metadata) {
        out.uuid(metadata.topicIdPartition().topicId());
        out.string(metadata.topicIdPartition().topic());
        out.i32(metadata.topicIdPartition().partition());
        out.uuid(metadata.remoteLogSegmentId().id());
        out.i64(metadata.startOffset());
        out.i64(metadata.endOffset());
        out.i64(metadata.maxTimestampMs());
        out.i64(metadata.eventTimestampMs());
        out.i32(metadata.brokerId());
        out.i32(metadata.segmentSizeInBytes());
        NavigableMap<Integer, Long> epochs = metadata.segmentLeaderEpochs();
        out.i32(epochs.size());
        epochs.forEach((epoch, startOffset) -> {
            out.i32(epoch);
            out.i64(startOffset);
        });
        out.blob(metadata.customMetadata().map(CustomMetadata::value).orElse(null));
    }

    /** DataOutputStream over memory, which can't fail. */
    private static final class Out {
        private final ByteArrayOutputStream memory = new ByteArrayOutputStream(512);
        private final DataOutputStream data = new DataOutputStream(memory);

        private interface Write {
            void run() throws IOException;
        }

        private static void put(Write write) {
            try {
                write.run();
            } catch (IOException e) {
                throw new IllegalStateException(e);
            }
        }

        void i32(int value) {
            put(() -> data.writeInt(value));
        }

        void i64(long value) {
            put(() -> data.writeLong(value));
        }

        void uuid(Uuid value) {
            i64(value.getMostSignificantBits());
            i64(value.getLeastSignificantBits());
        }

        void string(String value) {
            blob(value == null ? null : value.getBytes(StandardCharsets.UTF_8));
        }

        void path(Path value) {
            string(value == null ? null : value.toAbsolutePath().toString());
        }

        void blob(byte[] value) {
            i32(value == null ? -1 : value.length);
            if (value != null) put(() -> data.write(value));
        }

        byte[] bytes() {
            return memory.toByteArray();
        }
    }
}
