import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.Scanner;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.StringSerializer;

/** Sends a record for each line of its input, and prints the partition that the client chose. */
public class Keys {
    public static void main(String[] args) throws Exception {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", args[0]);
        settings.put("key.serializer", StringSerializer.class.getName());
        settings.put("value.serializer", StringSerializer.class.getName());
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        Scanner lines = new Scanner(System.in, StandardCharsets.UTF_8);
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(settings)) {
            while (lines.hasNextLine()) {
                sent.add(producer.send(new ProducerRecord<>(args[1], lines.nextLine(), "{}")));
            }
            for (Future<RecordMetadata> each : sent) {
                System.out.println(each.get().partition());
            }
        }
    }
}
