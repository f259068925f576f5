import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;

import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CopyOnWriteArrayList;

import org.apache.kafka.common.utils.Exit;

import static java.nio.charset.StandardCharsets.UTF_8;

/**
 * Runs Kafka's command line tools one after another in one JVM, because the start of a JVM takes
 * longer than most of them run.
 *
 * <p>Reads lines of JSON, {"main": class, "args": [...], "stdin": text}, and answers each with
 * {"exit": code, "out": text, "err": text}. A tool that calls Kafka's Exit ends only itself.
 */
public final class Launcher {
    private static final ObjectMapper JSON = new ObjectMapper();

    /** What the tool that runs wants done at its end: mostly the closing of its client. */
    private static final List<Runnable> HOOKS = new CopyOnWriteArrayList<>();

    /** What a tool prints goes to whoever runs now; some classes keep the first System.out. */
    private static final class Switch extends OutputStream {
        private volatile OutputStream target = OutputStream.nullOutputStream();

        @Override
        public void write(int b) throws java.io.IOException {
            target.write(b);
        }

        @Override
        public void write(byte[] bytes, int from, int length) throws java.io.IOException {
            target.write(bytes, from, length);
        }
    }

    private static final class Exited extends RuntimeException {
        private static final long serialVersionUID = 1;

        Exited() {
            super("exit", null, false, false);
        }
    }

    /** The first code given to Exit: some tools catch whatever is thrown and exit once more. */
    private static Integer exitCode;

    private Launcher() {
    }

    private static synchronized void exit(int code, String message) {
        if (exitCode == null) {
            exitCode = code;
            if (message != null) {
                System.err.println(message);
            }
        }
        throw new Exited();
    }

    public static void main(String[] words) throws Exception {
        PrintStream answers = System.out;
        BufferedReader asked = new BufferedReader(new InputStreamReader(System.in, UTF_8));
        Switch out = new Switch();
        Switch err = new Switch();
        System.setOut(new PrintStream(out, true, UTF_8));
        System.setErr(new PrintStream(err, true, UTF_8));
        Exit.setExitProcedure(Launcher::exit);
        Exit.setHaltProcedure(Launcher::exit);
        Exit.setShutdownHookAdder((name, body) -> HOOKS.add(body));
        for (String line = asked.readLine(); line != null; line = asked.readLine()) {
            ByteArrayOutputStream told = new ByteArrayOutputStream();
            ByteArrayOutputStream complained = new ByteArrayOutputStream();
            out.target = told;
            err.target = complained;
            ObjectNode answer = JSON.createObjectNode();
            answer.put("exit", run(JSON.readTree(line)));
            System.out.flush();
            System.err.flush();
            answer.put("out", told.toString(UTF_8));
            answer.put("err", complained.toString(UTF_8));
            answers.println(JSON.writeValueAsString(answer));
            answers.flush();
        }
        Runtime.getRuntime().halt(0);
    }

    private static int run(JsonNode asked) {
        List<String> args = new ArrayList<>();
        asked.get("args").forEach(word -> args.add(word.asText()));
        System.setIn(new ByteArrayInputStream(asked.get("stdin").asText().getBytes(UTF_8)));
        synchronized (Launcher.class) {
            exitCode = null;
        }
        int code = 0;
        try {
            Class.forName(asked.get("main").asText())
                .getMethod("main", String[].class)
                .invoke(null, (Object) args.toArray(new String[0]));
        } catch (InvocationTargetException failure) {
            if (!(failure.getCause() instanceof Exited)) {
                failure.getCause().printStackTrace();
                code = 70;
            }
        } catch (ReflectiveOperationException failure) {
            failure.printStackTrace();
            code = 71;
        }
        HOOKS.forEach(Runnable::run);
        HOOKS.clear();
        synchronized (Launcher.class) {
            return exitCode == null ? code : exitCode;
        }
    }
}
