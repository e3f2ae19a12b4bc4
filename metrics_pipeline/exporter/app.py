"""`/metrics`, the status page, `/healthz` and `/readyz` over HTTP; every answer is from memory."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from metrics_pipeline.exporter.page import names
from metrics_pipeline.exporter.refresher import Refresher
from metrics_pipeline.exporter.sign_in import SignIn
from metrics_pipeline.exporter.status_page import HEADERS, STYLE, StatusPage


def build_app(
    refresher: Refresher, sign_in: SignIn, status_page: StatusPage | None = None
) -> Starlette:
    """The ASGI application; /metrics and / are for those whom `sign_in` lets in."""
    people = status_page or StatusPage()

    async def metrics(request: Request) -> Response:
        return _refuse(request, sign_in) or _serve(request, refresher)

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        if refresher.is_ready:
            return PlainTextResponse("ready\n")
        # What is wrong names hosts and users: not for everybody who may not read the page.
        problems = "see the log" if sign_in.is_asked_for else "; ".join(refresher.problems)
        return PlainTextResponse(f"not ready: {problems}\n", 503)

    async def status(request: Request) -> Response:
        refusal = _refuse(request, sign_in)
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


def _refuse(request: Request, sign_in: SignIn) -> Response | None:
    return sign_in.refuse(request.headers.get("authorization", ""))
