"""`/metrics`, the status page, `/healthz` and `/readyz` over HTTP; every answer is from memory."""

from __future__ import annotations

import base64
import secrets

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from metrics_pipeline.exporter.page import names
from metrics_pipeline.exporter.refresher import Refresher
from metrics_pipeline.exporter.status_page import HEADERS, STYLE, StatusPage

UNAUTHORIZED = {"WWW-Authenticate": 'Basic realm="metrics", charset="UTF-8"'}


def build_app(
    refresher: Refresher, credentials: str | None, status_page: StatusPage | None = None
) -> Starlette:
    """The ASGI application; with `credentials` (`user:password`), /metrics and / ask for them."""
    people = status_page or StatusPage()

    async def metrics(request: Request) -> Response:
        return _refusal(request, credentials) or _serve(request, refresher)

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        if refresher.is_ready:
            return PlainTextResponse("ready\n")
        # What is wrong names hosts and users: not for everybody where a password is asked for.
        problems = "see the log" if credentials else "; ".join(refresher.problems)
        return PlainTextResponse(f"not ready: {problems}\n", 503)

    async def status(request: Request) -> Response:
        refusal = _refusal(request, credentials)
        return refusal or HTMLResponse(people.render(refresher.known), headers=HEADERS)

    async def style(_request: Request) -> Response:
        return Response(STYLE, media_type="text/css", headers=HEADERS)

    return Starlette(
        routes=[
            Route("/", status),
            Route("/status.css", style),
            Route("/metrics", metrics),
            Route("/healthz", healthz),
            Route("/readyz", readyz),
        ]
    )


def _serve(request: Request, refresher: Refresher) -> Response:
    body = refresher.body(request.headers.get("accept", ""))
    headers = {
        "Vary": "Accept, Accept-Encoding",
        "Cache-Control": "no-store",
        "Content-Type": body.content_type,
    }
    if not names(request.headers.get("accept-encoding", ""), "gzip"):
        return Response(body.plain, media_type=None, headers=headers)
    return Response(body.gzipped, media_type=None, headers={**headers, "Content-Encoding": "gzip"})


def _refusal(request: Request, credentials: str | None) -> Response | None:
    if credentials is None or _is_allowed(request, credentials):
        return None
    return PlainTextResponse("user and password expected\n", 401, UNAUTHORIZED)


def _is_allowed(request: Request, credentials: str) -> bool:
    scheme, _, encoded = request.headers.get("authorization", "").partition(" ")
    try:
        given = base64.b64decode(encoded, validate=True)
    except ValueError:  # not ASCII, or not base64
        return False
    return scheme.lower() == "basic" and secrets.compare_digest(given, credentials.encode())
