package io.varve.kafka;

import java.io.ByteArrayInputStream;
import java.io.DataInputStream;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import javax.management.Attribute;
import javax.management.AttributeList;
import javax.management.AttributeNotFoundException;
import javax.management.DynamicMBean;
import javax.management.InstanceAlreadyExistsException;
import javax.management.JMException;
import javax.management.MBeanAttributeInfo;
import javax.management.MBeanInfo;
import javax.management.MBeanServer;
import javax.management.ObjectName;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The native counters of one manager as JMX beans named in Kafka's manner. A broker hands no metrics
 * registry to a plug-in with its own class path, so they are registered here. Values are asked for at
 * most once a second, when somebody looks; beans come and go by {@link #discover} alone.
 */
final class NativeMetrics {
    private static final Logger LOG = LoggerFactory.getLogger(NativeMetrics.class);
    private static final long FRESH_NS = 1_000_000_000L;
    private static final int MAX_INSTANCES = 1_000;

    private final MBeanServer server = ManagementFactory.getPlatformMBeanServer();
    private final Map<String, ObjectName> registered = new HashMap<>();
    private final long rsm;
    private final String broker;
    /** 1 unless another manager of the same broker id lives in this JVM. */
    private int instance = 1;
    private boolean closed;

    private final Object snapshotLock = new Object();
    private Map<String, Map<String, Double>> snapshot = Map.of();
    private long refreshedNs;
    private boolean refreshed;

    NativeMetrics(long rsm, String broker) {
        this.rsm = rsm;
        this.broker = broker;
    }

    /** Registers the beans that are new and drops those that are gone. */
    synchronized void discover() {
        if (closed) return;
        Map<String, Map<String, Double>> now = snapshot();
        registered.entrySet().removeIf(e -> !now.containsKey(e.getKey()) && unregister(e.getValue()));
        for (String bean : now.keySet()) {
            if (registered.containsKey(bean)) continue;
            try {
                registered.put(bean, register(bean));
            } catch (JMException e) {
                LOG.warn("the bean {} can't be registered", bean, e);
            }
        }
    }

    synchronized void close() {
        closed = true;
        registered.values().forEach(this::unregister);
        registered.clear();
    }

    private ObjectName register(String bean) throws JMException {
        while (true) {
            ObjectName name = objectName(broker, instance, bean);
            try {
                server.registerMBean(new Bean(bean), name);
                return name;
            } catch (InstanceAlreadyExistsException e) {
                if (!registered.isEmpty() || instance >= MAX_INSTANCES) throw e;
                instance++;
            }
        }
    }

    private boolean unregister(ObjectName name) {
        try {
            server.unregisterMBean(name);
        } catch (JMException e) {
            LOG.debug("the bean {} was gone already", name, e);
        }
        return true;
    }

    static ObjectName objectName(String broker, int instance, String bean) throws JMException {
        StringBuilder name = new StringBuilder("io.varve.kafka:type=RemoteStorageManager,broker=").append(value(broker));
        if (instance > 1) name.append(",instance=").append(instance);
        for (String pair : bean.split(",")) {
            int at = pair.indexOf('=');
            name.append(',').append(pair, 0, at + 1).append(value(pair.substring(at + 1)));
        }
        return new ObjectName(name.toString());
    }

    private static String value(String text) {
        boolean plain = !text.isEmpty() && text.chars().noneMatch(c -> "=:\"*?,\n".indexOf(c) >= 0);
        return plain ? text : ObjectName.quote(text);
    }

    private Map<String, Map<String, Double>> snapshot() {
        synchronized (snapshotLock) {
            if (!refreshed || System.nanoTime() - refreshedNs >= FRESH_NS) {
                try {
                    snapshot = decode(Native.metrics(rsm));
                } catch (NativeException | IOException e) {
                    // The manager is closing: the last values stand.
                    LOG.debug("native metrics can't be read", e);
                }
                refreshed = true;
                refreshedNs = System.nanoTime();
            }
            return snapshot;
        }
    }

    static Map<String, Map<String, Double>> decode(byte[] blob) throws IOException {
        Map<String, Map<String, Double>> beans = new LinkedHashMap<>();
        try (DataInputStream in = new DataInputStream(new ByteArrayInputStream(blob))) {
            for (int n = in.readInt(); n > 0; n--) {
                Map<String, Double> attributes = beans.computeIfAbsent(LogPump.string(in), k -> new LinkedHashMap<>());
                for (int m = in.readInt(); m > 0; m--) attributes.put(LogPump.string(in), in.readDouble());
            }
        }
        return beans;
    }

    private final class Bean implements DynamicMBean {
        private final String bean;

        Bean(String bean) {
            this.bean = bean;
        }

        private Map<String, Double> values() {
            return snapshot().getOrDefault(bean, Map.of());
        }

        @Override
        public Object getAttribute(String attribute) throws AttributeNotFoundException {
            Double value = values().get(attribute);
            if (value == null) throw new AttributeNotFoundException(bean + " has no attribute " + attribute);
            return value;
        }

        @Override
        public AttributeList getAttributes(String[] attributes) {
            Map<String, Double> values = values();
            AttributeList list = new AttributeList();
            for (String name : attributes) {
                if (values.containsKey(name)) list.add(new Attribute(name, values.get(name)));
            }
            return list;
        }

        @Override
        public MBeanInfo getMBeanInfo() {
            MBeanAttributeInfo[] attributes = values().keySet().stream()
                    .map(name -> new MBeanAttributeInfo(name, "double", "", true, false, false))
                    .toArray(MBeanAttributeInfo[]::new);
            return new MBeanInfo(Bean.class.getName(), bean, attributes, null, null, null);
        }

        @Override
        public void setAttribute(Attribute attribute) throws AttributeNotFoundException {
            throw new AttributeNotFoundException(attribute.getName() + " can't be set");
        }

        @Override
        public AttributeList setAttributes(AttributeList attributes) {
            return new AttributeList();
        }

        @Override
        public Object invoke(String action, Object[] parameters, String[] signature) {
            throw new UnsupportedOperationException(action);
        }
    }
}
