package io.varve.driver;

import static io.varve.driver.Clients.bootstrap;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.PartitionInfo;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.server.log.remote.metadata.storage.serialization.RemoteLogMetadataSerde;
import org.apache.kafka.server.log.remote.storage.RemoteLogMetadata;
import org.apache.kafka.server.log.remote.storage.RemoteLogSegmentMetadata;
import org.apache.kafka.server.log.remote.storage.RemoteLogSegmentMetadataUpdate;

/** What the brokers believe is in the tier: every segment in {@code __remote_log_metadata}, with its last state. */
final class TierCommands {
    private static final String TOPIC = "__remote_log_metadata";

    void register(Map<String, Driver.Command> commands) {
        commands.put("tier_segments", this::segments);
    }

    private void segments(JsonNode in, ObjectNode out) {
        Map<Uuid, ObjectNode> found = new LinkedHashMap<>();
        ArrayNode all = out.putArray("segments");
        Properties properties = new Properties();
        properties.put("bootstrap.servers", bootstrap(in));
        properties.put("enable.auto.commit", "false");
        RemoteLogMetadataSerde serde = new RemoteLogMetadataSerde();
        try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(properties, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            List<TopicPartition> partitions = new ArrayList<>();
            for (PartitionInfo info : consumer.partitionsFor(TOPIC)) {
                partitions.add(new TopicPartition(TOPIC, info.partition()));
            }
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            while (ends.entrySet().stream().anyMatch(end -> consumer.position(end.getKey()) < end.getValue())) {
                for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(200))) {
                    if (record.value() != null) {
                        apply(serde.deserialize(record.value()), found, all);
                    }
                }
            }
        }
    }

    private static void apply(RemoteLogMetadata event, Map<Uuid, ObjectNode> found, ArrayNode all) {
        if (event instanceof RemoteLogSegmentMetadata segment) {
            var id = segment.remoteLogSegmentId();
            ObjectNode entry = found.computeIfAbsent(id.id(), any -> all.addObject());
            entry.put("id", id.id().toString()).put("topic_id", id.topicIdPartition().topicId().toString());
            entry.put("topic", id.topicIdPartition().topic()).put("partition", id.topicIdPartition().partition());
            entry.put("base", segment.startOffset()).put("end", segment.endOffset()).put("size_bytes", segment.segmentSizeInBytes());
            entry.put("state", segment.state().name()).put("broker", segment.brokerId());
            entry.put("max_timestamp", segment.maxTimestampMs());
        } else if (event instanceof RemoteLogSegmentMetadataUpdate update) {
            ObjectNode entry = found.get(update.remoteLogSegmentId().id());
            if (entry != null) {
                entry.put("state", update.state().name());
                update.customMetadata().ifPresent(custom -> entry.put("custom", custom.value()));
            }
        }
    }
}
