"""Settings that name a secret wherever one may be named, each of them a canary.

Some keys exclude others, and a reference is a file or an environment variable: what one document
has no place for is in another. What is asked repeats the secret, or takes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncssh

from metrics_pipeline.reference import configuration_page
from metrics_pipeline_tests.canaries import PUNCTUATION, Canary, Search, make_canary
from metrics_pipeline_tests.telltales import LOOPBACK, REDIRECT, Telltales

NAMED = frozenset({"credentials", "tokens", "databases", "services"})
"""Sections whose keys are an operator's own names."""

REFERENCES = ("env", "file")
BASE64 = frozenset(
    {
        "sources.azure_iot_hub.connection_string",
        "telemetry.source.connection_string",
        "telemetry.checkpoints.connection_string",
    }
)
OF_HEADERS = frozenset({"exporter.bearer_token", "gateway.tokens.NAME.token", "store.token"})
"""What has to be of printable ASCII without blanks."""

SSH_KEY = "polling.ssh.credentials.NAME.key_file"
ROBOT_TOKENS = "gateway.robot_tokens_file"
DAGSTER = "DAGSTER_POSTGRES_URL"
TENANT = "11111111-1111-1111-1111-111111111111"
NOBODY = "127.0.0.1:9"

DEVICES = (
    ("snmp-2c", "snmp", "udp", "community"),
    ("snmp-3", "snmp", "udp", "user"),
    ("ssh-password", "ssh", "ssh", "password"),
    ("ssh-key", "ssh", "ssh", "key"),
    ("windows", "winrm", "http", "ntlm"),
)
"""Id, protocol, which of the telltales, and the name of the credential."""


def keys_of_secrets() -> set[str]:
    """Every key of the settings that names a secret."""
    rows = (row for row in configuration_page().splitlines() if " secret |" in row)
    return {re.sub(r"\[\w+\]", "", row.split("`")[1]) for row in rows}


