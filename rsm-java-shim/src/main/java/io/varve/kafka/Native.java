package io.varve.kafka;

/**
 * The whole border to the native library. Operations, streams and managers are ids in a table on the
 * other side: an id that is unknown or closed gives a {@link NativeException} of kind CLOSED, never a crash.
 * Byte strings are big-endian as {@link SegmentCodec} writes them.
 */
final class Native {
    static final int INDEX_OFFSET = 0;
    static final int INDEX_TIMESTAMP = 1;
    static final int INDEX_TRANSACTION = 2;
    static final int INDEX_PRODUCER_SNAPSHOT = 3;
    static final int INDEX_LEADER_EPOCH = 4;

    private Native() {}

    static native String version();

    static native long open(byte[] config) throws NativeException;

    /** Idempotent; waits a bounded time for what is in flight. */
    static native void close(long rsm) throws NativeException;

    // Each starts an operation and returns its handle at once.
    static native long copy(long rsm, byte[] request) throws NativeException;

    static native long fetchIndex(long rsm, byte[] metadata, int type) throws NativeException;

    static native long delete(long rsm, byte[] metadata) throws NativeException;

    /** True once the operation has ended. Blocks for at most {@code timeoutMs}, deaf to interrupts. */
    static native boolean await(long operation, long timeoutMs) throws NativeException;

    /** Once, after the end: what the operation gave (may be null), or its failure. Frees the handle. */
    static native byte[] result(long operation) throws NativeException;

    /** Asks for an early end; await and result follow as usual. */
    static native void cancel(long operation) throws NativeException;

    /** Does no IO yet. The end is inclusive and clamped; Long.MAX_VALUE means the segment's end. */
    static native long openStream(long rsm, byte[] metadata, long start, long endInclusive) throws NativeException;

    /** Bytes read, -1 at the end, 0 when nothing came within {@code timeoutMs}. */
    static native int read(long stream, byte[] dst, int off, int len, long timeoutMs) throws NativeException;

    static native long skip(long stream, long n) throws NativeException;

    static native int available(long stream) throws NativeException;

    /** Idempotent. */
    static native void closeStream(long stream) throws NativeException;

    /** The next log line (int level, string logger, string message), or null when none came in time. */
    static native byte[] nextLog(long timeoutMs) throws NativeException;

    /** int n, n x (string bean, int m, m x (string attribute, double value)). */
    static native byte[] metrics(long rsm) throws NativeException;
}
