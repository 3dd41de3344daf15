import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Sends a record for each line of its input (key, value, headers), and prints where the client put
 * it. Arguments: servers, topic. Everything about the producer is as it comes.
 */
public class Writer {
    public static void main(String[] args) throws Exception {
        Map<String, Object> settings = new HashMap<>(Map.of("bootstrap.servers", args[0]));
        var bytes = new ByteArraySerializer();
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (var producer = new KafkaProducer<>(settings, bytes, bytes)) {
            for (var line = Lines.next(); line != null; line = Lines.next()) {
                sent.add(producer.send(record(args[1], line)));
            }
            for (var each : sent) {
                RecordMetadata place = each.get();
                Lines.print(Map.of("partition", place.partition(), "offset", place.offset()));
            }
        }
    }

    @SuppressWarnings("unchecked")
    private static ProducerRecord<byte[], byte[]> record(String topic, Map<String, Object> line) {
        var record = new ProducerRecord<>(
                topic, Lines.bytes(line.get("key")), Lines.bytes(line.get("value")));
        var headers = (Map<String, String>) line.getOrDefault("headers", Map.of());
        headers.forEach((name, said) -> record.headers().add(name, Lines.bytes(said)));
        return record;
    }
}
