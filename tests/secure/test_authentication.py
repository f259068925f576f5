"""Who is let in: PLAIN, SCRAM and certificates, good and bad."""

import json
import socket
import ssl
import struct
import subprocess

import pytest
from cryptography import x509
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import (
    AdminClient, ScramCredentialInfo, ScramMechanism, UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)
from support.secured import ADMIN, DEADLINE, Secured, produce, settings
from support.paths import python_of
from support.wait import wait_until

MECHANISMS = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]


def refusal(client):
    """What the client's library says of why it was not let in."""
    said = []
    admin = AdminClient({**client, "error_cb": lambda error: said.append(str(error))})

    def heard():
        admin.poll(0.1)
        return said

    wait_until(heard, DEADLINE, "a reason")
    with pytest.raises(KafkaException):
        admin.list_topics(timeout=0.5)
    return " ".join(said)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_the_right_password_is_let_in_and_a_wrong_one_not(secured, name, mechanism):
    assert produce(secured.client(*ADMIN, mechanism=mechanism), name) is None
    text = refusal(secured.client(ADMIN[0], "wrong", mechanism=mechanism))
    if mechanism == "PLAIN":
        assert "Authentication failed: Invalid username or password" in text
    else:
        assert f"due to invalid credentials with SASL mechanism {mechanism}" in text


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_an_unknown_user_is_refused_in_the_same_words(secured, mechanism):
    wrong = refusal(secured.client(ADMIN[0], "wrong", mechanism=mechanism))
    unknown = refusal(secured.client("nobody", "wrong", mechanism=mechanism))
    reason = wrong[wrong.index("uthentication failed"):].split("(after")[0]
    assert reason in unknown


def test_a_mechanism_that_is_not_offered_is_named(secured):
    text = refusal(secured.client(*ADMIN, mechanism="OAUTHBEARER",
                                  **{"enable.sasl.oauthbearer.unsecure.jwt": True}))
    assert "OAUTHBEARER" in text


