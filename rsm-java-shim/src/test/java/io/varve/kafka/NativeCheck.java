package io.varve.kafka;

import java.io.IOException;
import java.io.InputStream;
import java.lang.management.ManagementFactory;
import java.net.URL;
import java.net.URLClassLoader;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Random;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import java.util.stream.Stream;
import javax.management.MBeanServer;
import javax.management.ObjectName;
import org.apache.kafka.common.TopicIdPartition;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigException;
import org.apache.kafka.server.log.remote.storage.LogSegmentData;
import org.apache.kafka.server.log.remote.storage.RemoteLogSegmentId;
import org.apache.kafka.server.log.remote.storage.RemoteLogSegmentMetadata;
import org.apache.kafka.server.log.remote.storage.RemoteLogSegmentMetadata.CustomMetadata;
import org.apache.kafka.server.log.remote.storage.RemoteLogSegmentState;
import org.apache.kafka.server.log.remote.storage.RemoteResourceNotFoundException;
import org.apache.kafka.server.log.remote.storage.RemoteStorageException;
import org.apache.kafka.server.log.remote.storage.RemoteStorageManager;
import org.apache.kafka.server.log.remote.storage.RemoteStorageManager.IndexType;

/**
 * Shim and native library as one jar, through the contract alone: arguments are an empty folder and the
 * jar. What brokers seldom do is done here: 64 threads, early and double closes, interrupts, two managers,
 * two class loaders.
 */
public final class NativeCheck {
    private static final int LOG_BYTES = 3 * 1024 * 1024 + 17;
    private static final Random RANDOM = new Random(7);

    private final Path dir;
    private final Path segmentDir;
    private final Path libraryDir;
    private final byte[] log = new byte[LOG_BYTES];
    private final byte[] offsetIndex = new byte[8 * 100];
    private int nextSegment = 1;

    private NativeCheck(Path dir) throws IOException {
        this.dir = dir;
        segmentDir = Files.createDirectories(dir.resolve("segment"));
        libraryDir = dir.resolve("library");
        RANDOM.nextBytes(log);
        RANDOM.nextBytes(offsetIndex);
        Files.write(segmentDir.resolve("0.log"), log);
        Files.write(segmentDir.resolve("0.index"), offsetIndex);
        Files.write(segmentDir.resolve("0.timeindex"), new byte[12]);
        Files.write(segmentDir.resolve("0.snapshot"), new byte[] {1, 2, 3});
    }

    public static void main(String[] args) throws Exception {
        NativeCheck check = new NativeCheck(Paths.get(args[0]));
        check.configurationIsRefusedByName();
        check.segmentsComeBackAndGo();
        check.interruptsEndACopy();
        check.manyThreads();
        check.closedWhileManyThreadsAreInterrupted();
        check.beansAreThereWhileOpen();
        check.useAfterCloseIsTyped();
        check.twoClassLoaders(Paths.get(args[1]).toUri().toURL());
        try (Stream<Path> left = Files.list(check.libraryDir)) {
            same(left.count(), 0L);
        }
        System.out.println("NativeCheck: passed, native version " + Native.version());
    }

    private Map<String, Object> config(int broker) {
        Map<String, Object> config = new HashMap<>();
        config.put("store.url", dir.resolve("store").toUri().toString());
        config.put("cluster.id", "check");
        config.put("broker.id", broker);
        config.put("native.library.dir", libraryDir.toString());
        return config;
    }

    private VarveRemoteStorageManager open(int broker) throws IOException {
        Files.createDirectories(dir.resolve("store"));
        VarveRemoteStorageManager rsm = new VarveRemoteStorageManager();
        rsm.configure(config(broker));
        return rsm;
    }

    private void configurationIsRefusedByName() {
        Map<String, Object> config = config(1);
        config.put("chunk.size.bytes", "many");
        VarveRemoteStorageManager rsm = new VarveRemoteStorageManager();
        fails(ConfigException.class, "chunk.size.bytes", () -> rsm.configure(config));
        rsm.close();
    }

