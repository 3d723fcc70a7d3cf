package io.varve.kafka;

import java.io.ByteArrayInputStream;
import java.io.DataInputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * The shim's one thread per loaded library, alive while a manager is open: hands native log lines to the
 * broker's SLF4J, and every few seconds lets beans come and go and frees abandoned operations.
 */
final class LogPump implements Runnable {
    private static final Logger LOG = LoggerFactory.getLogger(LogPump.class);
    private static final long POLL_MS = 500;
    private static final long HOUSEKEEPING_NS = 5_000_000_000L;
    private static final long JOIN_MS = 2_000;
    /** Bounded, so that a flood of lines can't hold up the broker's shutdown. */
    private static final int DRAIN_LINES = 10_000;

    private static final List<NativeMetrics> WATCHED = new CopyOnWriteArrayList<>();
    private static int users;
    private static LogPump pump;

    private final Thread thread = new Thread(this, "varve-log-pump");
    private volatile boolean running = true;

    static synchronized void acquire() {
        if (users++ > 0) return;
        pump = new LogPump();
        pump.thread.setDaemon(true);
        pump.thread.start();
    }

    static synchronized void release() {
        if (--users > 0) return;
        LogPump last = pump;
        pump = null;
        last.running = false;
        try {
            last.thread.join(JOIN_MS);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    static void watch(NativeMetrics metrics) {
        WATCHED.add(metrics);
    }

    static void unwatch(NativeMetrics metrics) {
        WATCHED.remove(metrics);
    }

    @Override
    public void run() {
        long nextHousekeeping = System.nanoTime();
        while (running) {
            try {
                pollOnce();
                if (System.nanoTime() - nextHousekeeping >= 0) {
                    nextHousekeeping = System.nanoTime() + HOUSEKEEPING_NS;
                    WATCHED.forEach(NativeMetrics::discover);
                    Operation.reap();
                }
            } catch (NativeException | RuntimeException e) {
                LOG.warn("a native log line or metric was lost", e);
                pause();
            }
        }
        drain();
    }

    private static void pollOnce() throws NativeException {
        long before = System.nanoTime();
        byte[] line = Native.nextLog(POLL_MS);
        if (line != null) {
            emit(line);
        } else if (System.nanoTime() - before < 1_000_000) {
            // The native side has shut its log down and no longer waits.
            pause();
        }
    }

    private static void drain() {
        try {
            byte[] line;
            for (int i = 0; i < DRAIN_LINES && (line = Native.nextLog(0)) != null; i++) emit(line);
        } catch (NativeException | RuntimeException e) {
            LOG.warn("the last native log lines were lost", e);
        }
    }

    private static void pause() {
        try {
            Thread.sleep(POLL_MS);
        } catch (InterruptedException e) {
            // Nobody interrupts this thread to stop it; see release.
        }
    }

    static void emit(byte[] line) {
        try (DataInputStream in = new DataInputStream(new ByteArrayInputStream(line))) {
            int level = in.readInt();
            Logger logger = LoggerFactory.getLogger(string(in));
            String message = string(in);
            switch (level) {
                case 0: logger.error(message); break;
                case 1: logger.warn(message); break;
                case 2: logger.info(message); break;
                case 3: logger.debug(message); break;
                default: logger.trace(message);
            }
        } catch (IOException e) {
            LOG.warn("a native log line of {} bytes can't be decoded", line.length, e);
        }
    }

    static String string(DataInputStream in) throws IOException {
        int length = in.readInt();
        byte[] bytes = in.readNBytes(length);
        if (bytes.length != length) throw new IOException("expected " + length + " bytes, found " + bytes.length);
        return new String(bytes, StandardCharsets.UTF_8);
    }
}
