package io.varve.driver;

import java.nio.ByteBuffer;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentSkipListMap;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.Headers;

/**
 * What the brokers acknowledged: for each partition, every record's offset and a hash of all that a consumer can see
 * of it. Whatever happens to the brokers and to the store, a consumer must get exactly this.
 */
final class Ledger {
    enum Outcome { COMMITTED, ABORTED, OPEN }

    record Entry(long timestamp, byte[] hash, Outcome outcome) {
        boolean visible(boolean committedOnly) {
            return !committedOnly || outcome == Outcome.COMMITTED;
        }
    }

    private final Map<TopicPartition, ConcurrentSkipListMap<Long, Entry>> partitions = new ConcurrentHashMap<>();

    ConcurrentSkipListMap<Long, Entry> of(TopicPartition partition) {
        return partitions.computeIfAbsent(partition, any -> new ConcurrentSkipListMap<>());
    }

    /** A topic made anew begins an empty ledger, also under an old name. */
    void forget(String topic) {
        partitions.keySet().removeIf(partition -> partition.topic().equals(topic));
    }

    /** Sixteen bytes over timestamp, key, value and headers, each with its length, so that nothing can shift unseen. */
    static byte[] hash(long timestamp, byte[] key, byte[] value, Headers headers) {
        MessageDigest digest = sha256();
        digest.update(longBytes(timestamp));
        update(digest, key);
        update(digest, value);
        for (Header header : headers) {
            update(digest, header.key().getBytes(java.nio.charset.StandardCharsets.UTF_8));
            update(digest, header.value());
        }
        return Arrays.copyOf(digest.digest(), 16);
    }

    private static void update(MessageDigest digest, byte[] bytes) {
        digest.update(longBytes(bytes == null ? -1 : bytes.length));
        if (bytes != null) {
            digest.update(bytes);
        }
    }

    /** A digest over a sequence of records, equal for equal sequences of (offset, hash), and one over the hashes alone. */
    static final class Sequence {
        private final MessageDigest digest = sha256();
        private final MessageDigest content = sha256();
        long count;
        long first = -1;
        long last = -1;

        void add(long offset, byte[] hash) {
            digest.update(longBytes(offset));
            digest.update(hash);
            content.update(hash);
            count++;
            first = first < 0 ? offset : first;
            last = offset;
        }

        String hex() {
            return HexFormat.of().formatHex(digest.digest());
        }

        String contentHex() {
            return HexFormat.of().formatHex(content.digest());
        }
    }

    static MessageDigest sha256() {
        try {
            return MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException(e);
        }
    }

    private static byte[] longBytes(long value) {
        return ByteBuffer.allocate(Long.BYTES).putLong(value).array();
    }
}