    private void segmentsComeBackAndGo() throws Exception {
        VarveRemoteStorageManager rsm = open(1);
        roundTrip(rsm);
        fails(IllegalStateException.class, "already configured", () -> rsm.configure(config(1)));
        rsm.close();
        rsm.close();
    }

    private void roundTrip(RemoteStorageManager rsm) throws Exception {
        RemoteLogSegmentMetadata bare = metadata(null);
        Optional<CustomMetadata> custom = rsm.copyLogSegmentData(bare, data());
        same(custom.map(c -> c.value().length <= 128).orElse(true), true);
        RemoteLogSegmentMetadata segment = finished(bare, custom);
        try (InputStream in = rsm.fetchLogSegment(segment, 0)) {
            same(in.read(), log[0] & 0xff);
            same(in.skip(9), 9L);
            same(Arrays.equals(in.readAllBytes(), Arrays.copyOfRange(log, 10, LOG_BYTES)), true);
            same(in.read(), -1);
        }
        try (InputStream in = rsm.fetchLogSegment(segment, 1_000_000, 1_000_099)) {
            same(Arrays.equals(in.readAllBytes(), Arrays.copyOfRange(log, 1_000_000, 1_000_100)), true);
        }
        InputStream closed = rsm.fetchLogSegment(segment, 0);
        closed.close();
        closed.close();
        fails(IOException.class, "closed", closed::read);
        same(Arrays.equals(rsm.fetchIndex(segment, IndexType.OFFSET).readAllBytes(), offsetIndex), true);
        same(rsm.fetchIndex(segment, IndexType.TIMESTAMP).readAllBytes().length, 12);
        same(rsm.fetchIndex(segment, IndexType.PRODUCER_SNAPSHOT).readAllBytes().length, 3);
        same(new String(rsm.fetchIndex(segment, IndexType.LEADER_EPOCH).readAllBytes(), StandardCharsets.UTF_8),
                "0\n1\n0 0\n");
        fails(RemoteResourceNotFoundException.class, "TRANSACTION", () -> rsm.fetchIndex(segment, IndexType.TRANSACTION));
        rsm.deleteLogSegmentData(segment);
        rsm.deleteLogSegmentData(segment);
    }

    private void interruptsEndACopy() throws Exception {
        // At this rate the copy lasts for most of a minute, unless it is ended.
        Map<String, Object> slow = config(1);
        slow.put("upload.rate.bytes.per.second", "65536");
        VarveRemoteStorageManager throttled = new VarveRemoteStorageManager();
        throttled.configure(slow);
        RemoteLogSegmentMetadata segment = metadata(null);
        Thread me = Thread.currentThread();
        Thread interrupter = new Thread(() -> {
            try {
                Thread.sleep(300);
            } catch (InterruptedException e) {
                return;
            }
            me.interrupt();
        });
        interrupter.start();
        long before = System.nanoTime();
        fails(RemoteStorageException.class, "cancelled: interrupted", () -> throttled.copyLogSegmentData(segment, data()));
        long tookMs = (System.nanoTime() - before) / 1_000_000;
        same(tookMs < 15_000, true);
        // As the broker does: the cleanup runs on the thread that is still marked.
        same(Thread.currentThread().isInterrupted(), true);
        throttled.deleteLogSegmentData(segment);
        same(Thread.interrupted(), true);
        throttled.close();
        same(objects(), List.of());
    }

    private void manyThreads() throws Exception {
        VarveRemoteStorageManager one = open(1);
        VarveRemoteStorageManager two = open(1);
        ExecutorService pool = Executors.newFixedThreadPool(64);
        List<Future<Void>> runs = new ArrayList<>();
        for (int i = 0; i < 128; i++) {
            VarveRemoteStorageManager rsm = i % 2 == 0 ? one : two;
            Callable<Void> run = () -> {
                roundTrip(rsm);
                return null;
            };
            runs.add(pool.submit(run));
        }
        for (Future<Void> run : runs) run.get();
        pool.shutdown();
        two.close();
        roundTrip(one);
        one.close();
        same(objects(), List.of());
    }

