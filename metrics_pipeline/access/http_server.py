"""What our servers have in common: where they listen, how they answer, and an end on signals."""

from __future__ import annotations

import signal
import socket
import sys
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import uvicorn
from starlette.applications import Starlette

from metrics_pipeline.access.garbage_collection import keep_what_is_there
from metrics_pipeline.core.errors import ConfigurationError

BACKLOG = 2048
STOP_WITHIN_SECONDS = 5
SWITCH_SECONDS = 0.001
"""Python's threads take turns this often, rather than each 5 ms."""

# A key that asks for a passphrase is refused; OpenSSL would ask for it at the terminal.
NO_PASSPHRASE = "none"  # noqa: S105 (not a secret)


class Certificate(Protocol):
    """What a server shows with TLS: PEM files."""

    @property
    def certificate_file(self) -> Path:
        """The whole chain."""

    @property
    def key_file(self) -> Path:
        """Without a passphrase."""


class ServerSettings(Protocol):
    """Where a server listens, and with what certificate."""

    @property
    def host(self) -> str:
        """A name or an address of this machine."""

    @property
    def port(self) -> int:
        """0 is any free one."""

    @property
    def tls(self) -> Certificate | None:
        """What is shown, if TLS is spoken."""

    @property
    def is_covered(self) -> bool:
        """Whether TLS is spoken, by it or in front of it."""

    @property
    def is_public(self) -> bool:
        """Whether other machines can reach it."""

    @property
    def asks_who(self) -> bool:
        """Whether it is shown passwords or tokens."""


def listen(section: str, settings: ServerSettings, port: int | None) -> socket.socket:
    """A socket that listens. Taken before anything is started, so that a failure is one error.

    `port` wins over that of the settings. Raises ConfigurationError about `section` of them, also
    where what opens it would be shown to it in the clear.
    """
    if clear := find_clear_text(section, settings):
        raise clear
    host, port = settings.host, settings.port if port is None else port
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address, family=family, backlog=BACKLOG)
    except (OSError, UnicodeError) as error:  # the latter for a name that cannot be one
        # Python adds the address once more, in brackets.
        reason = (getattr(error, "strerror", None) or str(error)).partition(" (")[0]
        raise ConfigurationError(
            f"{section}.host and {section}.port",
            f"cannot listen on {host}:{port} ({reason})",
            "Give an address of this machine, and a port that no other program has (--port).",
        ) from error


def find_clear_text(section: str, settings: ServerSettings) -> ConfigurationError | None:
    """What is wrong where passwords or tokens come to it from other machines in the clear."""
    if settings.is_covered or not (settings.is_public and settings.asks_who):
        return None
    return ConfigurationError(
        f"{section}.tls",
        f"other machines reach {settings.host}, and whoever is on the way would read the passwords "
        "or tokens that they show",
        f"Set {section}.tls. Or, if something in front of it ends TLS and nobody is on the way "
        f"between the two, {section}.tls_terminated_in_front: true.",
    )


def configure(
    section: str, settings: ServerSettings, app: Starlette, **options: Any
) -> uvicorn.Config:
    """How uvicorn serves `app`; `options` are uvicorn's own.

    Raises ConfigurationError about `section` for a certificate that cannot be used.
    """
    tls = settings.tls
    config = uvicorn.Config(
        app,
        ssl_certfile=tls.certificate_file if tls else None,
        ssl_keyfile=tls.key_file if tls else None,
        ssl_keyfile_password=NO_PASSPHRASE,
        access_log=False,
        server_header=False,
        log_config=None,
        timeout_graceful_shutdown=STOP_WITHIN_SECONDS,
        **options,
    )
    try:
        config.load()
    except OSError as error:  # no such file, or none that OpenSSL takes
        raise ConfigurationError(
            f"{section}.tls",
            f"{tls} cannot be used ({error.strerror or error})",
            "Give readable PEM files that belong together; the key without a passphrase.",
        ) from error
    return config


def answer_meanwhile() -> None:
    """Nothing that this process's other threads do may hold up an answer for long."""
    sys.setswitchinterval(SWITCH_SECONDS)
    keep_what_is_there()


def address_of(host: str, listener: socket.socket) -> str:
    """Host and port as they stand in a URL."""
    return f"{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def end_on_signals(server: uvicorn.Server) -> None:
    """Make SIGTERM and SIGINT a clean end also before and after uvicorn looks for them.

    It raises the signal that ended it once more when it has ended, which would kill this process.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
