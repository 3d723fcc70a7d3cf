package io.varve.kafka;

import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;

/**
 * Waits for one native operation so that an interrupt ends the wait within a bounded time: native code
 * can't see Thread.interrupt, so it is waited for in short slices.
 */
final class Operation {
    /** An operation that can be waited for: the native one, or a test's. */
    interface Handle {
        boolean await(long timeoutMs) throws NativeException;

        byte[] result() throws NativeException;

        void cancel() throws NativeException;
    }

    /** What an interrupt does. */
    enum OnInterrupt {
        /** The work is given up at once. */
        CANCEL,
        /**
         * The work may still end within the grace. A delete needs this: the broker's cleanup after an
         * interrupted copy runs on the same thread, which is still marked as interrupted.
         */
        FINISH
    }

    static final class Interrupted extends Exception {
        private static final long serialVersionUID = 1L;

        Interrupted(String message) {
            super(message);
        }
    }

    private static final long SLICE_MS = 50;
    private static final long GRACE_MS = 5_000;

    /** Operations that outlived their waiter: taken in by {@link #reap}, else their results would leak. */
    private static final Queue<Handle> ABANDONED = new ConcurrentLinkedQueue<>();

    private Operation() {}

    static byte[] await(long id, OnInterrupt onInterrupt) throws NativeException, Interrupted {
        return await(of(id), onInterrupt, GRACE_MS);
    }

    static byte[] await(Handle handle, OnInterrupt onInterrupt, long graceMs) throws NativeException, Interrupted {
        boolean interrupted = false;
        try {
            while (!handle.await(SLICE_MS)) {
                if (!Thread.interrupted()) continue;
                interrupted = true;
                if (onInterrupt == OnInterrupt.FINISH && endsWithin(handle, graceMs)) break;
                cancel(handle, graceMs);
            }
            return handle.result();
        } finally {
            if (interrupted) Thread.currentThread().interrupt();
        }
    }

    private static void cancel(Handle handle, long graceMs) throws NativeException, Interrupted {
        handle.cancel();
        if (!endsWithin(handle, graceMs)) {
            ABANDONED.add(handle);
            throw new Interrupted("cancelled: interrupted; it had not ended after " + graceMs + " ms");
        }
        // Its outcome no longer matters, even if it won the race: told of a failure, the broker deletes
        // the object; told of a success, it would fail to say so in its metadata and delete nothing.
        try {
            handle.result();
        } catch (NativeException expected) {
            // Cancelled, as asked.
        }
        throw new Interrupted("cancelled: interrupted");
    }

    private static boolean endsWithin(Handle handle, long timeoutMs) throws NativeException {
        long deadline = System.nanoTime() + timeoutMs * 1_000_000;
        do {
            if (handle.await(SLICE_MS)) return true;
        } while (System.nanoTime() < deadline);
        return false;
    }

    /** Frees the results of abandoned operations that have ended. */
    static void reap() {
        ABANDONED.removeIf(handle -> {
            try {
                if (!handle.await(0)) return false;
                handle.result();
            } catch (NativeException e) {
                // It failed, or its manager was closed: either way it is gone.
            }
            return true;
        });
    }

    private static Handle of(long id) {
        return new Handle() {
            @Override
            public boolean await(long timeoutMs) throws NativeException {
                return Native.await(id, timeoutMs);
            }

            @Override
            public byte[] result() throws NativeException {
                return Native.result(id);
            }

            @Override
            public void cancel() throws NativeException {
                Native.cancel(id);
            }
        };
    }
}
