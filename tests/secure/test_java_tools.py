"""Kafka's own tools over TLS and SCRAM: kafka-acls, kafka-configs for users and quotas, console
producer and consumer."""

import re

import pytest
from confluent_kafka.admin import AdminClient
from jvm import Jvm
from support.secured import ADMIN, DEADLINE, java_properties, produce
from support.wait import wait_until
from test_authentication import refusal

TOOLS = "org.apache.kafka.tools."
ACLS = TOOLS + "AclCommand"
CONFIGS = "kafka.admin.ConfigCommand"
MECHANISM = "SCRAM-SHA-512"


@pytest.fixture(scope="module")
def jvm(tmp_path_factory):
    one = Jvm("4.1.1", tmp_path_factory.mktemp("java-secured"))
    yield one
    one.close()


class Tools:
    """The tools as one user."""

    def __init__(self, jvm, client, file):
        file.write_text(java_properties(client))
        self.jvm, self.servers, self.file = jvm, client["bootstrap.servers"], file

    def __call__(self, main, *words, option="--command-config", **options):
        return self.jvm.run(main, "--bootstrap-server", self.servers, option, self.file, *words,
                            **options)


@pytest.fixture
def admin(jvm, secured, tmp_path):
    """The tools as the administrator."""
    client = secured.client(*ADMIN, mechanism=MECHANISM)
    return Tools(jvm, client, tmp_path / "admin.properties")


@pytest.fixture
def user(secured, name):
    """Settings of a user that all nodes know, and its principal."""
    client = secured.user(name) | {"sasl.mechanism": MECHANISM}
    wait_let_in(client)
    return client, f"User:{name}"


def wait_let_in(client):
    """Every node lets the client in."""
    def let_in():
        for server in client["bootstrap.servers"].split(","):
            AdminClient({**client, "bootstrap.servers": server}).list_topics(timeout=5)
        return True
    wait_until(let_in, DEADLINE, "a user that every node knows")


def test_console_producer_and_consumer(jvm, admin, user, name, tmp_path):
    client, principal = user
    told = admin(TOOLS + "TopicCommand", "--create", "--topic", name, "--partitions", 3)
    assert f"Created topic {name}." in told
    admin(ACLS, "--add", "--allow-principal", principal, "--producer", "--topic", name)
    admin(ACLS, "--add", "--allow-principal", principal, "--consumer", "--topic", name,
          "--group", name)
    tools = Tools(jvm, client, tmp_path / "user.properties")
    lines = [f"line {number}" for number in range(20)]
    tools(TOOLS + "ConsoleProducer", "--topic", name, option="--producer.config",
          stdin="\n".join(lines) + "\n")
    told = tools(TOOLS + "consumer.ConsoleConsumer", "--topic", name, "--group", name,
                 "--from-beginning", "--max-messages", 20, "--timeout-ms", 30_000,
                 option="--consumer.config")
    assert sorted(told.splitlines()) == sorted(lines)
    wrong = Tools(jvm, {**client, "sasl.password": "wrong"}, tmp_path / "wrong.properties")
    told = wrong(TOOLS + "TopicCommand", "--list", code=1)
    assert f"invalid credentials with SASL mechanism {MECHANISM}" in told
    # Who has no right to the cluster may not look at the entries.
    told = tools(ACLS, "--list", code=1)
    assert "ClusterAuthorizationException" in told


def test_acls_are_added_listed_and_removed(admin, user, name):
    client, principal = user
    admin(TOOLS + "TopicCommand", "--create", "--topic", name)
    assert produce(client, name).name() == "TOPIC_AUTHORIZATION_FAILED"
    allowed = ["--allow-principal", principal, "--operation", "Write", "--topic", name]
    told = admin(ACLS, "--add", *allowed)
    assert entry(principal, "127.0.0.1", "WRITE", "ALLOW") not in told
    assert entry(principal, "*", "WRITE", "ALLOW") in told
    admin(ACLS, "--add", "--deny-principal", principal, "--deny-host", "10.1.2.3",
          "--operation", "Read", "--topic", name[:5], "--resource-pattern-type", "prefixed")
    wait_until(lambda: produce(client, name) is None, DEADLINE, "the right")

    def listed(*words):
        told = admin(ACLS, "--list", *words)
        heads = r"resourceType=(\w+), name=(\S+), patternType=(\w+)"
        return set(re.findall(heads, told)), told

    literal, prefixed = ("TOPIC", name, "LITERAL"), ("TOPIC", name[:5], "PREFIXED")
    assert listed("--topic", name)[0] == {literal}
    found, told = listed("--principal", principal)
    assert found == {literal, prefixed}
    assert entry(principal, "*", "WRITE", "ALLOW") in told
    assert entry(principal, "10.1.2.3", "READ", "DENY") in told
    found, _ = listed("--topic", name, "--resource-pattern-type", "match")
    assert {literal, prefixed} <= found
    admin(ACLS, "--remove", "--force", *allowed)
    wait_until(lambda: produce(client, name) is not None, DEADLINE, "the end of the right")
    assert listed("--principal", principal)[0] == {prefixed}
    admin(ACLS, "--remove", "--force", "--topic", name[:5], "--resource-pattern-type", "prefixed")
    assert listed("--principal", principal)[0] == set()


