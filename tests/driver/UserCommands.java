package io.varve.driver;

import static io.varve.driver.Clients.admin;
import static io.varve.driver.Clients.get;
import static io.varve.driver.Clients.text;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.admin.ScramCredentialInfo;
import org.apache.kafka.clients.admin.ScramMechanism;
import org.apache.kafka.clients.admin.UserScramCredentialUpsertion;

/** Who may log in. */
final class UserCommands {
    private static final int ITERATIONS = 4096;

    void register(Map<String, Driver.Command> commands) {
        commands.put("set_scram_user", this::setScram);
    }

    private void setScram(JsonNode in, ObjectNode out) throws Exception {
        var info = new ScramCredentialInfo(ScramMechanism.fromMechanismName(text(in, "mechanism")), ITERATIONS);
        var user = new UserScramCredentialUpsertion(text(in, "user"), info, text(in, "password"));
        get(admin(in).alterUserScramCredentials(List.of(user)).all());
    }
}
