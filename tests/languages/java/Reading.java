import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/** A member of a group that reads a topic from its beginning until it has seen enough. */
final class Reading {
    private static final long SECONDS_MAX = 30;

    private Reading() {}

    static List<ConsumerRecord<byte[], byte[]>> records(
            String servers, String group, String topic, int count) {
        Map<String, Object> settings = Map.of(
                "bootstrap.servers", servers,
                "group.id", group,
                "auto.offset.reset", "earliest");
        var bytes = new ByteArrayDeserializer();
        var found = new ArrayList<ConsumerRecord<byte[], byte[]>>();
        long until = System.nanoTime() + Duration.ofSeconds(SECONDS_MAX).toNanos();
        try (var consumer = new KafkaConsumer<>(settings, bytes, bytes)) {
            consumer.subscribe(List.of(topic));
            while (found.size() < count) {
                if (System.nanoTime() > until) {
                    throw new IllegalStateException(found.size() + " of " + count + " records");
                }
                consumer.poll(Duration.ofMillis(200)).forEach(found::add);
            }
        }
        return found;
    }
}
