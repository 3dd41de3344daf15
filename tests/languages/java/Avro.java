import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.io.EncoderFactory;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Reads the values of a topic in Avro, prints them, and writes each to another topic with one text
 * in it changed. Arguments: servers, group, topic, count, schema file, other topic, field, text.
 */
public class Avro {
    private static final int HEAD_BYTES = 5;

    public static void main(String[] args) throws Exception {
        Schema schema = new Schema.Parser().parse(Path.of(args[4]).toFile());
        var bytes = new ByteArraySerializer();
        Map<String, Object> settings = Map.of("bootstrap.servers", args[0]);
        try (var producer = new KafkaProducer<>(settings, bytes, bytes)) {
            for (var record : Reading.records(args[0], args[1], args[2], Integer.parseInt(args[3]))) {
                int id = ByteBuffer.wrap(record.value()).getInt(1);
                GenericRecord value = read(schema, record.value());
                Lines.print(Map.of("id", id, "value", value.toString()));
                value.put(args[6], args[7]);
                byte[] changed = write(schema, id, value);
                producer.send(new ProducerRecord<>(args[5], record.key(), changed)).get();
            }
        }
    }

    private static GenericRecord read(Schema schema, byte[] raw) throws Exception {
        var from = DecoderFactory.get()
                .binaryDecoder(raw, HEAD_BYTES, raw.length - HEAD_BYTES, null);
        var value = new GenericDatumReader<GenericRecord>(schema).read(null, from);
        if (raw[0] != 0 || !from.isEnd()) {
            throw new IllegalStateException("not one Avro value in Confluent's framing");
        }
        return value;
    }

    private static byte[] write(Schema schema, int id, GenericRecord value) throws Exception {
        var out = new ByteArrayOutputStream();
        out.write(ByteBuffer.allocate(HEAD_BYTES).putInt(1, id).array());
        var to = EncoderFactory.get().directBinaryEncoder(out, null);
        new GenericDatumWriter<GenericRecord>(schema).write(value, to);
        to.flush();
        return out.toByteArray();
    }
}
