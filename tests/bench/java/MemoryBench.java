import com.sun.management.ThreadMXBean;
import java.io.IOException;
import java.io.InputStream;
import java.io.Reader;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.ArrayList;
import java.util.Base64;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Properties;
import java.util.concurrent.Callable;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.common.TopicIdPartition;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.server.log.remote.storage.LogSegmentData;
import org.apache.kafka.server.log.remote.storage.RemoteLogSegmentId;
import org.apache.kafka.server.log.remote.storage.RemoteLogSegmentMetadata;
import org.apache.kafka.server.log.remote.storage.RemoteLogSegmentMetadata.CustomMetadata;
import org.apache.kafka.server.log.remote.storage.RemoteLogSegmentState;
import org.apache.kafka.server.log.remote.storage.RemoteStorageManager;

/**
 * The JVM whose memory `bench memory` measures: the plug-in by its public class, copies and readers at once.
 *
 * <p>Arguments: the plug-in's configuration, a file of segments to read (partition, segment id, log bytes and
 * custom metadata in a line), the log to copy, how many copies, a small log, how many rounds. Prints a name and a number in a
 * line; memory in KiB.
 */
public final class MemoryBench {
    private static final int BUFFER_BYTES = 1 << 20;
    private static final int SAMPLE_MS = 50;
    private static final Uuid TOPIC = new Uuid(0x0707070707070707L, 0x0707070707070707L);
    /** The callers' buffers: not counted as what reading allocates. */
    private static final ThreadLocal<byte[]> BUFFERS = ThreadLocal.withInitial(() -> new byte[BUFFER_BYTES]);
    private static final ThreadMXBean THREADS = (ThreadMXBean) ManagementFactory.getThreadMXBean();

    private MemoryBench() {}

    public static void main(String[] args) throws Exception {
        print("bare", settled());
        RemoteStorageManager rsm =
                (RemoteStorageManager) Class.forName("io.varve.kafka.VarveRemoteStorageManager")
                        .getDeclaredConstructor().newInstance();
        try {
            rsm.configure(config(Paths.get(args[0])));
            measure(rsm, Files.readAllLines(Paths.get(args[1])), Paths.get(args[2]), Integer.parseInt(args[3]),
                    Paths.get(args[4]), Integer.parseInt(args[5]));
        } finally {
            rsm.close();
        }
        print("closed", settled());
    }

    private static void measure(RemoteStorageManager rsm, List<String> stored, Path log, int copies, Path small,
            int rounds) throws Exception {
        // Classes, threads and connections are there before idle is measured.
        RemoteLogSegmentMetadata first = copy(rsm, 1_000, small);
        read(rsm, first);
        rsm.deleteLogSegmentData(first);
        print("idle", settled());
        for (int round = 0; round < rounds; round++) round(rsm, round + ".", stored, log, copies);
        print("after", settled());
    }

    private static void round(RemoteStorageManager rsm, String name, List<String> stored, Path log, int copies)
            throws Exception {
        CountDownLatch ready = new CountDownLatch(copies + stored.size());
        CountDownLatch go = new CountDownLatch(1);
        ExecutorService pool = Executors.newCachedThreadPool();
        List<RemoteLogSegmentMetadata> copied = Collections.synchronizedList(new ArrayList<>());
        List<Future<Work>> copiers = new ArrayList<>();
        List<Future<Work>> readers = new ArrayList<>();
        for (int i = 0; i < copies; i++) {
            int number = i;
            copiers.add(pool.submit(work(ready, go, () -> {
                copied.add(copy(rsm, number, log));
                return Files.size(log);
            })));
        }
        for (String line : stored) {
            RemoteLogSegmentMetadata segment = stored(line);
            readers.add(pool.submit(work(ready, go, () -> read(rsm, segment))));
        }
        ready.await();
        Sampler sampler = new Sampler();
        sampler.start();
        go.countDown();
        try {
            report(name + "copy", copiers);
            report(name + "read", readers);
        } finally {
            pool.shutdownNow();
            sampler.running = false;
        }
        sampler.join();
        print(name + "peak", sampler.peak);
        print(name + "end", Memory.now());
        for (RemoteLogSegmentMetadata segment : copied) rsm.deleteLogSegmentData(segment);
    }

    /** What a thread did: bytes moved, bytes of heap that it allocated beyond its buffer, and when it ended. */
    private static final class Work {
        long bytes;
        long heapBytes;
        double seconds;
    }

    private static Callable<Work> work(CountDownLatch ready, CountDownLatch go, Callable<Long> job) {
        return () -> {
            Work work = new Work();
            BUFFERS.get();
            ready.countDown();
            go.await();
            long start = System.nanoTime();
            long before = THREADS.getThreadAllocatedBytes(Thread.currentThread().getId());
            work.bytes = job.call();
            work.heapBytes = THREADS.getThreadAllocatedBytes(Thread.currentThread().getId()) - before;
            work.seconds = (System.nanoTime() - start) / 1e9;
            return work;
        };
    }

