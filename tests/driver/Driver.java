package io.varve.driver;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/**
 * A Kafka client that is told what to do on its standard input.
 *
 * <p>One JSON object a line comes in: {@code {"id": 1, "op": "produce", …}}. One a line goes out, in the order of
 * completion: {@code {"id": 1, "ok": {…}}} or {@code {"id": 1, "error": "…"}}. Commands run side by side; end of
 * input ends the program, so that it never outlives whoever started it.
 */
public final class Driver {
    private static final ObjectMapper JSON = new ObjectMapper();

    /** What one command does: arguments in, answer into {@code out}. */
    interface Command {
        void run(JsonNode args, ObjectNode out) throws Exception;
    }

    public static void main(String[] args) throws Exception {
        PrintStream answers = new PrintStream(new FileOutputStream(FileDescriptor.out), true, StandardCharsets.UTF_8);
        System.setOut(System.err); // nothing but answers may reach the standard output

        Ledger ledger = new Ledger();
        Map<String, Command> commands = new TreeMap<>();
        new TopicCommands(ledger).register(commands);
        new ProduceCommands(ledger).register(commands);
        new ConsumeCommands(ledger).register(commands);
        new TierCommands().register(commands);
        new UserCommands().register(commands);
        commands.put("ping", (in, out) -> out.put("pong", true));

        ExecutorService threads = Executors.newCachedThreadPool();
        BufferedReader requests = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = requests.readLine(); line != null; line = requests.readLine()) {
            JsonNode request = JSON.readTree(line);
            threads.execute(() -> {
                String answer = answer(commands, request).toString();
                synchronized (answers) {
                    answers.println(answer);
                }
            });
        }
        System.exit(0);
    }

    private static ObjectNode answer(Map<String, Command> commands, JsonNode request) {
        ObjectNode answer = JSON.createObjectNode();
        answer.set("id", request.get("id"));
        String op = request.path("op").asText();
        try {
            Command command = commands.get(op);
            if (command == null) {
                throw new IllegalArgumentException("no command " + op + "; there are " + commands.keySet());
            }
            ObjectNode out = JSON.createObjectNode();
            command.run(request, out);
            answer.set("ok", out);
        } catch (Throwable e) {
            System.err.println("command failed: " + request);
            e.printStackTrace();
            answer.put("error", op + ": " + causes(e));
        }
        return answer;
    }

    /** The whole chain of causes in one line. */
    static String causes(Throwable e) {
        StringBuilder text = new StringBuilder();
        for (Throwable cause = e; cause != null; cause = cause.getCause()) {
            text.append(text.length() == 0 ? "" : " <- ").append(cause.getClass().getSimpleName()).append(": ").append(cause.getMessage());
        }
        return text.toString();
    }

    private Driver() {}
}
