package io.varve.driver;

import static io.varve.driver.Clients.bootstrap;
import static io.varve.driver.Clients.partition;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.Properties;
import java.util.SplittableRandom;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.AtomicReference;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Produces records whose content follows from a seed, and enters what was acknowledged into the ledger. */
final class ProduceCommands {
    private static final String[] WORDS = "leader follower segment offset batch record broker topic index epoch tier store quorum commit".split(" ");

    private final Ledger ledger;
    private final Map<String, KafkaProducer<byte[], byte[]>> producers = new ConcurrentHashMap<>();

    ProduceCommands(Ledger ledger) {
        this.ledger = ledger;
    }

    void register(Map<String, Driver.Command> commands) {
        commands.put("produce", this::produce);
        commands.put("produce_transactions", this::produceTransactions);
        commands.put("open_transaction", this::openTransaction);
    }

    private void produce(JsonNode in, ObjectNode out) throws Exception {
        KafkaProducer<byte[], byte[]> producer = producers.computeIfAbsent(key(in), any -> producer(in, null));
        Sending sending = new Sending(producer, partition(in), in.path("across").asInt(1), new Content(in));
        long rate = in.path("records_per_second").asLong(0);
        long started = System.nanoTime();
        for (long i = 0; i < in.get("count").asLong(); i++) {
            sending.send(i, Ledger.Outcome.COMMITTED);
            if (rate > 0 && i % 16 == 0) {
                long ahead_ms = i * 1000 / rate - (System.nanoTime() - started) / 1_000_000;
                Thread.sleep(Math.max(0, ahead_ms));
            }
        }
        producer.flush();
        sending.report(out);
    }

    private void produceTransactions(JsonNode in, ObjectNode out) throws Exception {
        String id = Clients.text(in, "transactional_id");
        KafkaProducer<byte[], byte[]> producer = producers.computeIfAbsent(key(in) + id, any -> {
            KafkaProducer<byte[], byte[]> fresh = producer(in, id);
            fresh.initTransactions();
            return fresh;
        });
        Sending sending = new Sending(producer, partition(in), new Content(in));
        int records = in.get("records_per_transaction").asInt();
        int abortEvery = in.path("abort_every").asInt(0);
        long next = 0;
        for (int transaction = 0; transaction < in.get("transactions").asInt(); transaction++) {
            boolean abort = abortEvery > 0 && transaction % abortEvery == abortEvery - 1;
            producer.beginTransaction();
            for (int i = 0; i < records; i++) {
                sending.send(next++, abort ? Ledger.Outcome.ABORTED : Ledger.Outcome.COMMITTED);
            }
            producer.flush();
            if (abort) {
                producer.abortTransaction();
            } else {
                producer.commitTransaction();
            }
        }
        sending.report(out);
    }

    /** Leaves the transaction open: nobody reads its records. */
    private void openTransaction(JsonNode in, ObjectNode out) throws Exception {
        KafkaProducer<byte[], byte[]> producer = producer(in, Clients.text(in, "transactional_id"));
        producers.put(key(in) + Clients.text(in, "transactional_id"), producer);
        producer.initTransactions();
        Sending sending = new Sending(producer, partition(in), new Content(in));
        producer.beginTransaction();
        for (long i = 0; i < in.get("records_per_transaction").asLong(); i++) {
            sending.send(i, Ledger.Outcome.ABORTED);
        }
        producer.flush();
        sending.report(out);
    }

    /** One run of sends to one partition. */
    private final class Sending {
        private final KafkaProducer<byte[], byte[]> producer;
        private final TopicPartition partition;
        /** Records go to so many partitions in turn, this one first. */
        private final int across;
        private final Content content;
        private final AtomicLong acknowledged = new AtomicLong();
        private final AtomicLong bytes = new AtomicLong();
        private final AtomicReference<Exception> failure = new AtomicReference<>();
        private final AtomicLong first = new AtomicLong(-1);
        private final AtomicLong last = new AtomicLong(-1);

        Sending(KafkaProducer<byte[], byte[]> producer, TopicPartition partition, Content content) {
            this(producer, partition, 1, content);
        }

        Sending(KafkaProducer<byte[], byte[]> producer, TopicPartition partition, int across, Content content) {
            this.producer = producer;
            this.partition = partition;
            this.across = across;
            this.content = content;
        }