    /** Copies, reads and deletes on 64 threads, one of them interrupted each millisecond; and then the end. */
    private void closedWhileManyThreadsAreInterrupted() throws Exception {
        VarveRemoteStorageManager rsm = open(1);
        List<RemoteLogSegmentMetadata> begun = Collections.synchronizedList(new ArrayList<>());
        List<Thread> threads = Collections.synchronizedList(new ArrayList<>());
        ExecutorService pool = Executors.newFixedThreadPool(64);
        List<Future<Integer>> runs = new ArrayList<>();
        for (int i = 0; i < 64; i++) {
            Callable<Integer> run = () -> {
                threads.add(Thread.currentThread());
                for (int done = 0; ; ) {
                    RemoteLogSegmentMetadata bare = metadata(null);
                    begun.add(bare);
                    try {
                        RemoteLogSegmentMetadata segment = finished(bare, rsm.copyLogSegmentData(bare, data()));
                        try (InputStream in = rsm.fetchLogSegment(segment, 0)) {
                            same(Arrays.equals(in.readAllBytes(), log), true);
                        }
                        same(Arrays.equals(rsm.fetchIndex(segment, IndexType.OFFSET).readAllBytes(), offsetIndex), true);
                        rsm.deleteLogSegmentData(segment);
                        done++;
                    } catch (RemoteStorageException | IOException e) {
                        Thread.interrupted();
                        if (String.valueOf(e.getMessage()).contains("manager is closed")) return done;
                    }
                }
            };
            runs.add(pool.submit(run));
        }
        long until = System.nanoTime() + 2_000_000_000L;
        for (int i = 0; System.nanoTime() < until; i++) {
            Thread.sleep(1);
            if (!threads.isEmpty()) threads.get(i * 7 % threads.size()).interrupt();
        }
        long before = System.nanoTime();
        rsm.close();
        same((System.nanoTime() - before) / 1_000_000 < 20_000, true);
        int done = 0;
        for (Future<Integer> run : runs) done += run.get(10, TimeUnit.SECONDS);
        pool.shutdown();
        System.out.println(done + " of " + begun.size() + " round trips ended before their interrupt");
        VarveRemoteStorageManager again = open(1);
        for (RemoteLogSegmentMetadata segment : begun) again.deleteLogSegmentData(segment);
        again.close();
        same(objects(), List.of());
    }

    private void beansAreThereWhileOpen() throws Exception {
        MBeanServer server = ManagementFactory.getPlatformMBeanServer();
        ObjectName all = new ObjectName("io.varve.kafka:type=RemoteStorageManager,broker=3,*");
        VarveRemoteStorageManager one = open(3);
        VarveRemoteStorageManager two = open(3);
        ObjectName copy = new ObjectName("io.varve.kafka:type=RemoteStorageManager,broker=3,operation=copy");
        ObjectName second = new ObjectName("io.varve.kafka:type=RemoteStorageManager,broker=3,instance=2,operation=copy");
        for (int i = 0; i < 100 && !(server.isRegistered(copy) && server.isRegistered(second)); i++) Thread.sleep(100);
        same(server.isRegistered(copy), true);
        same(server.isRegistered(second), true);
        roundTrip(one);
        // A value is at most a second old.
        Thread.sleep(1_100);
        String attribute = server.getMBeanInfo(copy).getAttributes()[0].getName();
        same(server.getAttribute(copy, attribute) instanceof Double, true);
        same(server.getAttribute(copy, "Count"), 1.0);
        same(server.getAttribute(copy, "ErrorCount"), 0.0);
        same(server.getAttribute(second, "Count"), 0.0);
        ObjectName topic = new ObjectName("io.varve.kafka:type=RemoteStorageManager,broker=3,topic=check.topic-1,*");
        for (int i = 0; i < 100 && server.queryNames(topic, null).isEmpty(); i++) Thread.sleep(100);
        System.out.println(server.queryNames(all, null).stream().map(ObjectName::toString).sorted()
                .collect(Collectors.joining("\n")));
        same(server.queryNames(topic, null).isEmpty(), false);
        one.close();
        two.close();
        same(server.queryNames(all, null).size(), 0);
    }

