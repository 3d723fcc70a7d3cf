package io.varve.driver;

import com.fasterxml.jackson.databind.JsonNode;
import java.util.HashMap;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.TopicPartition;

/** Admin clients, kept by bootstrap address, and the reading of arguments. */
final class Clients {
    private static final Map<String, Admin> ADMINS = new ConcurrentHashMap<>();

    static Admin admin(JsonNode args) {
        return ADMINS.computeIfAbsent(bootstrap(args), bootstrap -> {
            Properties properties = new Properties();
            properties.put("bootstrap.servers", bootstrap);
            properties.put("default.api.timeout.ms", "30000");
            properties.put("request.timeout.ms", "10000");
            properties.put("reconnect.backoff.max.ms", "500");
            return Admin.create(properties);
        });
    }

    static <T> T get(KafkaFuture<T> future) throws Exception {
        return future.get(60, TimeUnit.SECONDS);
    }

    static String bootstrap(JsonNode args) {
        return text(args, "bootstrap");
    }

    static String text(JsonNode args, String key) {
        if (!args.hasNonNull(key)) {
            throw new IllegalArgumentException("missing argument " + key);
        }
        return args.get(key).asText();
    }

    static TopicPartition partition(JsonNode args) {
        return new TopicPartition(text(args, "topic"), args.path("partition").asInt(0));
    }

    static Map<String, String> map(JsonNode object) {
        Map<String, String> map = new HashMap<>();
        for (Map.Entry<String, JsonNode> field : object.properties()) {
            map.put(field.getKey(), field.getValue().asText());
        }
        return map;
    }

    private Clients() {}
}
