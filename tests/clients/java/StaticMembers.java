import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;

import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.MemberToRemove;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupResult;
import org.apache.kafka.common.errors.UnknownMemberIdException;

/**
 * Static members that an administrator removes by their group.instance.id:
 * {@code StaticMembers SERVERS TOPIC}, the topic with six partitions.
 *
 * <p>Sessions last longer than anything is waited for, so nothing comes about by their end.
 */
public final class StaticMembers {
    private static final int PARTITIONS = 6;

    private StaticMembers() {
    }

    public static void main(String[] args) throws Exception {
        String group = args[1];
        Properties config = new Properties();
        config.put("bootstrap.servers", args[0]);
        List<Groups.Member> members = new ArrayList<>();
        for (int number = 0; number < 3; number++) {
            members.add(Groups.member(args[0], group, Groups.RANGE, number, true));
        }
        try (Admin admin = Admin.create(config)) {
            Groups.await("a fair share for all", () -> Groups.shared(members, PARTITIONS));
            members.remove(2).leave();
            check(instances(admin, group), "m0", "m1", "m2");

            remove(admin, group, "m2").all().get(Groups.DEADLINE_MS, TimeUnit.MILLISECONDS);
            Groups.await("the share of who was removed", () -> Groups.shared(members, PARTITIONS));
            check(instances(admin, group), "m0", "m1");

            strangersAreTold(admin, group);
            whoLivesComesBack(admin, group, members);
            for (Groups.Member member : members) {
                member.leave();
            }
            check(instances(admin, group), "m0", "m1");
            admin.removeMembersFromConsumerGroup(
                group, new RemoveMembersFromConsumerGroupOptions()
            ).all().get(Groups.DEADLINE_MS, TimeUnit.MILLISECONDS);
            check(instances(admin, group));
        }
        System.out.println("removed");
    }

    private static RemoveMembersFromConsumerGroupResult remove(
        Admin admin, String group, String... instances
    ) {
        Set<MemberToRemove> chosen =
            Set.of(instances).stream().map(MemberToRemove::new).collect(Collectors.toSet());
        return admin.removeMembersFromConsumerGroup(
            group, new RemoveMembersFromConsumerGroupOptions(chosen));
    }

    private static Set<String> instances(Admin admin, String group) throws Exception {
        ConsumerGroupDescription told = admin.describeConsumerGroups(List.of(group)).all()
            .get(Groups.DEADLINE_MS, TimeUnit.MILLISECONDS).get(group);
        return told.members().stream().map(member -> member.groupInstanceId().orElse("none"))
            .collect(Collectors.toSet());
    }

    private static void check(Set<String> found, String... expected) {
        if (!found.equals(Set.of(expected))) {
            throw new AssertionError(found + " instead of " + List.of(expected));
        }
    }

    private static void strangersAreTold(Admin admin, String group) throws Exception {
        RemoveMembersFromConsumerGroupResult result = remove(admin, group, "nobody");
        try {
            result.memberResult(new MemberToRemove("nobody"))
                .get(Groups.DEADLINE_MS, TimeUnit.MILLISECONDS);
            throw new AssertionError("a stranger was removed");
        } catch (ExecutionException failure) {
            if (!(failure.getCause() instanceof UnknownMemberIdException)) {
                throw failure;
            }
        }
    }

    /** A member that is removed while it lives joins again. */
    private static void whoLivesComesBack(Admin admin, String group, List<Groups.Member> members)
        throws Exception {
        int before = members.get(1).changes.get();
        remove(admin, group, "m1").all().get(Groups.DEADLINE_MS, TimeUnit.MILLISECONDS);
        Groups.await("the return of who was removed", () ->
            members.get(1).changes.get() > before && Groups.shared(members, PARTITIONS));
        check(instances(admin, group), "m0", "m1");
    }
}
