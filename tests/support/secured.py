"""What tests of a secured cluster need: certificates, users, entries, clients."""

import dataclasses
import pathlib
import ssl
import struct

import trustme
import kafka.admin
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import (
    AclBinding, AclOperation, AclPermissionType, AdminClient, ResourcePatternType, ResourceType,
)
from support.raw_kafka import RawKafka
from support.wait import wait_until

DEADLINE = 30
ADMIN = ("admin", "admin secret, with a comma")


@dataclasses.dataclass
class Certificates:
    """Files of an authority, of the nodes and of clients."""

    dir: pathlib.Path
    authority: trustme.CA

    @classmethod
    def make(cls, directory):
        made = cls(directory, trustme.CA())
        made.authority.cert_pem.write_to_path(str(directory / "ca.pem"))
        made.issue_node()
        return made

    def path(self, name):
        return str(self.dir / name)

    def issue_node(self, authority=None):
        """Writes a new certificate of the nodes, the key first."""
        made = (authority or self.authority).issue_cert("127.0.0.1", "localhost")
        made.private_key_pem.write_to_path(self.path("node.key.new"))
        with open(self.path("node.pem.new"), "wb") as out:
            out.writelines(pem.bytes() for pem in made.cert_chain_pems)
        for name in ("node.key", "node.pem"):
            pathlib.Path(self.path(f"{name}.new")).rename(self.path(name))

    def issue_client(self, name, organization="trine tests"):
        """A client's certificate; returns its files as librdkafka wants them."""
        made = self.authority.issue_cert(
            f"{name}@example.com", common_name=name, organization_name=organization)
        made.private_key_pem.write_to_path(self.path(f"{name}.key"))
        with open(self.path(f"{name}.pem"), "wb") as out:
            out.writelines(pem.bytes() for pem in made.cert_chain_pems)
        return {"ssl.certificate.location": self.path(f"{name}.pem"),
                "ssl.key.location": self.path(f"{name}.key")}


def settings(certificates, *more):
    """Configuration of nodes: SASL_SSL on the first port, SSL with certificates on the second.
    What is given goes before that."""
    password = certificates.dir / "admin.password"
    password.write_text(ADMIN[1] + "\n")
    sets = [
        "disk.reserve_bytes=0",
        "kafka.security_protocol=sasl_ssl",
        "kafka.tls_listener=ssl",
        "kafka.client_auth=required",
        "kafka.authorizer=true",
        f"tls.certificate_file={certificates.path('node.pem')}",
        f"tls.key_file={certificates.path('node.key')}",
        f"tls.client_ca_file={certificates.path('ca.pem')}",
        f"security.admin_user={ADMIN[0]}",
        f"security.admin_password_file={password}",
        *more,
    ]
    return [f"{key}={value}" for key, value in dict(one.split("=", 1) for one in sets).items()]


class Secured:
    """A secured cluster and clients of it."""

    def __init__(self, cluster, certificates):
        self.cluster = cluster
        self.certificates = certificates
        self.servers = ",".join(cluster.kafka)
        self.tls_servers = ",".join(n.ports["kafka_tls"] for n in cluster.nodes)
        self.admin = AdminClient(self.client(*ADMIN))

    def client(self, user, password, mechanism="SCRAM-SHA-256", **more):
        """Settings of a librdkafka client."""
        return {
            "bootstrap.servers": self.servers,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": mechanism,
            "sasl.username": user,
            "sasl.password": password,
            "ssl.ca.location": self.certificates.path("ca.pem"),
            **more,
        }

    def user(self, name):
        """Makes a user; returns its settings."""
        done = self.cluster.run("user", "create", name, input=f"secret of {name}\n")
        assert done.returncode == 0, done.stderr
        self.known_everywhere()
        return self.client(name, f"secret of {name}")

    def known_everywhere(self):
        """Every node has applied what was acknowledged: each decides by its own copy."""
        self.cluster.digests()

    def acl(self, principal, operation, kind, name, allow=True, prefixed=False):
        pattern = ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL
        permission = AclPermissionType.ALLOW if allow else AclPermissionType.DENY
        return AclBinding(getattr(ResourceType, kind), name, pattern, principal, "*",
                          getattr(AclOperation, operation), permission)

    def allow(self, principal, *grants):
        """Grants (operation, kind of resource, name); a name that ends with .. is a prefix."""
        acls = [self.acl(principal, operation, kind, name.removesuffix(".."),
                         prefixed=name.endswith(".."))
                for operation, kind, name in grants]
        for future in self.admin.create_acls(acls).values():
            future.result(DEADLINE)
        self.known_everywhere()


