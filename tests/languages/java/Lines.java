import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Map;

/** What goes in and out of the programs: a JSON value a line. */
final class Lines {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final PrintStream OUT = new PrintStream(System.out, true, StandardCharsets.UTF_8);
    private static final BufferedReader IN =
            new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));

    private Lines() {}

    static void print(Map<String, ?> line) throws IOException {
        OUT.println(JSON.writeValueAsString(line));
    }

    /** The next line's value, null at the end. */
    @SuppressWarnings("unchecked")
    static Map<String, Object> next() throws IOException {
        String line = IN.readLine();
        return line == null ? null : JSON.readValue(line, Map.class);
    }

    static String text(byte[] raw) {
        return raw == null ? null : new String(raw, StandardCharsets.UTF_8);
    }

    static byte[] bytes(Object text) {
        return text == null ? null : ((String) text).getBytes(StandardCharsets.UTF_8);
    }
}