PYTHON_CLIENT = """
import sys, kafka
servers, ca, mechanism, user, password, topic = sys.argv[1:]
options = dict(bootstrap_servers=servers.split(","), security_protocol="SASL_SSL",
               ssl_cafile=ca, sasl_mechanism=mechanism, sasl_plain_username=user,
               sasl_plain_password=password)
producer = kafka.KafkaProducer(acks="all", **options)
producer.send(topic, b"value").get(30)
producer.close()
consumer = kafka.KafkaConsumer(topic, auto_offset_reset="earliest", group_id=topic,
                               consumer_timeout_ms=30000, **options)
assert next(consumer).value == b"value"
consumer.close()
print(kafka.__version__)
"""


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("venv, version", [("kafka2", "2.0.2"), ("main", "3.")])
def test_kafka_python(secured, name, venv, version, mechanism):
    done = subprocess.run(
        [python_of(venv), "-c", PYTHON_CLIENT, secured.servers,
         secured.certificates.path("ca.pem"), mechanism, *ADMIN, name],
        capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.startswith(version)


def test_kcat_over_sasl_ssl(secured, name, tmp_path):
    # A user without a comma in its password, which kcat takes for the next setting.
    settings = secured.user(f"kcat-{name}") | {"sasl.mechanism": "SCRAM-SHA-512"}
    rights = [(right, "TOPIC", name) for right in ("CREATE", "WRITE", "READ")]
    secured.allow(f"User:kcat-{name}", *rights)
    wait_until(lambda: AdminClient(settings).list_topics(timeout=5), DEADLINE, "the user")
    file = tmp_path / "kcat.conf"
    file.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    words = ["kcat", "-F", str(file)]
    subprocess.run([*words, "-P", "-t", name], input=b"a\nb\n", check=True, timeout=60)
    read = subprocess.run([*words, "-C", "-t", name, "-e", "-q"], check=True, timeout=60,
                          stdout=subprocess.PIPE)
    assert sorted(read.stdout.split()) == [b"a", b"b"]
    told = subprocess.run([*words, "-L", "-J"], check=True, timeout=60, stdout=subprocess.PIPE)
    brokers = {b["name"] for b in json.loads(told.stdout)["brokers"]}
    assert brokers == set(secured.cluster.kafka), "each listener tells its own addresses"


def test_a_certificate_is_a_principal(secured, name):
    tls = {"bootstrap.servers": secured.tls_servers, "security.protocol": "SSL",
           "ssl.ca.location": secured.certificates.path("ca.pem")}
    client = {**tls, **secured.certificates.issue_client(f"client-{name}")}
    pem = open(client["ssl.certificate.location"], "rb").read()
    subject = x509.load_pem_x509_certificate(pem).subject.rfc4514_string()
    # Java, and therefore Kafka, escapes this sign everywhere.
    principal = "User:" + subject.replace("#", "\\#")
    assert f"CN=client-{name}" in principal
    denied = produce(client, name)
    assert denied is not None and denied.name() == "TOPIC_AUTHORIZATION_FAILED"
    secured.allow(principal, ("WRITE", "TOPIC", name), ("CREATE", "TOPIC", name))
    assert produce(client, name) is None
    brokers = AdminClient(client).list_topics(timeout=DEADLINE).brokers.values()
    assert {f"{b.host}:{b.port}" for b in brokers} == set(secured.tls_servers.split(","))
    with pytest.raises(KafkaException):
        AdminClient(tls).list_topics(timeout=5)


def frame(key, version, body=b""):
    request = struct.pack(">hhih", key, version, 7, -1) + body
    return struct.pack(">i", len(request)) + request


def connect(secured):
    host, port = secured.cluster.kafka[0].split(":")
    context = ssl.create_default_context(cafile=secured.certificates.path("ca.pem"))
    plain = socket.create_connection((host, int(port)), timeout=DEADLINE)
    return context.wrap_socket(plain, server_hostname=host)


def received(stream):
    def exactly(count):
        data = b""
        while len(data) < count:
            more = stream.recv(count - len(data))
            if not more:
                return None
            data += more
        return data
    size = exactly(4)
    return size and exactly(struct.unpack(">i", size)[0])


METADATA = frame(3, 1, struct.pack(">i", -1))


def test_nobody_asks_anything_before_authentication(secured):
    with connect(secured) as stream:
        stream.sendall(METADATA)
        assert received(stream) is None, "closed without an answer"
    with connect(secured) as stream:
        stream.sendall(frame(18, 0))
        assert received(stream)[4:6] == b"\0\0"
        stream.sendall(METADATA)
        assert received(stream) is None
    with connect(secured) as stream:
        stream.sendall(frame(17, 1, b"\0\x05PLAIN"))
        assert received(stream)[4:6] == b"\0\0"
        stream.sendall(METADATA)
        assert received(stream) is None, "only tokens may follow a handshake"


def test_old_clients_send_bare_tokens(secured):
    token = f"\0{ADMIN[0]}\0{ADMIN[1]}".encode()
    with connect(secured) as stream:
        stream.sendall(frame(17, 0, b"\0\x05PLAIN"))
        assert received(stream)[4:6] == b"\0\0"
        stream.sendall(struct.pack(">i", len(token)) + token)
        assert received(stream) == b""
        stream.sendall(METADATA)
        assert received(stream)[:4] == struct.pack(">i", 7)
    with connect(secured) as stream:
        stream.sendall(frame(17, 0, b"\0\x05PLAIN"))
        received(stream)
        stream.sendall(struct.pack(">i", 8) + b"\0admin\0x")
        assert received(stream) is None


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", METADATA, b"\x16\x03\x01" * 50])
def test_bytes_that_are_no_tls_close_the_connection(secured, garbage):
    host, port = secured.cluster.kafka[0].split(":")
    with socket.create_connection((host, int(port)), timeout=DEADLINE) as stream:
        stream.sendall(garbage)
        try:
            stream.shutdown(socket.SHUT_WR)
            while stream.recv(4096):
                pass
        except ConnectionError:
            pass  # closed as well, only sooner
    assert secured.cluster.node(1).get("/healthz").status_code == 200


def test_users_by_the_command_line(secured, name):
    client = secured.user(name)
    listed = json.loads(secured.cluster.run("-o", "json", "user", "list").stdout)
    assert {"name": name, "mechanisms": ["SCRAM-SHA-256", "SCRAM-SHA-512"],
            "iterations": 4096} in listed
    wait_until(lambda: AdminClient(client).list_topics(timeout=5), DEADLINE, "the user")
    assert secured.cluster.run("user", "delete", name).returncode == 0
    gone = secured.cluster.run("user", "delete", name)
    assert gone.returncode == 1 and "does not exist" in gone.stderr
    assert "invalid credentials" in refusal(client)


def test_users_by_kafka_survive_and_are_known_everywhere(own_cluster, certificates, name):
    secured = Secured(own_cluster(sets=settings(certificates)), certificates)
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 8192)
    change = UserScramCredentialUpsertion(name, info, b"wonderland")
    secured.admin.alter_user_scram_credentials([change])[name].result(DEADLINE)
    told = secured.admin.describe_user_scram_credentials([name])[name].result(DEADLINE)
    assert [(i.mechanism, i.iterations) for i in told.scram_credential_infos] == \
        [(ScramMechanism.SCRAM_SHA_512, 8192)]

    def known_by_all():
        for address in secured.cluster.kafka:
            client = secured.client(name, "wonderland", mechanism="SCRAM-SHA-512",
                                    **{"bootstrap.servers": address})
            AdminClient(client).list_topics(timeout=5)
        return True

    wait_until(known_by_all, DEADLINE, "the user on every node")
    for node in secured.cluster.nodes:
        node.kill()
    for node in secured.cluster.nodes:
        node.start()
    secured.cluster.wait_ready()
    wait_until(known_by_all, DEADLINE, "the user after all nodes were killed")
    secured.admin = AdminClient(secured.client(*ADMIN))
    for bad, words in [
        (ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 100), "Too few iterations"),
        (ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 99999), "Too many iterations"),
    ]:
        change = UserScramCredentialUpsertion(name, bad, b"x")
        with pytest.raises(KafkaException, match=words):
            secured.admin.alter_user_scram_credentials([change])[name].result(DEADLINE)
    gone = UserScramCredentialDeletion(name, ScramMechanism.SCRAM_SHA_512)
    secured.admin.alter_user_scram_credentials([gone])[name].result(DEADLINE)
    with pytest.raises(KafkaException, match="does not exist"):
        secured.admin.describe_user_scram_credentials([name])[name].result(DEADLINE)