    private static void report(String name, List<Future<Work>> all) throws Exception {
        long bytes = 0;
        long heapBytes = 0;
        double seconds = 0;
        for (Future<Work> one : all) {
            Work work = one.get();
            bytes += work.bytes;
            heapBytes += work.heapBytes;
            seconds = Math.max(seconds, work.seconds);
        }
        print(name + ".bytes", bytes);
        print(name + ".heap.bytes", heapBytes);
        print(name + ".seconds", seconds);
    }

    private static RemoteLogSegmentMetadata copy(RemoteStorageManager rsm, int number, Path log) throws Exception {
        RemoteLogSegmentMetadata begun = segment(0, new Uuid(1, number), (int) Files.size(log), Optional.empty());
        LogSegmentData files = new LogSegmentData(log, sibling(log, "index"), sibling(log, "timeindex"),
                Optional.empty(), sibling(log, "snapshot"),
                ByteBuffer.wrap("0\n1\n0 0\n".getBytes(StandardCharsets.UTF_8)));
        Optional<CustomMetadata> custom = rsm.copyLogSegmentData(begun, files);
        return segment(0, begun.remoteLogSegmentId().id(), begun.segmentSizeInBytes(), custom);
    }

    private static long read(RemoteStorageManager rsm, RemoteLogSegmentMetadata segment) throws Exception {
        byte[] buffer = BUFFERS.get();
        long bytes = 0;
        try (InputStream in = rsm.fetchLogSegment(segment, 0)) {
            for (int n; (n = in.read(buffer)) >= 0; ) bytes += n;
        }
        if (bytes != segment.segmentSizeInBytes()) {
            throw new IOException(segment.segmentSizeInBytes() + " bytes expected, found " + bytes);
        }
        return bytes;
    }

    private static RemoteLogSegmentMetadata stored(String line) {
        String[] fields = line.split(" ");
        return segment(Integer.parseInt(fields[0]), Uuid.fromString(fields[1]), Integer.parseInt(fields[2]),
                Optional.of(new CustomMetadata(Base64.getUrlDecoder().decode(fields[3]))));
    }

    private static RemoteLogSegmentMetadata segment(int partition, Uuid id, int bytes, Optional<CustomMetadata> custom) {
        TopicIdPartition of = new TopicIdPartition(TOPIC, new TopicPartition("bench", partition));
        RemoteLogSegmentState state = custom.isPresent()
                ? RemoteLogSegmentState.COPY_SEGMENT_FINISHED : RemoteLogSegmentState.COPY_SEGMENT_STARTED;
        return new RemoteLogSegmentMetadata(new RemoteLogSegmentId(of, id), 0, 999, 0, 1, 0, bytes, custom, state,
                Map.of(0, 0L));
    }

    private static Path sibling(Path log, String suffix) {
        return log.resolveSibling(log.getFileName().toString().replaceFirst("log$", suffix));
    }

    private static Map<String, Object> config(Path file) throws IOException {
        Properties given = new Properties();
        try (Reader in = Files.newBufferedReader(file)) {
            given.load(in);
        }
        Map<String, Object> config = new HashMap<>();
        given.forEach((key, value) -> config.put((String) key, value));
        return config;
    }

    /** Resident memory by the kernel's account, in KiB. */
    private static final class Memory {
        long all;
        long anonymous;
        long files;

        static Memory now() throws IOException {
            Memory now = new Memory();
            for (String line : Files.readAllLines(Paths.get("/proc/self/status"))) {
                if (line.startsWith("VmRSS:")) now.all = kib(line);
                if (line.startsWith("RssAnon:")) now.anonymous = kib(line);
                if (line.startsWith("RssFile:")) now.files = kib(line);
            }
            return now;
        }

        private static long kib(String line) {
            String[] words = line.trim().split("\\s+");
            return Long.parseLong(words[1]);
        }
    }

    /** Each 50 ms; keeps the largest. */
    private static final class Sampler extends Thread {
        volatile boolean running = true;
        final Memory peak = new Memory();

        Sampler() {
            super("sampler");
            setDaemon(true);
        }

        @Override
        public void run() {
            try {
                while (running) {
                    Memory now = Memory.now();
                    peak.all = Math.max(peak.all, now.all);
                    peak.anonymous = Math.max(peak.anonymous, now.anonymous);
                    peak.files = Math.max(peak.files, now.files);
                    Thread.sleep(SAMPLE_MS);
                }
            } catch (IOException | InterruptedException e) {
                throw new IllegalStateException(e);
            }
        }
    }

    private static Memory settled() throws Exception {
        System.gc();
        TimeUnit.SECONDS.sleep(1);
        return Memory.now();
    }

    private static void print(String name, Memory memory) {
        print(name + ".kib", memory.all);
        print(name + ".anonymous.kib", memory.anonymous);
        print(name + ".files.kib", memory.files);
    }

    private static void print(String name, double value) {
        System.out.println(name + " " + value);
    }
}
