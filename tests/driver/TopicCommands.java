package io.varve.driver;

import static io.varve.driver.Clients.admin;
import static io.varve.driver.Clients.get;
import static io.varve.driver.Clients.map;
import static io.varve.driver.Clients.partition;
import static io.varve.driver.Clients.text;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ListOffsetsOptions;
import org.apache.kafka.clients.admin.NewPartitionReassignment;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.common.ElectionType;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.TopicPartitionInfo;
import org.apache.kafka.common.config.ConfigResource;

/** Topics, their configuration, their replicas and their offsets. */
final class TopicCommands {
    private final Ledger ledger;

    TopicCommands(Ledger ledger) {
        this.ledger = ledger;
    }

    void register(Map<String, Driver.Command> commands) {
        commands.put("create_topic", this::create);
        commands.put("delete_topic", this::delete);
        commands.put("alter_topic", this::alter);
        commands.put("describe_topic", this::describe);
        commands.put("describe_cluster", this::cluster);
        commands.put("delete_records", this::deleteRecords);
        commands.put("list_offset", this::listOffset);
        commands.put("move_leader", this::moveLeader);
    }

    private void create(JsonNode in, ObjectNode out) throws Exception {
        String name = text(in, "topic");
        NewTopic topic = new NewTopic(name, Optional.of(in.path("partitions").asInt(1)), Optional.of((short) in.path("replicas").asInt(1)));
        var result = admin(in).createTopics(List.of(topic.configs(map(in.path("configs")))));
        get(result.all());
        awaitLeaders(admin(in), name, get(result.numPartitions(name)));
        ledger.forget(name);
        out.put("topic_id", get(result.topicId(name)).toString());
    }

    /**
     * A leader that does not know its topic yet refuses a producer's first batch and may take its second, which an
     * idempotent producer does not get over. Leaders that are down are not waited for long.
     */
    private static void awaitLeaders(Admin admin, String name, int partitions) throws Exception {
        Map<TopicPartition, OffsetSpec> ends = new HashMap<>();
        for (int partition = 0; partition < partitions; partition++) {
            ends.put(new TopicPartition(name, partition), OffsetSpec.latest());
        }
        try {
            get(admin.listOffsets(ends, new ListOffsetsOptions().timeoutMs(10_000)).all());
        } catch (ExecutionException notYet) {
            System.err.println("no leaders of " + name + " yet: " + notYet);
        }
    }

    private void delete(JsonNode in, ObjectNode out) throws Exception {
        get(admin(in).deleteTopics(List.of(text(in, "topic"))).all());
    }

    private void alter(JsonNode in, ObjectNode out) throws Exception {
        Collection<AlterConfigOp> changes = new ArrayList<>();
        map(in.get("configs")).forEach((key, value) -> changes.add(new AlterConfigOp(new ConfigEntry(key, value), AlterConfigOp.OpType.SET)));
        get(admin(in).incrementalAlterConfigs(Map.of(new ConfigResource(ConfigResource.Type.TOPIC, text(in, "topic")), changes)).all());
    }

    private void describe(JsonNode in, ObjectNode out) throws Exception {
        TopicDescription topic = description(admin(in), text(in, "topic"));
        out.put("topic_id", topic.topicId().toString());
        ArrayNode partitions = out.putArray("partitions");
        for (TopicPartitionInfo info : topic.partitions()) {
            ObjectNode partition = partitions.addObject();
            partition.put("leader", info.leader() == null ? -1 : info.leader().id());
            ids(partition.putArray("replicas"), info.replicas());
            ids(partition.putArray("isr"), info.isr());
        }
    }

    private static void ids(ArrayNode into, List<Node> nodes) {
        nodes.forEach(node -> into.add(node.id()));
    }

    private static TopicDescription description(Admin admin, String topic) throws Exception {
        return get(admin.describeTopics(List.of(topic)).allTopicNames()).get(topic);
    }

    private void cluster(JsonNode in, ObjectNode out) throws Exception {
        var cluster = admin(in).describeCluster();
        ids(out.putArray("nodes"), List.copyOf(get(cluster.nodes())));
        out.put("controller", get(cluster.controller()).id());
    }

    private void deleteRecords(JsonNode in, ObjectNode out) throws Exception {
        TopicPartition partition = partition(in);
        var deleted = admin(in).deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(in.get("before").asLong())));
        out.put("low_watermark", get(deleted.lowWatermarks().get(partition)).lowWatermark());
    }

    private void listOffset(JsonNode in, ObjectNode out) throws Exception {
        TopicPartition partition = partition(in);
        OffsetSpec spec = switch (text(in, "at")) {
            case "earliest" -> OffsetSpec.earliest();
            case "latest" -> OffsetSpec.latest();
            case "earliest_local" -> OffsetSpec.earliestLocal();
            case "latest_tiered" -> OffsetSpec.latestTiered();
            case "max_timestamp" -> OffsetSpec.maxTimestamp();
            default -> OffsetSpec.forTimestamp(in.get("at").asLong());
        };
        var found = get(admin(in).listOffsets(Map.of(partition, spec)).partitionResult(partition));
        out.put("offset", found.offset());
        out.put("timestamp", found.timestamp());
    }

    /**
     * Puts {@code to} first among the replicas, waits for it to be in sync, and has it elected. Answers that are not
     * yet true (a broker that just started knows no topics) are asked for again.
     */
    private void moveLeader(JsonNode in, ObjectNode out) throws Exception {
        Admin admin = admin(in);
        TopicPartition partition = partition(in);
        int to = in.get("to").asInt();
        long deadline = System.nanoTime() + 60_000_000_000L;
        for (Exception last = null; System.nanoTime() < deadline; Thread.sleep(100)) {
            try {
                TopicPartitionInfo now = info(admin, partition);
                if (now.leader() != null && now.leader().id() == to) {
                    out.put("leader", to);
                    return;
                }
                if (now.replicas().get(0).id() != to) {
                    prefer(admin, partition, to, now);
                }
                get(admin.electLeaders(ElectionType.PREFERRED, Set.of(partition)).all());
            } catch (ExecutionException e) {
                if (last == null || !Driver.causes(e).equals(Driver.causes(last))) {
                    System.err.println("moving the leader of " + partition + " to " + to + ": " + Driver.causes(e));
                }
                last = e;
            }
        }
        throw new IllegalStateException("broker " + to + " does not become the leader: " + info(admin, partition));
    }

    private static void prefer(Admin admin, TopicPartition partition, int first, TopicPartitionInfo now) throws Exception {
        List<Integer> replicas = new ArrayList<>(List.of(first));
        now.replicas().stream().map(Node::id).filter(id -> id != first).forEach(replicas::add);
        get(admin.alterPartitionReassignments(Map.of(partition, Optional.of(new NewPartitionReassignment(replicas)))).all());
    }

    private static TopicPartitionInfo info(Admin admin, TopicPartition partition) throws Exception {
        return description(admin, partition.topic()).partitions().get(partition.partition());
    }
}
