"""The other kinds of listeners: SASL without TLS, certificates that are asked for and not
demanded, proofs of identity that hold for a while (KIP-368), and what holds without entries."""

import ssl
import time

import pytest
import trustme
from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBindingFilter, AclOperation, AclPermissionType, AdminClient, NewTopic,
    ResourcePatternType, ResourceType,
)
from cryptography import x509
from jvm import Jvm
from support.cluster import Cluster
from support.raw_kafka import RawKafka
from support.secured import (
    ADMIN, DEADLINE, Certificates, RawSasl, Secured, consume, java_properties, produce, settings,
)
from support.wait import wait_until
from test_authentication import refusal

# Long enough to tell two connections apart on a busy machine.
REAUTH_MS = 8000


class Open(Secured):
    """A cluster whose first port takes passwords over plain TCP."""

    def client(self, user, password, **more):
        found = super().client(user, password, **{
            "security.protocol": "SASL_PLAINTEXT", "log_level": 0, **more})
        del found["ssl.ca.location"]
        return found


@pytest.fixture(scope="module")
def own_certificates(tmp_path_factory):
    return Certificates.make(tmp_path_factory.mktemp("listeners"))


@pytest.fixture(scope="module")
def listeners(own_certificates):
    """Shared by the tests of this file."""
    cluster = Cluster(sets=settings(
        own_certificates, "kafka.security_protocol=sasl_plaintext", "kafka.client_auth=requested",
        "kafka.allow_everyone_if_no_acl_found=true", f"kafka.max_reauth_ms={REAUTH_MS}"))
    yield Open(cluster, own_certificates)
    cluster.close()


def make(listeners, name):
    listeners.admin.create_topics([NewTopic(name, 1, 3)])[name].result(DEADLINE)


def test_sasl_over_plain_tcp(listeners, name):
    make(listeners, name)
    client = listeners.client(*ADMIN, mechanism="SCRAM-SHA-512")
    assert produce(client, name) is None
    assert consume(client, name, name) == [b"record 0"]
    assert "invalid credentials" in refusal(listeners.client(ADMIN[0], "wrong"))
    with pytest.raises(KafkaException):
        AdminClient({"bootstrap.servers": listeners.servers, "log_level": 0}).list_topics(timeout=2)


def tls(listeners, **more):
    return {"bootstrap.servers": listeners.tls_servers, "security.protocol": "SSL",
            "log_level": 0, "ssl.ca.location": listeners.certificates.path("ca.pem"), **more}


def principal_of(certificate):
    with open(certificate["ssl.certificate.location"], "rb") as file:
        subject = x509.load_pem_x509_certificate(file.read()).subject.rfc4514_string()
    # As Java writes it.
    return "User:" + subject.replace("#", "\\#")


def test_a_certificate_may_be_shown_or_not(listeners, name):
    make(listeners, name)
    shown = listeners.certificates.issue_client(f"client-{name}")
    listeners.allow(principal_of(shown), ("WRITE", "TOPIC", name))
    known, unknown = tls(listeners, **shown), tls(listeners)

    def settled():
        return produce(known, name) is None and produce(unknown, name) is not None

    wait_until(settled, DEADLINE, "the entry on all nodes")
    assert produce(unknown, name).name() == "TOPIC_AUTHORIZATION_FAILED"
    # One without a certificate is User:ANONYMOUS.
    listeners.allow("User:ANONYMOUS", ("WRITE", "TOPIC", name))
    wait_until(lambda: produce(unknown, name) is None, DEADLINE, "the right of the nameless")


def test_a_certificate_of_strangers_is_refused(listeners, name, tmp_path):
    """A real client would keep it to itself, for the node names whom it trusts."""
    known = listeners.certificates.issue_client(f"known-{name}")
    stranger = Certificates(tmp_path, trustme.CA()).issue_client(name)

    def shows(certificate):
        context = ssl.create_default_context(cafile=listeners.certificates.path("ca.pem"))
        context.load_cert_chain(certificate["ssl.certificate.location"],
                                certificate["ssl.key.location"])
        raw = RawKafka(listeners.cluster.node(1).ports["kafka_tls"])
        try:
            raw.socket = context.wrap_socket(raw.socket, server_hostname="127.0.0.1")
            return raw.api_versions(0)
        finally:
            raw.close()

    assert shows(known)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        shows(stranger)


def test_without_entries_everyone_is_allowed(listeners, name):
    make(listeners, name)
    client = tls(listeners)
    assert produce(client, name) is None
    listeners.allow("User:another", ("READ", "TOPIC", name))
    wait_until(lambda: produce(client, name) is not None, DEADLINE, "the entry")
    assert produce(client, name).name() == "TOPIC_AUTHORIZATION_FAILED"
    gone = AclBindingFilter(ResourceType.TOPIC, name, ResourcePatternType.LITERAL, None, None,
                            AclOperation.ANY, AclPermissionType.ANY)
    listeners.admin.delete_acls([gone])[gone].result(DEADLINE)
    wait_until(lambda: produce(client, name) is None, DEADLINE, "the end of the entry")


def test_who_does_not_prove_again_is_closed(listeners):
    """Two connections, of which one proves again who it is before its time is over."""
    address = listeners.cluster.kafka[0]
    began = time.monotonic()
    silent, proving = RawSasl(address, *ADMIN), RawSasl(address, *ADMIN)
    proven = time.monotonic()
    assert silent.lifetime_ms == proving.lifetime_ms == REAUTH_MS

    def seconds():
        return time.monotonic() - began

    def closed():
        asked = time.monotonic()
        try:
            silent.api_versions(0)
        except ConnectionError:
            return True
        assert asked < proven + REAUTH_MS / 1000 + 0.1, "answered after its time"
        return False

    again = 0
    while not closed():
        proving.api_versions(0)
        if not again and seconds() > REAUTH_MS / 2000:
            assert proving.prove(*ADMIN) == (0, "", REAUTH_MS)
            again = time.monotonic()
        time.sleep(0.05)
    assert seconds() >= REAUTH_MS / 1000, "closed too early"
    assert time.monotonic() < again + REAUTH_MS / 1000, "too slow to tell the two apart"
    proving.api_versions(0)
    silent.close()
    proving.close()


def test_a_connection_keeps_its_user(listeners, name):
    listeners.user(name)
    raw = wait_until(lambda: RawSasl(listeners.cluster.kafka[0], name, f"secret of {name}"),
                     DEADLINE, "the user")
    code, message, _ = raw.prove(*ADMIN)
    assert (code, message) == (58, "Cannot change principals during re-authentication from "
                                   f"User.{name}: User.{ADMIN[0]}")
    with pytest.raises(ConnectionError):
        raw.api_versions(0)
    raw.close()


def test_a_java_client_proves_again_and_goes_on(listeners, name, tmp_path):
    """Over one connection; see tests/clients/java/Reauthentication.java."""
    make(listeners, name)
    file = tmp_path / "client.properties"
    file.write_text(java_properties(listeners.client(*ADMIN, mechanism="SCRAM-SHA-512")))
    jvm = Jvm("4.1.1", tmp_path)
    try:
        told = jvm.run("Reauthentication", file, listeners.servers, name, 1)
    finally:
        jvm.close()
    assert told.strip() == "proven"