def java_properties(client):
    """The settings of a librdkafka client that logs in by SCRAM, as Kafka's Java clients take
    them."""
    login = "org.apache.kafka.common.security.scram.ScramLoginModule required"
    found = {
        "security.protocol": client["security.protocol"],
        "sasl.mechanism": client["sasl.mechanism"],
        "sasl.jaas.config": '{} username="{}" password="{}";'.format(
            login, client["sasl.username"], client["sasl.password"]),
    }
    if "ssl.ca.location" in client:
        found["ssl.truststore.type"] = "PEM"
        found["ssl.truststore.location"] = client["ssl.ca.location"]
    return "".join(f"{key}={value}\n" for key, value in found.items())


class RawSasl(RawKafka):
    """A connection of a few lines that logs in by PLAIN; over TLS where certificates are given."""

    def __init__(self, address, user, password, certificates=None):
        super().__init__(address)
        if certificates is not None:
            context = ssl.create_default_context(cafile=certificates.path("ca.pem"))
            host = address.rsplit(":", 1)[0]
            self.socket = context.wrap_socket(self.socket, server_hostname=host)
        code, message, self.lifetime_ms = self.prove(user, password)
        assert code == 0, message

    def prove(self, user, password):
        """Says who the client is, for the first time or again; returns the error code, its
        message and for how many milliseconds the proof holds, 0 for ever."""
        word = b"PLAIN"
        told = self.ask(17, 1, struct.pack(">h", len(word)) + word)
        assert told[:2] == b"\0\0", "the mechanism is offered"
        token = f"\0{user}\0{password}".encode()
        told = self.ask(36, 1, struct.pack(">i", len(token)) + token)
        code, length = struct.unpack(">hh", told[:4])
        message = told[4:4 + max(length, 0)].decode()
        return code, message, struct.unpack(">q", told[-8:])[0]


def produce(client, topic, count=1, **more):
    """Produces records; returns the error of the last, or None."""
    errors = []
    producer = Producer({"message.timeout.ms": DEADLINE * 1000, **client, **more})
    for n in range(count):
        producer.produce(topic, b"record %d" % n, on_delivery=lambda e, _: errors.append(e))
    assert producer.flush(2 * DEADLINE) == 0
    return errors[-1]


def consume(client, topic, group, count=1):
    """Reads records with a group; returns their values or the first error."""
    consumer = Consumer({"group.id": group, "auto.offset.reset": "earliest", **client})
    consumer.subscribe([topic])
    values = []

    def got():
        message = consumer.poll(0.2)
        if message is not None and message.error():
            return message.error()
        if message is not None:
            values.append(message.value())
        return values if len(values) == count else None

    try:
        return wait_until(got, 2 * DEADLINE, "records or an error", pause=0)
    finally:
        consumer.close()


def every_entry(client):
    """All access control entries, as kafka-python asks for them: it raises what the broker says,
    where confluent-kafka returns nothing."""
    options = {"bootstrap_servers": client["bootstrap.servers"].split(",")}
    if "sasl.username" in client:
        options.update(
            security_protocol=client["security.protocol"], ssl_cafile=client["ssl.ca.location"],
            sasl_mechanism=client["sasl.mechanism"], sasl_plain_username=client["sasl.username"],
            sasl_plain_password=client["sasl.password"])
    admin = kafka.admin.KafkaAdminClient(**options)
    try:
        return admin.describe_acls(kafka.admin.ACLFilter(
            principal=None, host=None, operation=kafka.admin.ACLOperation.ANY,
            permission_type=kafka.admin.ACLPermissionType.ANY,
            resource_pattern=kafka.admin.ResourcePatternFilter(
                kafka.admin.ResourceType.ANY, None, kafka.admin.ACLResourcePatternType.ANY)))
    finally:
        admin.close()
