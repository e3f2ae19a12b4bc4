"""The gateway's process: one event loop for all robots, and one thread that stores."""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import socket
from contextlib import closing
from functools import partial
from typing import Any, cast

import uvicorn
from uvicorn.loops.auto import auto_loop_factory

from metrics_pipeline.access.http_server import (
    address_of,
    answer_meanwhile,
    configure,
    end_on_signals,
    listen,
)
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.event_publishing import open_publisher
from metrics_pipeline.gateway.app import build_app
from metrics_pipeline.gateway.gateway import Gateway
from metrics_pipeline.gateway.tokens import Tokens
from metrics_pipeline.gateway.wire import BoundedHttp, RobotProtocol
from metrics_pipeline.settings import GatewaySettings, Settings
from metrics_pipeline.storage.open import open_writer

LOG = logging.getLogger(__name__)
BUFFER_BYTES = 32_768
"""Of the kernel, for a robot and direction; Linux doubles it for its own needs."""
COLLECTED_AT = (3_000, 5, 20)
"""Garbage is looked for after so many new objects. Messages that wait for the store are hundreds at
least, which come and go: after Python's 700 each batch of them had all of the gateway wait."""


def serve(settings: Settings, port: int | None) -> None:
    """Serve until SIGTERM or SIGINT; `port` wins over the settings', and 0 is any free one.

    A token that cannot be read lets nobody in until it can. Raises ConfigurationError where there
    is no section `gateway`, and for a certificate or an address that cannot be used.
    """
    gateway = settings.gateway
    if gateway is None:
        raise ConfigurationError(
            "settings", "there is no section gateway", "Add it: docs/gateway.md has an example."
        )
    tokens = Tokens(gateway)
    tokens.reload()
    _allow_many_sockets()
    writer = open_writer(settings.store, settings.operational_database, settings.catalog())
    with closing(writer), closing(open_publisher(settings)) as publisher:

        def end() -> None:
            server.should_exit = True

        served = Gateway(gateway, tokens, writer, publisher, end)
        server = uvicorn.Server(_configure(gateway, served))
        with listen("gateway", gateway, port) as listener:
            _run(server, listener, gateway)
    if served.bug is not None:
        raise served.bug


def _run(server: uvicorn.Server, listener: socket.socket, settings: GatewaySettings) -> None:
    _bound_buffers(listener)
    end_on_signals(server)
    answer_meanwhile()  # while messages are stored
    gc.set_threshold(*COLLECTED_AT)
    scheme = "wss" if settings.tls else "ws"
    LOG.info("serving %s://%s", scheme, address_of(settings.host, listener))
    server.run(sockets=[listener])


def _configure(settings: GatewaySettings, gateway: Gateway) -> uvicorn.Config:
    http = type("Http", (BoundedHttp,), {"request_seconds": settings.handshake_seconds})
    return configure(
        "gateway",
        settings,
        build_app(gateway),
        http=http,
        ws=RobotProtocol,
        loop=partial(_open_loop, settings),
        ws_max_size=settings.message_bytes,
        ws_ping_interval=settings.ping_seconds,
        ws_ping_timeout=settings.pong_seconds,
        # It would cost a robot's connection 300 KB, and a small frame could become a large one.
        ws_per_message_deflate=False,
        proxy_headers=False,
    )


def _open_loop(settings: GatewaySettings) -> asyncio.AbstractEventLoop:
    """As uvicorn chooses it; where it speaks TLS, no longer for a handshake than for a request.

    Left alone it waits for 60 s, and uvicorn has no setting for that.
    """
    loop = auto_loop_factory()()
    if settings.tls is not None:
        bounded = partial(
            loop.create_server, ssl_handshake_timeout=float(settings.handshake_seconds)
        )
        cast("Any", loop).create_server = bounded
    return loop


def _bound_buffers(listener: socket.socket) -> None:
    """Sockets that are accepted have its buffers: the kernel would let each grow to megabytes."""
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        listener.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)


def _allow_many_sockets() -> None:
    """Each robot is an open file, of which a process may usually have 1,024."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
