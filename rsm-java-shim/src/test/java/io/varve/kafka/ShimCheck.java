package io.varve.kafka;

import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicIdPartition;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigException;
import org.apache.kafka.common.config.types.Password;
import org.apache.kafka.server.log.remote.storage.LogSegmentData;
import org.apache.kafka.server.log.remote.storage.RemoteLogSegmentId;
import org.apache.kafka.server.log.remote.storage.RemoteLogSegmentMetadata;
import org.apache.kafka.server.log.remote.storage.RemoteLogSegmentMetadata.CustomMetadata;
import org.apache.kafka.server.log.remote.storage.RemoteLogSegmentState;
import org.apache.kafka.server.log.remote.storage.RemoteResourceNotFoundException;
import org.apache.kafka.server.log.remote.storage.RemoteStorageException;
import org.apache.kafka.server.log.remote.storage.RemoteStorageManager.IndexType;

/**
 * What the shim does without its native half, on whichever broker's jars are on the class path.
 * A plain main, run by {@code cargo xtask test} under each supported version: no test framework needed.
 */
public final class ShimCheck {
    private static int checks;

    private ShimCheck() {}

    public static void main(String[] args) throws Exception {
        codecKeepsEveryField();
        configIsSortedAndUnmasked();
        failuresBecomeTheContractsExceptions();
        indexTypesAreMappedByName();
        rangesAreChecked();
        lifecycleIsTyped();
        interruptCancelsACopy();
        interruptLetsADeleteFinish();
        stuckOperationsAreAbandonedAndReaped();
        platformsAreTold();
        metricsAreDecodedAndNamed();
        System.out.println("ShimCheck: " + checks + " checks passed, retriable exception "
                + (retriableExists() ? "present" : "absent"));
    }

    private static void codecKeepsEveryField() throws IOException {
        ByteBuffer epochs = ByteBuffer.wrap("xx0\n1\n0 0\n".getBytes(StandardCharsets.UTF_8));
        epochs.position(2);
        Path dir = Paths.get("/data/ü-0");
        LogSegmentData data = new LogSegmentData(dir.resolve("1.log"), dir.resolve("1.index"),
                dir.resolve("1.timeindex"), Optional.empty(), dir.resolve("1.snapshot"), epochs);
        DataInputStream in = in(SegmentCodec.copyRequest(metadata(new byte[] {7, 8}), data));
        same(in.readLong(), new Uuid(1, 2).getMostSignificantBits());
        same(in.readLong(), 2L);
        same(LogPump.string(in), "töpic");
        same(in.readInt(), 3);
        same(in.readLong(), 4L);
        same(in.readLong(), 5L);
        same(in.readLong(), 100L);
        same(in.readLong(), 199L);
        same(in.readLong(), 1_700L);
        same(in.readLong(), 1_800L);
        same(in.readInt(), 9);
        same(in.readInt(), 4_096);
        same(in.readInt(), 2);
        same(in.readInt(), 0);
        same(in.readLong(), 100L);
        same(in.readInt(), 6);
        same(in.readLong(), 150L);
        same(in.readInt(), 2);
        same(in.readShort(), (short) 0x0708);
        same(LogPump.string(in), "/data/ü-0/1.log");
        same(LogPump.string(in), "/data/ü-0/1.index");
        same(LogPump.string(in), "/data/ü-0/1.timeindex");
        same(in.readInt(), -1);
        same(LogPump.string(in), "/data/ü-0/1.snapshot");
        same(LogPump.string(in), "0\n1\n0 0\n");
        same(in.read(), -1);
        same(epochs.position(), 2);

        byte[] none = SegmentCodec.metadata(metadata(null));
        same(ByteBuffer.wrap(none, none.length - 4, 4).getInt(), -1);
    }

    private static void configIsSortedAndUnmasked() throws IOException {
        Map<String, Object> configs = new HashMap<>();
        configs.put("store.url", "file:///x");
        configs.put("broker.id", 4);
        configs.put("s3.secret", new Password("hush"));
        configs.put("absent", null);
        DataInputStream in = in(SegmentCodec.config(configs));
        same(in.readInt(), 3);
        for (String text : List.of("broker.id", "4", "s3.secret", "hush", "store.url", "file:///x")) {
            same(LogPump.string(in), text);
        }
    }

