package io.varve.kafka;

/** A failure on the native side. Made there, by this name and this constructor: keep both. */
final class NativeException extends Exception {
    static final int INVALID = 1;
    static final int NOT_FOUND = 2;
    static final int CORRUPT = 3;
    static final int DENIED = 4;
    static final int RETRY = 5;
    static final int CANCELLED = 6;
    static final int CLOSED = 7;
    static final int INTERNAL = 8;
    static final int CONFIG = 9;
    static final int NO_SPACE = 10;
    /** Like RETRY, but something was left: the broker must call delete, so never retriable. */
    static final int UNCLEAN = 11;

    private static final long serialVersionUID = 1L;

    final int kind;

    NativeException(int kind, String message) {
        // No Java stack: the cause lies on the other side, and the exception that wraps this one has it.
        super(message, null, false, false);
        this.kind = kind;
    }
}
