import java.io.FileReader;
import java.io.Reader;
import java.util.Properties;

import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.Metric;
import org.apache.kafka.common.MetricName;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * A producer that proves who it is again and again over one connection (KIP-368):
 * {@code Reauthentication PROPERTIES SERVERS TOPIC TIMES}.
 *
 * <p>It repeats nothing that fails, so a connection that is closed under it is an error.
 */
public final class Reauthentication {
    private static final long DEADLINE_MS = 60_000;

    private Reauthentication() {
    }

    public static void main(String[] args) throws Exception {
        Properties config = new Properties();
        try (Reader file = new FileReader(args[0])) {
            config.load(file);
        }
        config.put("bootstrap.servers", args[1]);
        config.put("enable.idempotence", "false");
        config.put("retries", "0");
        config.put("key.serializer", StringSerializer.class.getName());
        config.put("value.serializer", StringSerializer.class.getName());
        double times = Double.parseDouble(args[3]);
        long end = System.currentTimeMillis() + DEADLINE_MS;
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(config)) {
            send(producer, args[2]);
            double connections = total(producer, "connection-creation-total");
            while (total(producer, "successful-reauthentication-total") < times) {
                if (System.currentTimeMillis() > end) {
                    throw new AssertionError("not within " + DEADLINE_MS + " ms");
                }
                send(producer, args[2]);
            }
            send(producer, args[2]);
            if (total(producer, "failed-reauthentication-total") != 0
                || total(producer, "connection-creation-total") != connections) {
                throw new AssertionError("another connection took over");
            }
        }
        System.out.println("proven");
    }

    private static void send(KafkaProducer<String, String> producer, String topic)
        throws Exception {
        producer.send(new ProducerRecord<>(topic, 0, null, "value")).get();
        Thread.sleep(10);
    }

    private static double total(KafkaProducer<String, String> producer, String name) {
        for (Metric metric : producer.metrics().values()) {
            MetricName of = metric.metricName();
            if (of.name().equals(name) && of.group().equals("producer-metrics")) {
                return (double) metric.metricValue();
            }
        }
        throw new AssertionError("no metric " + name);
    }
}
