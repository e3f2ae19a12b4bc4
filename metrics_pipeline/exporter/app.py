"""`/metrics`, `/healthz` and `/readyz` over HTTP; every answer comes from memory."""

from __future__ import annotations

import base64
import secrets

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from metrics_pipeline.exporter.page import names
from metrics_pipeline.exporter.refresher import Refresher

UNAUTHORIZED = {"WWW-Authenticate": 'Basic realm="metrics", charset="UTF-8"'}


def build_app(refresher: Refresher, credentials: str | None) -> Starlette:
    """The ASGI application; with `credentials` (`user:password`), /metrics asks for them."""

    async def metrics(request: Request) -> Response:
        if credentials is not None and not _is_allowed(request, credentials):
            return PlainTextResponse("user and password expected\n", 401, UNAUTHORIZED)
        return _serve(request, refresher)

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        if refresher.is_ready:
            return PlainTextResponse("ready\n")
        # What is wrong names hosts and users: not for everybody where a password is asked for.
        problems = "see the log" if credentials else "; ".join(refresher.problems)
        return PlainTextResponse(f"not ready: {problems}\n", 503)

    async def index(_request: Request) -> Response:
        return PlainTextResponse("metrics_pipeline exporter: /metrics /healthz /readyz\n")

    return Starlette(
        routes=[
            Route("/", index),
            Route("/metrics", metrics),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
        ]
    )


def _serve(request: Request, refresher: Refresher) -> Response:
    body = refresher.page.choose(request.headers.get("accept", ""))
    headers = {
        "Vary": "Accept, Accept-Encoding",
        "Cache-Control": "no-store",
        "Content-Type": body.content_type,
    }
    if not names(request.headers.get("accept-encoding", ""), "gzip"):
        return Response(body.plain, media_type=None, headers=headers)
    return Response(body.gzipped, media_type=None, headers={**headers, "Content-Encoding": "gzip"})


def _is_allowed(request: Request, credentials: str) -> bool:
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    try:
        given = base64.b64decode(encoded, validate=True)
    except ValueError:  # not ASCII, or not base64
        return False
    return scheme.lower() == "basic" and secrets.compare_digest(given, credentials.encode())
