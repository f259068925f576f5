import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.BooleanSupplier;

import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Members of one group in threads: {@code Groups SERVERS TOPIC ASSIGNOR MEMBERS PARTITIONS STATIC}.
 *
 * <p>All join; each partition is owned once and fairly. One leaves and comes back: a static member
 * without a rebalance of the others, a dynamic one with. Throws when that does not come about.
 */
public final class Groups {
    static final String RANGE = "org.apache.kafka.clients.consumer.RangeAssignor";
    static final long DEADLINE_MS = 60_000;
    /** Longer than anything is waited for: nothing here comes about by the end of a session. */
    private static final int SESSION_MS = 120_000;

    private Groups() {
    }

    static final class Member extends Thread {
        final Set<Integer> owns = ConcurrentHashMap.newKeySet();
        final AtomicInteger changes = new AtomicInteger();
        private final KafkaConsumer<byte[], byte[]> consumer;
        private final String topic;
        private volatile int generation;
        private volatile boolean leaves;
        private volatile RuntimeException failure;

        Member(Properties config, String topic) {
            this.topic = topic;
            consumer = new KafkaConsumer<>(config);
            setDaemon(true);
        }

        @Override
        public void run() {
            ConsumerRebalanceListener listener = new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> parts) {
                    parts.forEach(part -> owns.remove(part.partition()));
                }

                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> parts) {
                    changes.incrementAndGet();
                    parts.forEach(part -> owns.add(part.partition()));
                    generation = consumer.groupMetadata().generationId();
                }
            };
            try (consumer) {
                consumer.subscribe(List.of(topic), listener);
                while (!leaves) {
                    consumer.poll(Duration.ofMillis(50));
                }
            } catch (RuntimeException e) {
                failure = e;
            }
        }

        void leave() throws InterruptedException {
            leaves = true;
            join(DEADLINE_MS);
            if (failure != null) {
                throw failure;
            }
        }
    }

    private static Member member(String[] args, int number) {
        return member(args[0], args[1], args[2], number, Boolean.parseBoolean(args[5]));
    }

    /** A member of the group that is named as its topic is. */
    static Member member(
        String servers, String topic, String assignor, int number, boolean isStatic
    ) {
        Properties config = new Properties();
        config.put(ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, servers);
        config.put(ConsumerConfig.GROUP_ID_CONFIG, topic);
        config.put(ConsumerConfig.PARTITION_ASSIGNMENT_STRATEGY_CONFIG, assignor);
        config.put(ConsumerConfig.KEY_DESERIALIZER_CLASS_CONFIG, ByteArrayDeserializer.class);
        config.put(ConsumerConfig.VALUE_DESERIALIZER_CLASS_CONFIG, ByteArrayDeserializer.class);
        config.put(ConsumerConfig.HEARTBEAT_INTERVAL_MS_CONFIG, 500);
        config.put(ConsumerConfig.SESSION_TIMEOUT_MS_CONFIG, SESSION_MS);
        if (isStatic) {
            config.put(ConsumerConfig.GROUP_INSTANCE_ID_CONFIG, "m" + number);
        }
        Member member = new Member(config, topic);
        member.start();
        return member;
    }

    static void await(String what, BooleanSupplier condition) throws InterruptedException {
        long end = System.currentTimeMillis() + DEADLINE_MS;
        while (!condition.getAsBoolean()) {
            if (System.currentTimeMillis() > end) {
                throw new AssertionError(what + " not within " + DEADLINE_MS + " ms");
            }
            Thread.sleep(20);
        }
    }

    /** Whether each has a fair share, and nobody has yet to hear of the last rebalance. */
    static boolean shared(List<Member> members, int partitions) {
        List<Integer> all = new ArrayList<>();
        int fair = partitions / members.size();
        int generation = members.get(0).generation;
        for (Member member : members) {
            all.addAll(member.owns);
            if (member.owns.size() < fair || member.owns.size() > fair + 1
                || member.generation != generation) {
                return false;
            }
        }
        return all.size() == partitions && Set.copyOf(all).size() == partitions;
    }

    public static void main(String[] args) throws InterruptedException {
        int count = Integer.parseInt(args[3]);
        int partitions = Integer.parseInt(args[4]);
        boolean isStatic = Boolean.parseBoolean(args[5]);
        List<Member> members = new ArrayList<>();
        for (int number = 0; number < count; number++) {
            members.add(member(args, number));
        }
        await("a fair share for all", () -> shared(members, partitions));
        Member gone = members.remove(count - 1);
        Set<Integer> had = Set.copyOf(gone.owns);
        int before = members.get(0).changes.get();
        gone.leave();
        if (!isStatic) {
            await("a fair share for those who stay", () -> shared(members, partitions));
        }
        members.add(member(args, count - 1));
        await("a fair share for all again", () -> shared(members, partitions));
        if (isStatic && members.get(0).changes.get() != before) {
            throw new AssertionError("a static member came back and others noticed");
        }
        if (isStatic && !members.get(count - 1).owns.equals(had)) {
            throw new AssertionError("a static member came back to another share");
        }
        for (Member member : members) {
            member.leave();
        }
        System.out.println("shared");
    }
}
