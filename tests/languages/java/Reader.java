import io.cloudevents.CloudEvent;
import io.cloudevents.kafka.CloudEventDeserializer;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;

/**
 * Prints the records of a topic as the client gives them, and what the CloudEvents SDK makes of
 * each. Arguments: servers, group, topic, count.
 */
public class Reader {
    public static void main(String[] args) throws Exception {
        int count = Integer.parseInt(args[3]);
        try (var events = new CloudEventDeserializer()) {
            for (var record : Reading.records(args[0], args[1], args[2], count)) {
                Lines.print(line(record, events));
            }
        }
    }

    private static Map<String, Object> line(
            ConsumerRecord<byte[], byte[]> record, CloudEventDeserializer events) {
        var line = new LinkedHashMap<String, Object>();
        line.put("key", Lines.text(record.key()));
        line.put("partition", record.partition());
        line.put("offset", record.offset());
        line.put("value", Lines.text(record.value()));
        var headers = new ArrayList<List<String>>();
        record.headers().forEach(h -> headers.add(List.of(h.key(), Lines.text(h.value()))));
        line.put("headers", headers);
        boolean told = record.headers().lastHeader("ce_specversion") != null;
        line.put("event", told ? event(record, events) : null);
        return line;
    }

    private static Map<String, Object> event(
            ConsumerRecord<byte[], byte[]> record, CloudEventDeserializer events) {
        CloudEvent event = events.deserialize(record.topic(), record.headers(), record.value());
        var told = new LinkedHashMap<String, Object>();
        told.put("specversion", event.getSpecVersion().toString());
        told.put("id", event.getId());
        told.put("type", event.getType());
        told.put("source", event.getSource().toString());
        told.put("at", event.getTime() == null ? null : event.getTime().toInstant().toEpochMilli());
        told.put("content", event.getDataContentType());
        told.put("data", event.getData() == null ? null : Lines.text(event.getData().toBytes()));
        return told;
    }
}
