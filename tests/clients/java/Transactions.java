import java.time.Duration;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.concurrent.Future;

import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidProducerEpochException;
import org.apache.kafka.common.errors.ProducerFencedException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Transactional producers that are told what to do: {@code Transactions MODE ARGS...}.
 *
 * <pre>
 * open SERVERS LABEL TRANSACTIONAL_ID       begin LABEL
 * send LABEL TOPIC PARTITION VALUE...       commit LABEL, abort LABEL, close LABEL
 * read SERVERS TOPIC ISOLATION_LEVEL        prints every value up to the end, one a line
 * transform SERVERS SOURCE SINK GROUP TRANSACTIONAL_ID COUNT
 * </pre>
 *
 * <p>Producers stay open between two runs in one JVM, so that the tools of Kafka can look at what
 * they have under way.
 */
public final class Transactions {
    private static final int DEADLINE_MS = 60_000;
    private static final Map<String, KafkaProducer<String, String>> OPEN = new HashMap<>();

    private Transactions() {
    }

    public static void main(String[] args) throws Exception {
        switch (args[0]) {
            case "open" -> OPEN.put(args[2], producer(args[1], args[3]));
            case "begin" -> OPEN.get(args[1]).beginTransaction();
            case "send" -> send(args);
            case "commit" -> OPEN.get(args[1]).commitTransaction();
            case "abort" -> OPEN.get(args[1]).abortTransaction();
            case "close" -> OPEN.remove(args[1]).close();
            case "read" -> read(args[1], args[2], args[3]);
            case "transform" -> transform(args);
            default -> throw new IllegalArgumentException(args[0]);
        }
    }

    private static KafkaProducer<String, String> producer(String servers, String id) {
        Properties config = new Properties();
        config.put(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, servers);
        config.put(ProducerConfig.TRANSACTIONAL_ID_CONFIG, id);
        config.put(ProducerConfig.LINGER_MS_CONFIG, 0);
        config.put(ProducerConfig.KEY_SERIALIZER_CLASS_CONFIG, StringSerializer.class);
        config.put(ProducerConfig.VALUE_SERIALIZER_CLASS_CONFIG, StringSerializer.class);
        KafkaProducer<String, String> made = new KafkaProducer<>(config);
        made.initTransactions();
        return made;
    }

    /** Sends values and waits until the broker has them all. */
    private static void send(String[] args) throws Exception {
        KafkaProducer<String, String> producer = OPEN.get(args[1]);
        int partition = Integer.parseInt(args[3]);
        List<Future<RecordMetadata>> sent = Arrays.stream(args).skip(4)
            .map(value -> producer.send(new ProducerRecord<>(args[2], partition, null, value)))
            .toList();
        for (Future<RecordMetadata> one : sent) {
            one.get();
        }
    }

    private static KafkaConsumer<String, String> consumer(
        String servers, String group, String isolation
    ) {
        Properties config = new Properties();
        config.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, servers);
        config.put(ConsumerConfig.ISOLATION_LEVEL_CONFIG, isolation);
        config.put(ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false);
        config.put(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG, "earliest");
        config.put(ConsumerConfig.MAX_POLL_RECORDS_CONFIG, 10);
        // Who closes a consumer waits for the fetches that wait at the end.
        config.put(ConsumerConfig.FETCH_MAX_WAIT_MS_CONFIG, 50);
        config.put(ConsumerConfig.KEY_DESERIALIZER_CLASS_CONFIG, StringDeserializer.class);
        config.put(ConsumerConfig.VALUE_DESERIALIZER_CLASS_CONFIG, StringDeserializer.class);
        if (group != null) {
            config.put(ConsumerConfig.GROUP_ID_CONFIG, group);
        }
        return new KafkaConsumer<>(config);
    }

    private static long deadline() {
        return System.currentTimeMillis() + DEADLINE_MS;
    }

    private static void check(long deadline, String what) {
        if (System.currentTimeMillis() > deadline) {
            throw new AssertionError(what + " not within " + DEADLINE_MS + " ms");
        }
    }

    private static void read(String servers, String topic, String isolation) {
        long deadline = deadline();
        try (KafkaConsumer<String, String> consumer = consumer(servers, null, isolation)) {
            List<TopicPartition> parts = consumer.partitionsFor(topic).stream()
                .map(part -> new TopicPartition(topic, part.partition())).toList();
            consumer.assign(parts);
            consumer.seekToBeginning(parts);
            // For read_committed the end is the last stable offset.
            Map<TopicPartition, Long> ends = consumer.endOffsets(parts);
            while (parts.stream().anyMatch(part -> consumer.position(part) < ends.get(part))) {
                check(deadline, "the end of " + topic);
                consumer.poll(Duration.ofMillis(200))
                    .forEach(record -> System.out.println(record.value()));
            }
        }
    }

    /**
     * Consumes COUNT values and produces each once, with a mark, to the same partition. Every
     * seventh transaction is aborted, so that what it did must be undone and done again.
     */
    private static void transform(String[] args) {
        String sink = args[3];
        int count = Integer.parseInt(args[6]);
        // Coordinators die and come back meanwhile.
        long deadline = deadline() + 180_000;
        int done = 0;
        int begun = 0;
        int aborted = 0;
        try (KafkaProducer<String, String> producer = producer(args[1], args[5]);
             KafkaConsumer<String, String> consumer =
                 consumer(args[1], args[4], "read_committed")) {
            consumer.subscribe(List.of(args[2]));
            while (done < count) {
                check(deadline, count + " values, after " + done);
                ConsumerRecords<String, String> found = consumer.poll(Duration.ofMillis(200));
                if (found.isEmpty()) {
                    continue;
                }
                try {
                    producer.beginTransaction();
                    Map<TopicPartition, OffsetAndMetadata> next = copy(producer, sink, found);
                    producer.sendOffsetsToTransaction(next, consumer.groupMetadata());
                    if (++begun % 7 == 0) {
                        throw new KafkaException("on purpose");
                    }
                    producer.commitTransaction();
                    done += found.count();
                } catch (ProducerFencedException | InvalidProducerEpochException fenced) {
                    throw fenced;
                } catch (KafkaException failure) {
                    producer.abortTransaction();
                    goBack(consumer);
                    aborted++;
                }
            }
        }
        System.out.println("aborted " + aborted + " of " + begun + " transactions");
    }

    private static Map<TopicPartition, OffsetAndMetadata> copy(
        KafkaProducer<String, String> producer, String sink, ConsumerRecords<String, String> found
    ) {
        Map<TopicPartition, OffsetAndMetadata> next = new HashMap<>();
        for (ConsumerRecord<String, String> one : found) {
            producer.send(new ProducerRecord<>(sink, one.partition(), null, one.value() + "!"));
            next.put(new TopicPartition(one.topic(), one.partition()),
                new OffsetAndMetadata(one.offset() + 1));
        }
        return next;
    }

    /** To what was committed last. */
    private static void goBack(KafkaConsumer<String, String> consumer) {
        Map<TopicPartition, OffsetAndMetadata> kept = consumer.committed(consumer.assignment());
        kept.forEach((part, next) -> consumer.seek(part, next == null ? 0 : next.offset()));
    }
}