def served(address, certificates):
    """Serial number of the certificate that a node shows."""
    host, port = address.split(":")
    context = ssl.create_default_context(cafile=certificates.path("ca.pem"))
    with socket.create_connection((host, int(port)), timeout=DEADLINE) as plain:
        with context.wrap_socket(plain, server_hostname=host) as stream:
            return stream.getpeercert()["serialNumber"]


def test_certificates_are_replaced_while_a_client_works(secured, name):
    certificates = secured.certificates
    errors = []
    producer = Producer(secured.client(*ADMIN, **{"linger.ms": 0}))

    def send():
        producer.produce(name, b"x", on_delivery=lambda error, _: errors.append(error))
        return producer.flush(DEADLINE) == 0

    assert send()
    addresses = secured.cluster.kafka
    before = {served(a, certificates) for a in addresses}
    assert len(before) == 1
    certificates.issue_node()
    wait_until(lambda: send() and not before & {served(a, certificates) for a in addresses},
               DEADLINE, "the new certificate on all nodes")
    after = {served(a, certificates) for a in addresses}
    # Files that do not belong together stay out of use, and the node says so.
    good = open(certificates.path("node.key"), "rb").read()
    with open(certificates.path("node.key"), "wb") as out:
        out.write(good[: len(good) // 2])
    node = secured.cluster.node(1)
    wait_until(lambda: "new certificate files not used" in node.log_tail(200), DEADLINE,
               "a warning")
    assert {served(a, certificates) for a in addresses} == after
    assert send()
    with open(certificates.path("node.key"), "wb") as out:
        out.write(good)
    assert not any(errors), errors
