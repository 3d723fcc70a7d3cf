package io.varve.driver;

import static io.varve.driver.Clients.bootstrap;
import static io.varve.driver.Clients.partition;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.time.Duration;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.NavigableMap;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** Reads a partition back and compares it, record by record, with the ledger. */
final class ConsumeCommands {
    private final Ledger ledger;

    ConsumeCommands(Ledger ledger) {
        this.ledger = ledger;
    }

    void register(Map<String, Driver.Command> commands) {
        commands.put("consume", this::consume);
        commands.put("ledger", this::describeLedger);
    }

    /**
     * Reads from {@code from} (an offset; -1 is the earliest) until {@code to} (exclusive; -1 is the end seen at the
     * start), or until {@code timeout_ms} have passed. A failed fetch is part of the answer, not a failed command.
     */
    private void consume(JsonNode in, ObjectNode out) {
        TopicPartition partition = partition(in);
        boolean committedOnly = in.path("committed_only").asBoolean(false);
        long started = System.nanoTime();
        long deadline = started + in.path("timeout_ms").asLong(60_000) * 1_000_000;
        long maxRecords = in.path("max_records").asLong(Long.MAX_VALUE);
        Reading reading = new Reading(ledger.of(partition), committedOnly);
        long position = -1;
        long end = -1;
        String error = null;
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(in, committedOnly)) {
            consumer.assign(List.of(partition));
            long from = in.path("from").asLong(-1);
            position = from >= 0 ? from : consumer.beginningOffsets(List.of(partition)).get(partition);
            end = in.path("to").asLong(-1);
            end = end >= 0 ? end : consumer.endOffsets(List.of(partition)).get(partition);
            reading.from = position;
            consumer.seek(partition, position);
            while (position < end && reading.sequence.count < maxRecords && System.nanoTime() < deadline) {
                try {
                    for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                        if (record.offset() < end && reading.sequence.count < maxRecords) {
                            reading.add(record);
                        }
                    }
                    position = Math.max(position, consumer.position(partition));
                } catch (Exception e) {
                    error = Driver.causes(e);
                    if (in.path("stop_on_error").asBoolean(false)) {
                        break;
                    }
                    Thread.sleep(100);
                }
            }
        } catch (Exception e) {
            error = Driver.causes(e);
        }
        boolean complete = position >= end && end >= 0;
        long upTo = complete ? end : reading.sequence.last + 1;
        String mismatch = reading.mismatch(upTo);
        Ledger.Sequence sequence = reading.sequence;
        out.put("count", sequence.count).put("bytes", reading.bytes).put("first", sequence.first).put("last", sequence.last);
        out.put("position", position).put("end", end).put("complete", complete);
        out.put("digest", sequence.hex()).put("content", sequence.contentHex()).put("mismatch", mismatch).put("error", error);
        out.put("elapsed_ms", (System.nanoTime() - started) / 1_000_000);
    }

    /** The records read so far, and the first one that the ledger contradicts. */
    private static final class Reading {
        private final NavigableMap<Long, Ledger.Entry> expected;
        private final boolean committedOnly;
        private final Ledger.Sequence sequence = new Ledger.Sequence();
        private long from;
        private long bytes;
        private String contradiction;

        Reading(NavigableMap<Long, Ledger.Entry> expected, boolean committedOnly) {
            this.expected = expected;
            this.committedOnly = committedOnly;
        }

        void add(ConsumerRecord<byte[], byte[]> record) {
            byte[] hash = Ledger.hash(record.timestamp(), record.key(), record.value(), record.headers());
            Ledger.Entry entry = expected.get(record.offset());
            if (contradiction == null && (entry == null || !entry.visible(committedOnly))) {
                contradiction = "offset " + record.offset() + " was read but " + (entry == null ? "never acknowledged" : "belongs to an aborted transaction");
            } else if (contradiction == null && !Arrays.equals(entry.hash(), hash)) {
                contradiction = "offset " + record.offset() + " differs from what was produced";
            } else if (contradiction == null && record.offset() <= sequence.last) {
                contradiction = "offset " + record.offset() + " was read after " + sequence.last;
            }
            sequence.add(record.offset(), hash);
            bytes += record.value() == null ? 0 : record.value().length;
        }

        String mismatch(long upTo) {
            if (contradiction != null || upTo <= from) {
                return contradiction;
            }
            long missing = expected.subMap(from, upTo).values().stream().filter(entry -> entry.visible(committedOnly)).count() - sequence.count;
            return missing == 0 ? null : missing + " acknowledged records between " + from + " and " + upTo + " were not read";
        }
    }

    /** What a consumer must see: the digest over a range, and the first offset at or after a timestamp. */
    private void describeLedger(JsonNode in, ObjectNode out) {
        boolean committedOnly = in.path("committed_only").asBoolean(false);
        long to = in.path("to").asLong(-1);
        long timestamp = in.path("timestamp").asLong(-1);
        Ledger.Sequence sequence = new Ledger.Sequence();
        long[] offsetForTime = {-1};
        ledger.of(partition(in)).subMap(Math.max(0, in.path("from").asLong(0)), to < 0 ? Long.MAX_VALUE : to).forEach((offset, entry) -> {
            if (entry.visible(committedOnly)) {
                sequence.add(offset, entry.hash());
                offsetForTime[0] = offsetForTime[0] < 0 && entry.timestamp() >= timestamp ? offset : offsetForTime[0];
            }
        });
        out.put("count", sequence.count).put("first", sequence.first).put("last", sequence.last);
        out.put("digest", sequence.hex()).put("offset_for_time", offsetForTime[0]);
    }

    private static KafkaConsumer<byte[], byte[]> consumer(JsonNode in, boolean committedOnly) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap(in));
        properties.put("isolation.level", committedOnly ? "read_committed" : "read_uncommitted");
        properties.put("enable.auto.commit", "false");
        properties.put("auto.offset.reset", "none");
        // The ledger finds what a checksum would hide: a client that drops a corrupt batch looks like one that was spared.
        properties.put("check.crcs", in.path("check_crcs").asText("true"));
        properties.put("max.partition.fetch.bytes", in.path("fetch_bytes").asText("1048576"));
        properties.put("max.poll.records", "2000");
        properties.put("request.timeout.ms", "15000");
        properties.put("default.api.timeout.ms", "30000");
        properties.put("reconnect.backoff.max.ms", "500");
        return new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }
}
