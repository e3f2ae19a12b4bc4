"""A Kerberos realm for one test: the KDC of Debian's krb5-kdc, on a loopback port of its own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from metrics_pipeline.stack.ports import find_free_port, is_listening
from metrics_pipeline_tests.servers import require, running

REALM = "EXAMPLE.TEST"


@contextmanager
def kerberos_realm(
    folder: Path, users: Mapping[str, str], service: str
) -> Iterator[Mapping[str, str]]:
    """While it lasts, `users` (`name@REALM` to password) get tickets for `service`.

    Gives the environment of clients and servers; the key of `service` is in its keytab.
    """
    port = find_free_port()
    environment = _write_configuration(folder, port)
    _run(["kdb5_util", "create", "-s", "-P", "the-master-key", "-r", REALM], environment)
    for user, password in users.items():
        _run(["kadmin.local", "addprinc", "-pw", password, user], environment)
    _run(["kadmin.local", "addprinc", "-randkey", service], environment)
    _run(["kadmin.local", "ktadd", "-k", environment["KRB5_KTNAME"], service], environment)
    settings = [f"{name}={value}" for name, value in environment.items()]
    argv = [require("env"), *settings, require("krb5kdc"), "-n"]
    with running(argv, ready=lambda: is_listening(port)):
        yield environment


def _write_configuration(folder: Path, port: int) -> dict[str, str]:
    client, kdc = folder / "krb5.conf", folder / "kdc.conf"
    client.write_text(
        f"[libdefaults]\n default_realm = {REALM}\n dns_lookup_kdc = false\n"
        " dns_lookup_realm = false\n dns_canonicalize_hostname = false\n rdns = false\n"
        f"[realms]\n {REALM} = {{\n  kdc = 127.0.0.1:{port}\n }}\n"
        f"[domain_realm]\n .example.test = {REALM}\n"
    )
    kdc.write_text(
        f"[kdcdefaults]\n kdc_listen = 127.0.0.1:{port}\n kdc_tcp_listen = 127.0.0.1:{port}\n"
        f"[realms]\n {REALM} = {{\n  database_name = {folder}/principals\n"
        f"  key_stash_file = {folder}/stash\n  acl_file = {folder}/acl\n }}\n"
        f"[logging]\n kdc = FILE:{folder}/kdc.log\n"
    )
    return {
        "KRB5_CONFIG": str(client),
        "KRB5_KDC_PROFILE": str(kdc),
        "KRB5_KTNAME": str(folder / "keytab"),
    }


def _run(argv: list[str], environment: Mapping[str, str]) -> None:
    command = [require(argv[0]), *argv[1:]]
    subprocess.run(command, check=True, capture_output=True, env=os.environ | environment)