    private static void failuresBecomeTheContractsExceptions() {
        for (int kind = NativeException.INVALID; kind <= NativeException.NO_SPACE; kind++) {
            NativeException cause = new NativeException(kind, "chunk 3 of x.varve");
            RemoteStorageException read = Failures.ofRead("fetching", cause);
            same(read.getMessage(), "fetching: chunk 3 of x.varve");
            same(read.getCause(), cause);
            same(read instanceof RemoteResourceNotFoundException, kind == NativeException.NOT_FOUND);
            RemoteStorageException write = Failures.ofWrite("copying", cause);
            same(write.getMessage(), "copying: chunk 3 of x.varve");
            same(write.getClass().getSimpleName().equals("RetriableRemoteStorageException"),
                    kind == NativeException.RETRY && retriableExists());
            same(Failures.ofStream(cause).getMessage(), "chunk 3 of x.varve");
        }
        same(Failures.ofOpen(new NativeException(NativeException.CONFIG, "store.url: bad")).getClass(),
                ConfigException.class);
        same(Failures.ofOpen(new NativeException(NativeException.DENIED, "no")).getClass(), KafkaException.class);
        same(Failures.unexpected("copying", new NullPointerException("x")).getClass(), RemoteStorageException.class);
    }

    private static boolean retriableExists() {
        try {
            Class.forName("org.apache.kafka.server.log.remote.storage.RetriableRemoteStorageException");
            return true;
        } catch (ClassNotFoundException e) {
            return false;
        }
    }

    private static void indexTypesAreMappedByName() {
        same(VarveRemoteStorageManager.nativeType(IndexType.OFFSET), 0);
        same(VarveRemoteStorageManager.nativeType(IndexType.TIMESTAMP), 1);
        same(VarveRemoteStorageManager.nativeType(IndexType.TRANSACTION), 2);
        same(VarveRemoteStorageManager.nativeType(IndexType.PRODUCER_SNAPSHOT), 3);
        same(VarveRemoteStorageManager.nativeType(IndexType.LEADER_EPOCH), 4);
        same(IndexType.values().length, 5);
    }

    private static void rangesAreChecked() {
        VarveRemoteStorageManager.checkRange(0, 0);
        VarveRemoteStorageManager.checkRange(5, Long.MAX_VALUE);
        fails(IllegalArgumentException.class, "negative", () -> VarveRemoteStorageManager.checkRange(-1, 5));
        fails(IllegalArgumentException.class, "before start", () -> VarveRemoteStorageManager.checkRange(6, 5));
    }

    private static void lifecycleIsTyped() {
        VarveRemoteStorageManager rsm = new VarveRemoteStorageManager();
        RemoteLogSegmentMetadata metadata = metadata(null);
        fails(RemoteStorageException.class, "not configured", () -> rsm.fetchIndex(metadata, IndexType.OFFSET));
        fails(RemoteStorageException.class, "negative", () -> rsm.fetchLogSegment(metadata, -1));
        fails(RemoteStorageException.class, "before start", () -> rsm.fetchLogSegment(metadata, 2, 1));
        fails(RemoteStorageException.class, "not configured", () -> rsm.copyLogSegmentData(metadata, null));
        // No native library is on this class path, and the error has to say so.
        fails(KafkaException.class, "no native library for linux-", () -> rsm.configure(Map.of()));
        fails(ConfigException.class, "no such file",
                () -> rsm.configure(Map.of("native.library.path", "/nowhere/libvarve_rsm.so")));
        rsm.close();
        rsm.close();
        fails(RemoteStorageException.class, "closed", () -> rsm.deleteLogSegmentData(metadata));
        fails(IllegalStateException.class, "closed", () -> rsm.configure(Map.of()));
    }

    /** Ends once asked to, or after some waits, or never. */
    private static final class Fake implements Operation.Handle {
        private int waits;
        private final int endsAfterWaits;
        private final boolean heedsCancel;
        private boolean cancelled;
        private boolean taken;

        Fake(int endsAfterWaits, boolean heedsCancel) {
            this.endsAfterWaits = endsAfterWaits;
            this.heedsCancel = heedsCancel;
        }

        @Override
        public boolean await(long timeoutMs) {
            return waits++ >= endsAfterWaits || (cancelled && heedsCancel);
        }

        @Override
        public byte[] result() throws NativeException {
            taken = true;
            if (cancelled) throw new NativeException(NativeException.CANCELLED, "cancelled");
            return new byte[] {1};
        }

        @Override
        public void cancel() {
            cancelled = true;
        }
    }

