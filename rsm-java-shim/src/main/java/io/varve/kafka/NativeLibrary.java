package io.varve.kafka;

import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.Paths;
import java.nio.file.StandardCopyOption;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.stream.Collectors;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.config.ConfigException;

/**
 * Finds and loads the native library, once per class loader. A JVM ties a library to one path and one
 * loader, and several managers may live in one JVM, so each load extracts a file of its own. It is
 * unlinked as soon as it is mapped: even kill -9 leaves nothing behind, but in the instant between.
 */
final class NativeLibrary {
    static final String PATH_CONFIG = "native.library.path";
    static final String DIR_CONFIG = "native.library.dir";
    static final String FILE = "libvarve_rsm.so";
    static final List<String> PLATFORMS =
            List.of("linux-x86_64-gnu", "linux-x86_64-musl", "linux-aarch64-gnu", "linux-aarch64-musl");

    private static boolean loaded;

    private NativeLibrary() {}

    static synchronized void load(Map<String, ?> configs) {
        if (loaded) return;
        Object ready = configs.get(PATH_CONFIG);
        if (ready != null) {
            loadReady(String.valueOf(ready));
        } else {
            Object dir = configs.get(DIR_CONFIG);
            loadExtracted(Paths.get(dir == null ? System.getProperty("java.io.tmpdir") : String.valueOf(dir)));
        }
        loaded = true;
    }

    private static void loadReady(String path) {
        Path file = Paths.get(path).toAbsolutePath();
        if (!Files.isRegularFile(file)) {
            throw new ConfigException(PATH_CONFIG, path, "no such file; it names a ready " + FILE);
        }
        try {
            System.load(file.toString());
        } catch (UnsatisfiedLinkError e) {
            throw new KafkaException("loading " + file + " (" + PATH_CONFIG + ") on " + platform() + ": "
                    + e.getMessage(), e);
        }
    }

    private static void loadExtracted(Path dir) {
        String platform = platform();
        Path file = null;
        try (InputStream in = NativeLibrary.class.getResourceAsStream(resource(platform))) {
            if (in == null) throw new KafkaException(missing(platform, packaged()));
            file = Files.createTempFile(Files.createDirectories(dir), "libvarve_rsm-", ".so");
            Files.copy(in, file, StandardCopyOption.REPLACE_EXISTING);
            System.load(file.toAbsolutePath().toString());
        } catch (IOException e) {
            throw new KafkaException("extracting the native library for " + platform + " into " + dir + ": " + e
                    + "; set " + DIR_CONFIG + " to a folder that the broker may write to", e);
        } catch (UnsatisfiedLinkError e) {
            throw new KafkaException("loading the native library for " + platform + " from " + dir + ": "
                    + e.getMessage() + "; if the folder is mounted noexec, set " + DIR_CONFIG
                    + " to one that is not", e);
        } finally {
            deleteQuietly(file);
        }
    }

    private static void deleteQuietly(Path file) {
        try {
            if (file != null) Files.deleteIfExists(file);
        } catch (IOException e) {
            file.toFile().deleteOnExit();
        }
    }

    static String missing(String platform, List<String> packaged) {
        return "no native library for " + platform + ": this jar holds "
                + (packaged.isEmpty() ? "none" : String.join(", ", packaged))
                + "; use a varve-rsm.jar built for " + platform + " (cargo xtask dist --platform " + platform
                + "), or set " + PATH_CONFIG + " to a " + FILE + " built for it";
    }

    private static List<String> packaged() {
        return PLATFORMS.stream().filter(p -> NativeLibrary.class.getResource(resource(p)) != null)
                .collect(Collectors.toList());
    }

    private static String resource(String platform) {
        return "/io/varve/native/" + platform + "/" + FILE;
    }

    private static String platform() {
        String maps;
        try {
            maps = Files.readString(Paths.get("/proc/self/maps"));
        } catch (IOException e) {
            maps = "";
        }
        return platform(System.getProperty("os.name"), System.getProperty("os.arch"), maps);
    }

    /** What is mapped says which C library this JVM runs on; no tool needs to be asked. */
    static String platform(String osName, String osArch, String maps) {
        String os = osName.toLowerCase(Locale.ROOT).replace(' ', '-');
        String arch = osArch.equals("amd64") ? "x86_64" : osArch.equals("arm64") ? "aarch64" : osArch;
        boolean musl = maps.contains("/ld-musl-") || maps.contains("/libc.musl-");
        return os + "-" + arch + (os.equals("linux") ? (musl ? "-musl" : "-gnu") : "");
    }
}