def planted_keys(part: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Each key of a document that names a secret, and whether it is in `env` or a `file`."""
    if not isinstance(part, Mapping):
        return
    if len(part) == 1 and set(part) <= set(REFERENCES):
        yield key, next(iter(part))
        return
    is_named = key.rpartition(".")[2] in NAMED
    for name, child in part.items():
        below = "NAME" if is_named else name
        yield from planted_keys(child, f"{key}.{below}" if key else below)


@dataclass(slots=True)
class Planted:
    """Canaries, in files of `folder` or in `environment`: in turns, beginning with `first`."""

    folder: Path
    first: str
    canaries: list[Canary] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)

    def plant(self, key: str, around: str = "{}", quoted: bool = False) -> dict[str, str]:
        """A reference to `around` with a new canary in it; `quoted` as in a URL."""
        self.canaries.append(canary := make_canary(key, _punctuation(key)))
        value = around.format(quote(canary.value, safe="") if quoted else canary.value)
        number = len(self.canaries)
        if (number % 2 == 0) == (self.first == "env"):
            self.folder.joinpath(f"secret-{number}").write_text(value)
            return {"file": str(self.folder / f"secret-{number}")}
        self.environment[f"SECRET_{number}"] = value
        return {"env": f"SECRET_{number}"}

    def plant_in_file(self, key: str, name: str, around: str = "{}") -> str:
        """The path of a file with a canary in it, which is named by itself."""
        self.canaries.append(canary := make_canary(key))
        self.folder.joinpath(name).write_text(around.format(canary.value))
        return str(self.folder / name)

    def value_of(self, key: str) -> str:
        """What was planted last for `key`."""
        return next(each.value for each in reversed(self.canaries) if each.key == key)

    def in_files(self) -> list[Canary]:
        """Those that are in no environment variable."""
        given = "\n".join(self.environment.values())
        return [each for each in self.canaries if not Search.of([each]).find("it", given)]


def _punctuation(key: str) -> str:
    if key in BASE64:
        return "+/"
    if key in OF_HEADERS:
        return "\"'\\;,&@:/%{}="
    return PUNCTUATION


def document(planted: Planted, peers: Telltales, sql: Mapping[str, Any]) -> dict[str, Any]:
    """With shared access policies, a Redis and an InfluxDB.

    `sql` has `operational` and `inventory`, what to reach them with, without the passwords.
    """
    web = f"{LOOPBACK}:{peers.http}"
    plant = planted.plant
    return {
        "version": 1,
        "sources": {
            "azure_iot_hub": {
                "connection_string": plant(
                    "sources.azure_iot_hub.connection_string",
                    f"HostName={web};SharedAccessKeyName=reader;SharedAccessKey={{}}",
                ),
                "scheme": "http",
                "tries": 1,
            },
            "aws_iot": {
                "region": "eu-west-1",
                "iot_endpoint_url": f"http://{web}",
                "greengrass_endpoint_url": f"http://{web}",
                "access_key_id": "AKIAEXAMPLE",
                "secret_access_key": plant("sources.aws_iot.secret_access_key"),
                "tries": 1,
            },
            "inventory": {"database": sql["inventory"]},
        },
        "fleet": {"retry_delay_seconds": 0},
        "polling": _polling(planted, peers),
        "telemetry": {
            "source": {
                "connection_string": plant(
                    "telemetry.source.connection_string",
                    f"Endpoint=sb://{LOOPBACK}:{peers.tcp};SharedAccessKeyName=reader;"
                    "SharedAccessKey={};EntityPath=uplinks;UseDevelopmentEmulator=true",
                ),
                "timeout_seconds": 3,
            },
            "checkpoints": {
                "kind": "blob",
                "container": "checkpoints",
                "connection_string": plant(
                    "telemetry.checkpoints.connection_string",
                    "DefaultEndpointsProtocol=http;AccountName=account;AccountKey={};"
                    f"BlobEndpoint=http://{web}/account",
                ),
                "timeout_seconds": 1,
            },
        },
        "gateway": {
            "tokens": {"fleet": {"token": plant("gateway.tokens.NAME.token")}},
            "robot_tokens_file": planted.plant_in_file(ROBOT_TOKENS, "robots", "robot-7 {}\n"),
        },
        "sql": {
            "databases": {
                "telltale": {
                    "url": f"postgresql://reader@{LOOPBACK}:{peers.postgresql}/shop",
                    "password": plant("sql.databases.NAME.password"),
                }
            },
            "sets": {"platform": {"database": "telltale"}},
        },
        "platform": {
            "services": {
                name: {
                    "url_from": plant(
                        "platform.services.NAME.url_from", f"http://{web}{path}?token={{}}", True
                    )
                }
                for name, path in (("ingest", "/health"), ("evaluator", REDIRECT))
            }
        },
        "events": {
            "transport": {
                "kind": "redis_stream",
                "url": plant(
                    "events.transport.url", f"redis://:{{}}@{LOOPBACK}:{peers.redis}/0", True
                ),
            }
        },
        "store": {
            "kind": "influxdb",
            "api": "v2",
            "org": "example",
            "url": f"http://{web}",
            "token": plant("store.token"),
        },
        "operational_database": sql["operational"],
        "exporter": {
            "tls": sql["tls"],
            "basic_auth": {
                "username": "prometheus",
                "password": plant("exporter.basic_auth.password"),
            },
            "bearer_token": plant("exporter.bearer_token"),
        },
    }


def _polling(planted: Planted, peers: Telltales) -> dict[str, Any]:
    plant, snmp, ssh = planted.plant, "polling.snmp.credentials.NAME.", "polling.ssh.credentials."
    passphrase = plant(f"{ssh}NAME.passphrase")
    known_hosts = planted.folder / "known_hosts"
    known_hosts.write_text(f"[{LOOPBACK}]:{peers.ssh} {peers.ssh_key}\n")
    key_file = planted.folder / "key"
    key_file.write_bytes(
        asyncssh.generate_private_key("ssh-ed25519").export_private_key(
            "openssh", planted.value_of(f"{ssh}NAME.passphrase")
        )
    )
    return {
        "enabled": True,
        "status_by": "protocol",
        "snmp": {
            "timeout_seconds": 0.5,
            "credentials": {
                "community": {"community": plant(f"{snmp}community")},
                "user": {
                    "user": "metrics",
                    "auth": "sha256",
                    "auth_password": plant(f"{snmp}auth_password"),
                    "privacy": "aes128",
                    "privacy_password": plant(f"{snmp}privacy_password"),
                },
            },
        },
        "ssh": {
            "known_hosts": str(known_hosts),
            "credentials": {
                "password": {"user": "metrics", "password": plant(f"{ssh}NAME.password")},
                "key": {"user": "metrics", "key_file": str(key_file), "passphrase": passphrase},
            },
        },
        "winrm": {
            "credentials": {
                "ntlm": {
                    "user": "metrics",
                    "password": plant("polling.winrm.credentials.NAME.password"),
                    "auth": "ntlm",
                    "transport": "http",
                }
            }
        },
    }


def document_of_entra_id(planted: Planted, peers: Telltales) -> dict[str, Any]:
    """What the other has no place for: applications of Microsoft Entra ID, and workers.

    With workers no poll would come as far as the devices: their Redis lets nobody in.
    """

    def entra_id(key: str) -> dict[str, Any]:
        known = {"host": NOBODY, "tenant_id": TENANT, "client_id": TENANT}
        return {"entra_id": {**known, "client_secret": planted.plant(f"{key}.client_secret")}}

    return {
        "version": 1,
        "sources": {
            "azure_iot_hub": {**entra_id("sources.azure_iot_hub.entra_id"), "tries": 1},
            "inventory": {"database": {"url": "sqlite:///inventory.sqlite"}},
        },
        "fleet": {"lora_enabled": False},
        "polling": {
            "enabled": True,
            "workers": {
                "broker": planted.plant(
                    "polling.workers.broker", f"redis://:{{}}@{LOOPBACK}:{peers.redis}/0", True
                )
            },
        },
        "telemetry": {"source": {**entra_id("telemetry.source.entra_id"), "hub": "uplinks"}},
    }
