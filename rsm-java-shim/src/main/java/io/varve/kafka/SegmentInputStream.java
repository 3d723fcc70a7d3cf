package io.varve.kafka;

import java.io.IOException;
import java.io.InputStream;
import java.io.InterruptedIOException;
import java.lang.ref.Cleaner;
import java.util.Objects;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.function.BooleanSupplier;

/**
 * A segment's bytes, copied once: from the native cache into the caller's array. Lazy: opening asks for
 * nothing. Brokers read a part and close early; what was fetched stays in the native cache.
 */
final class SegmentInputStream extends InputStream {
    private static final long SLICE_MS = 50;
    private static final Cleaner CLEANER = Cleaner.create();

    private final Handle handle;
    private final Cleaner.Cleanable cleanable;
    private final BooleanSupplier managerOpen;
    private final byte[] one = new byte[1];

    /** A reader that waits while the manager is closed must not wait for ever: it is asked in each slice. */
    SegmentInputStream(long stream, BooleanSupplier managerOpen) {
        this.managerOpen = managerOpen;
        handle = new Handle(stream);
        cleanable = CLEANER.register(this, handle);
    }

    @Override
    public int read() throws IOException {
        return read(one, 0, 1) < 0 ? -1 : one[0] & 0xff;
    }

    @Override
    public int read(byte[] dst, int off, int len) throws IOException {
        Objects.checkFromIndexSize(off, len, dst.length);
        if (len == 0) return 0;
        try {
            while (true) {
                int n = Native.read(stream(), dst, off, len, SLICE_MS);
                if (n != 0) return n;
                if (Thread.currentThread().isInterrupted()) {
                    throw new InterruptedIOException("reading a remote segment: interrupted");
                }
            }
        } catch (NativeException e) {
            throw Failures.ofStream(e);
        }
    }

    @Override
    public long skip(long n) throws IOException {
        if (n <= 0) return 0;
        try {
            return Native.skip(stream(), n);
        } catch (NativeException e) {
            throw Failures.ofStream(e);
        }
    }

    @Override
    public int available() throws IOException {
        try {
            return Native.available(stream());
        } catch (NativeException e) {
            throw Failures.ofStream(e);
        }
    }

    private long stream() throws IOException {
        if (!managerOpen.getAsBoolean()) {
            throw new IOException("reading a remote segment: the remote storage manager is closed");
        }
        if (handle.closed.get()) throw new IOException("reading a remote segment: the stream is closed");
        return handle.stream;
    }

    @Override
    public void close() {
        cleanable.clean();
    }

    /** Apart from the stream, so that the cleaner can close one that its reader forgot. */
    private static final class Handle implements Runnable {
        private final long stream;
        private final AtomicBoolean closed = new AtomicBoolean();

        Handle(long stream) {
            this.stream = stream;
        }

        @Override
        public void run() {
            if (!closed.compareAndSet(false, true)) return;
            try {
                Native.closeStream(stream);
            } catch (NativeException e) {
                // Its manager was closed first, and took the stream along.
            }
        }
    }
}
