import java.io.BufferedReader;
import java.io.InputStreamReader;

/** What the drivers of Java's libraries share: the lines they read and write. See doc.go. */
abstract class Driver {
    final BufferedReader in = new BufferedReader(new InputStreamReader(System.in));
    String host, version, clientId, subscription;
    int port;

    static synchronized void say(Object... words) {
        StringBuilder line = new StringBuilder();
        for (Object w : words) {
            line.append(line.length() == 0 ? "" : " ").append(w);
        }
        System.out.println(line);
        System.out.flush();
    }

    abstract void connect() throws Exception;

    /** Publishes one message and says acked when the library calls it complete. */
    abstract void publish(String topic, int qos, int n) throws Exception;

    abstract void disconnect() throws Exception;

    void run() throws Exception {
        String[] words = in.readLine().split(" ");
        host = words[0];
        port = Integer.parseInt(words[1]);
        version = words[2];
        clientId = words[3];
        subscription = words[4];
        connect();
        for (String line; (line = in.readLine()) != null; ) {
            words = line.split(" ");
            int first = Integer.parseInt(words[2]);
            for (int n = first; n < first + Integer.parseInt(words[3]); n++) {
                publish(words[0], Integer.parseInt(words[1]), n);
            }
        }
        disconnect();
        System.exit(0);
    }
}
