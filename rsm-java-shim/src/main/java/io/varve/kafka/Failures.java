package io.varve.kafka;

import java.io.IOException;
import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.MethodType;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.config.ConfigException;
import org.apache.kafka.server.log.remote.storage.RemoteResourceNotFoundException;
import org.apache.kafka.server.log.remote.storage.RemoteStorageException;

/** Which Java exception a native failure becomes. The native text is always kept. */
final class Failures {
    private static final String RETRIABLE =
            "org.apache.kafka.server.log.remote.storage.RetriableRemoteStorageException";

    /** Null before Kafka 4.2, which brought the class. */
    private static final MethodHandle NEW_RETRIABLE = findRetriable();

    private Failures() {}

    /** For copy and delete: the broker may try again sooner, and without counting a failure. */
    static RemoteStorageException ofWrite(String what, NativeException e) {
        if (e.kind == NativeException.RETRY && NEW_RETRIABLE != null) {
            try {
                return (RemoteStorageException) NEW_RETRIABLE.invoke(text(what, e), (Throwable) e);
            } catch (Throwable ignored) {
                // Falls through to the class that every version has.
            }
        }
        return ofRead(what, e);
    }

    static RemoteStorageException ofRead(String what, NativeException e) {
        return e.kind == NativeException.NOT_FOUND
                ? new RemoteResourceNotFoundException(text(what, e), e)
                : new RemoteStorageException(text(what, e), e);
    }

    /**
     * For streams. Brokers of 3.9 to 4.3 catch every Exception around a remote read, log it and answer
     * that partition with an error; the reading methods declare IOException, so that is what they get.
     */
    static IOException ofStream(NativeException e) {
        return new IOException(e.getMessage(), e);
    }

    static KafkaException ofOpen(NativeException e) {
        return e.kind == NativeException.CONFIG || e.kind == NativeException.INVALID
                ? new ConfigException(e.getMessage())
                : new KafkaException("opening the Varve remote storage manager: " + e.getMessage(), e);
    }

    /**
     * An unchecked exception would leave the broker without its cleanup delete, so none leaves a method
     * of the contract.
     */
    static RemoteStorageException unexpected(String what, Throwable e) {
        return new RemoteStorageException(what + ": " + e, e);
    }

    private static String text(String what, NativeException e) {
        return what + ": " + e.getMessage();
    }

    private static MethodHandle findRetriable() {
        try {
            Class<?> type = Class.forName(RETRIABLE, true, RemoteStorageException.class.getClassLoader());
            return MethodHandles.publicLookup().findConstructor(
                    type, MethodType.methodType(void.class, String.class, Throwable.class));
        } catch (ReflectiveOperationException | LinkageError e) {
            return null;
        }
    }
}