    private void useAfterCloseIsTyped() throws Exception {
        VarveRemoteStorageManager rsm = open(1);
        RemoteLogSegmentMetadata segment = metadata(null);
        Optional<CustomMetadata> custom = rsm.copyLogSegmentData(segment, data());
        InputStream in = rsm.fetchLogSegment(metadata(custom.map(CustomMetadata::value).orElse(null)), 0);
        rsm.close();
        fails(IOException.class, "closed", in::readAllBytes);
        in.close();
        fails(RemoteStorageException.class, "closed", () -> rsm.copyLogSegmentData(segment, data()));
        fails(RemoteStorageException.class, "closed", () -> rsm.fetchIndex(segment, IndexType.OFFSET));
        VarveRemoteStorageManager again = open(1);
        again.deleteLogSegmentData(segment);
        again.close();
    }

    /** As a broker does with a class path of the plug-in's own, twice in one JVM. */
    private void twoClassLoaders(URL jar) throws Exception {
        for (int i = 0; i < 2; i++) {
            try (URLClassLoader loader = new ChildFirst(jar)) {
                Class<?> type = loader.loadClass(VarveRemoteStorageManager.class.getName());
                same(type != VarveRemoteStorageManager.class, true);
                RemoteStorageManager rsm = (RemoteStorageManager) type.getDeclaredConstructor().newInstance();
                rsm.configure(config(1));
                roundTrip(rsm);
                rsm.close();
            }
        }
    }

    private static final class ChildFirst extends URLClassLoader {
        ChildFirst(URL jar) {
            super(new URL[] {jar}, NativeCheck.class.getClassLoader());
        }

        @Override
        protected Class<?> loadClass(String name, boolean resolve) throws ClassNotFoundException {
            Class<?> known = findLoadedClass(name);
            if (known != null) return known;
            return name.startsWith("io.varve.") ? findClass(name) : super.loadClass(name, resolve);
        }
    }

    private List<Path> objects() throws IOException {
        try (Stream<Path> files = Files.walk(dir.resolve("store"))) {
            return files.filter(Files::isRegularFile).collect(Collectors.toList());
        }
    }

    private LogSegmentData data() {
        return new LogSegmentData(segmentDir.resolve("0.log"), segmentDir.resolve("0.index"),
                segmentDir.resolve("0.timeindex"), Optional.empty(), segmentDir.resolve("0.snapshot"),
                ByteBuffer.wrap("0\n1\n0 0\n".getBytes(StandardCharsets.UTF_8)));
    }

    private static RemoteLogSegmentMetadata finished(RemoteLogSegmentMetadata begun, Optional<CustomMetadata> custom) {
        return new RemoteLogSegmentMetadata(begun.remoteLogSegmentId(), 0, 999, 5, 1, 6, LOG_BYTES, custom,
                RemoteLogSegmentState.COPY_SEGMENT_FINISHED, Map.of(0, 0L));
    }

    private synchronized RemoteLogSegmentMetadata metadata(byte[] custom) {
        TopicIdPartition partition = new TopicIdPartition(new Uuid(1, 2), new TopicPartition("check.topic-1", 3));
        return new RemoteLogSegmentMetadata(new RemoteLogSegmentId(partition, new Uuid(4, nextSegment++)), 0, 999, 5, 1,
                6, LOG_BYTES, Optional.ofNullable(custom).map(CustomMetadata::new),
                RemoteLogSegmentState.COPY_SEGMENT_STARTED, Map.of(0, 0L));
    }

    private interface Action {
        void run() throws Exception;
    }

    private static void fails(Class<? extends Exception> type, String text, Action action) {
        try {
            action.run();
        } catch (Exception e) {
            if (type.isInstance(e) && String.valueOf(e.getMessage()).contains(text)) return;
            throw new AssertionError("expected " + type.getSimpleName() + " with '" + text + "', found " + e, e);
        }
        throw new AssertionError("expected " + type.getSimpleName() + " with '" + text + "', nothing was thrown");
    }

    private static void same(Object found, Object expected) {
        if (!Objects.equals(found, expected)) {
            throw new AssertionError("expected " + expected + ", found " + found);
        }
    }
}