def entry(principal, host, operation, permission):
    """An entry as kafka-acls prints it."""
    return (f"(principal={principal}, host={host}, operation={operation}, "
            f"permissionType={permission})")


def test_users_are_made_told_and_removed(admin, secured, name):
    who = ["--entity-type", "users", "--entity-name", name]
    made = f"{MECHANISM}=[iterations=8192,password=wonderland]"
    told = admin(CONFIGS, *who, "--alter", "--add-config", made)
    assert f"Completed updating config for user {name}." in told
    client = secured.client(name, "wonderland", mechanism=MECHANISM)
    wait_let_in(client)
    told = admin(CONFIGS, *who, "--describe")
    assert f"SCRAM credential configs for user-principal '{name}' are {MECHANISM}=" \
        "iterations=8192" in told
    # It has no verifier of the other mechanism.
    assert "invalid credentials" in refusal(secured.client(name, "wonderland"))
    told = admin(CONFIGS, *who, "--alter", "--add-config",
                 f"{MECHANISM}=[iterations=20000,password=x]", code=1)
    assert "Too many iterations" in told
    admin(CONFIGS, *who, "--alter", "--delete-config", MECHANISM)
    assert MECHANISM not in admin(CONFIGS, *who, "--describe")
    told = admin(CONFIGS, *who, "--alter", "--delete-config", MECHANISM, code=1)
    assert "does not exist" in told
    for server in secured.cluster.kafka:
        alone = {**client, "bootstrap.servers": server}
        wait_until(lambda: "invalid credentials" in refusal(alone), DEADLINE,
                   "a node that knows the user no more")


def test_quotas_of_users_and_clients(admin, name):
    user = ["--entity-type", "users", "--entity-name", name]
    client = ["--entity-type", "clients", "--entity-name", f"client-{name}"]
    default = ["--entity-type", "clients", "--entity-default"]

    def quotas(*who):
        told = admin(CONFIGS, *who, "--describe")
        line = r"Quota configs for (.*) are (.*)"
        return {of: dict(one.split("=") for one in values.split(", "))
                for of, values in re.findall(line, told)}

    def alter(*words):
        admin(CONFIGS, "--alter", *words)

    of_user, of_client = f"user-principal '{name}'", f"client-id 'client-{name}'"
    alter(*user, "--add-config", "producer_byte_rate=10000,consumer_byte_rate=20000")
    alter(*client, "--add-config", "request_percentage=50")
    alter(*user, *client, "--add-config", "producer_byte_rate=30000")
    alter(*user, *default, "--add-config", "producer_byte_rate=40000")
    assert quotas(*user) == {
        of_user: {"producer_byte_rate": "10000.0", "consumer_byte_rate": "20000.0"}}
    assert quotas(*client) == {of_client: {"request_percentage": "50.0"}}
    assert quotas(*user, *client) == {
        f"{of_user}, {of_client}": {"producer_byte_rate": "30000.0"}}
    assert quotas(*user, "--entity-type", "clients") == {
        f"{of_user}, {of_client}": {"producer_byte_rate": "30000.0"},
        f"{of_user}, the default client-id": {"producer_byte_rate": "40000.0"}}
    alter(*user, "--delete-config", "producer_byte_rate")
    assert quotas(*user) == {of_user: {"consumer_byte_rate": "20000.0"}}
    told = admin(CONFIGS, "--alter", *user, "--add-config", "speed=1", code=1)
    assert "speed" in told
    alter(*user, "--delete-config", "consumer_byte_rate")
    alter(*client, "--delete-config", "request_percentage")
    for second in (client, default):
        alter(*user, *second, "--delete-config", "producer_byte_rate")
    for who in (user, client, [*user, "--entity-type", "clients"]):
        assert quotas(*who) == {}