        void send(long index, Ledger.Outcome outcome) {
            int number = partition.partition() + (int) (index % across);
            TopicPartition to = new TopicPartition(partition.topic(), number);
            ProducerRecord<byte[], byte[]> record = content.record(to, index);
            producer.send(record, (metadata, error) -> {
                if (error != null) {
                    failure.compareAndSet(null, error);
                    return;
                }
                byte[] hash = Ledger.hash(record.timestamp(), record.key(), record.value(), record.headers());
                ledger.of(to).put(metadata.offset(), new Ledger.Entry(record.timestamp(), hash, outcome));
                acknowledged.incrementAndGet();
                bytes.addAndGet(record.value() == null ? 0 : record.value().length);
                first.compareAndSet(-1, metadata.offset());
                last.set(metadata.offset());
            });
        }

        void report(ObjectNode out) throws Exception {
            if (failure.get() != null) {
                throw failure.get();
            }
            out.put("count", acknowledged.get()).put("bytes", bytes.get()).put("first", first.get()).put("last", last.get());
        }
    }

    /** Record {@code i} of a seed is always the same record. */
    private static final class Content {
        private final long seed;
        private final int keyBytes;
        private final int valueBytes;
        private final boolean text;
        private final int headers;
        private final int tombstoneEvery;
        private final long timestampFrom;
        private final long timestampStep;

        Content(JsonNode in) {
            seed = in.path("seed").asLong(1);
            keyBytes = in.path("key_bytes").asInt(16);
            valueBytes = in.path("value_bytes").asInt(1000);
            text = in.path("text").asBoolean(false);
            headers = in.path("headers").asInt(0);
            tombstoneEvery = in.path("tombstone_every").asInt(0);
            timestampFrom = in.path("timestamp_from").asLong(-1);
            timestampStep = in.path("timestamp_step_ms").asLong(1);
        }

        ProducerRecord<byte[], byte[]> record(TopicPartition partition, long index) {
            SplittableRandom random = new SplittableRandom(seed * 1_000_003 + index);
            byte[] key = keyBytes == 0 ? null : bytes(random, keyBytes);
            boolean tombstone = tombstoneEvery > 0 && index % tombstoneEvery == 0;
            byte[] value = tombstone ? null : text ? words(random, valueBytes) : bytes(random, valueBytes);
            RecordHeaders with = new RecordHeaders();
            for (int i = 0; i < headers; i++) {
                with.add("header-" + i, i % 3 == 2 ? null : bytes(random, i * 7 % 50));
            }
            // Always ours: of a batch that was retried and already there, the broker acknowledges another timestamp.
            long timestamp = timestampFrom < 0 ? System.currentTimeMillis() : timestampFrom + index * timestampStep;
            return new ProducerRecord<>(partition.topic(), partition.partition(), timestamp, key, value, with);
        }

        private static byte[] bytes(SplittableRandom random, int count) {
            byte[] bytes = new byte[count];
            random.nextBytes(bytes);
            return bytes;
        }

        private static byte[] words(SplittableRandom random, int count) {
            StringBuilder text = new StringBuilder(count + 16);
            while (text.length() < count) {
                text.append(WORDS[random.nextInt(WORDS.length)]).append(' ');
            }
            return text.substring(0, count).getBytes(StandardCharsets.US_ASCII);
        }
    }

    private static String key(JsonNode in) {
        return String.join("|", bootstrap(in), in.path("compression").asText("none"), in.path("batch_bytes").asText(""), in.path("linger_ms").asText(""), in.path("idempotent").asText("true"));
    }

    private static KafkaProducer<byte[], byte[]> producer(JsonNode in, String transactionalId) {
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap(in));
        properties.put("acks", "all");
        properties.put("enable.idempotence", in.path("idempotent").asText("true"));
        properties.put("compression.type", in.path("compression").asText("none"));
        properties.put("batch.size", in.path("batch_bytes").asText("16384"));
        properties.put("linger.ms", in.path("linger_ms").asText("5"));
        properties.put("delivery.timeout.ms", "180000");
        properties.put("request.timeout.ms", "15000");
        properties.put("max.block.ms", "60000");
        properties.put("reconnect.backoff.max.ms", "500");
        if (transactionalId != null) {
            properties.put("transactional.id", transactionalId);
            properties.put("transaction.timeout.ms", in.path("transaction_timeout_ms").asText("60000"));
        }
        return new KafkaProducer<>(properties, new ByteArraySerializer(), new ByteArraySerializer());
    }
}