    private static void interruptCancelsACopy() throws Exception {
        Fake fake = new Fake(Integer.MAX_VALUE, true);
        Thread.currentThread().interrupt();
        fails(Operation.Interrupted.class, "cancelled: interrupted",
                () -> Operation.await(fake, Operation.OnInterrupt.CANCEL, 1_000));
        same(Thread.interrupted(), true);
        same(fake.cancelled && fake.taken, true);

        Fake done = new Fake(3, true);
        same(Arrays.equals(Operation.await(done, Operation.OnInterrupt.CANCEL, 1_000), new byte[] {1}), true);
        same(Thread.interrupted(), false);
    }

    private static void interruptLetsADeleteFinish() throws Exception {
        Fake fake = new Fake(5, true);
        Thread.currentThread().interrupt();
        same(Arrays.equals(Operation.await(fake, Operation.OnInterrupt.FINISH, 1_000), new byte[] {1}), true);
        same(Thread.interrupted(), true);
        same(fake.cancelled, false);
    }

    private static void stuckOperationsAreAbandonedAndReaped() {
        Fake fake = new Fake(Integer.MAX_VALUE, false);
        Thread.currentThread().interrupt();
        fails(Operation.Interrupted.class, "had not ended after 20 ms",
                () -> Operation.await(fake, Operation.OnInterrupt.CANCEL, 20));
        same(Thread.interrupted(), true);
        Operation.reap();
        same(fake.taken, false);
        fake.waits = Integer.MAX_VALUE;
        Operation.reap();
        same(fake.taken, true);
    }

    private static void platformsAreTold() {
        String musl = "7f-7f r-xp 0 0 1 /lib/ld-musl-x86_64.so.1\n";
        same(NativeLibrary.platform("Linux", "amd64", "/usr/lib/libc.so.6"), "linux-x86_64-gnu");
        same(NativeLibrary.platform("Linux", "amd64", musl), "linux-x86_64-musl");
        same(NativeLibrary.platform("Linux", "aarch64", ""), "linux-aarch64-gnu");
        same(NativeLibrary.platform("Mac OS X", "aarch64", ""), "mac-os-x-aarch64");
        String text = NativeLibrary.missing("linux-aarch64-musl", List.of("linux-x86_64-gnu"));
        same(text.contains("this jar holds linux-x86_64-gnu"), true);
        same(text.contains("--platform linux-aarch64-musl"), true);
    }

    private static void metricsAreDecodedAndNamed() throws Exception {
        ByteArrayOutputStream memory = new ByteArrayOutputStream();
        DataOutputStream out = new DataOutputStream(memory);
        out.writeInt(1);
        out.writeInt(14);
        out.writeBytes("operation=copy");
        out.writeInt(1);
        out.writeInt(5);
        out.writeBytes("Count");
        out.writeDouble(2.5);
        same(NativeMetrics.decode(memory.toByteArray()), Map.of("operation=copy", Map.of("Count", 2.5)));
        same(NativeMetrics.objectName("1", 1, "operation=copy,topic=a.b-c_d").toString(),
                "io.varve.kafka:type=RemoteStorageManager,broker=1,operation=copy,topic=a.b-c_d");
        same(NativeMetrics.objectName("1", 2, "operation=a:b").toString(),
                "io.varve.kafka:type=RemoteStorageManager,broker=1,instance=2,operation=\"a:b\"");
    }

    private static RemoteLogSegmentMetadata metadata(byte[] custom) {
        TopicIdPartition partition = new TopicIdPartition(new Uuid(1, 2), new TopicPartition("töpic", 3));
        Map<Integer, Long> epochs = new HashMap<>(Map.of(6, 150L, 0, 100L));
        return new RemoteLogSegmentMetadata(new RemoteLogSegmentId(partition, new Uuid(4, 5)), 100, 199, 1_700, 9,
                1_800, 4_096, Optional.ofNullable(custom).map(CustomMetadata::new),
                RemoteLogSegmentState.COPY_SEGMENT_STARTED, epochs);
    }

    private static DataInputStream in(byte[] bytes) {
        return new DataInputStream(new ByteArrayInputStream(bytes));
    }

    private interface Action {
        void run() throws Exception;
    }

    private static void fails(Class<? extends Exception> type, String text, Action action) {
        checks++;
        try {
            action.run();
        } catch (Exception e) {
            if (e.getClass() == type && String.valueOf(e.getMessage()).contains(text)) return;
            throw new AssertionError("expected " + type.getSimpleName() + " with '" + text + "', found " + e, e);
        }
        throw new AssertionError("expected " + type.getSimpleName() + " with '" + text + "', nothing was thrown");
    }

    private static void same(Object found, Object expected) {
        checks++;
        if (!Objects.equals(found, expected)) {
            throw new AssertionError("expected " + expected + ", found " + found);
        }
    }
}
