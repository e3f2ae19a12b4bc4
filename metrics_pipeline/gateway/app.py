"""The gateway's routes: robots over WebSocket, their latest values and its health over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from metrics_pipeline.gateway.gateway import Gateway, Refusal

NO_STORE = {"Cache-Control": "no-store"}
# As paths, so that an id with a slash in it is refused as one, and not as an unknown page.
TELEMETRY = "/ws/telemetry/{robot_id:path}"
LATEST = "/api/telemetry/robots/{robot_id:path}/metrics"


def build_app(gateway: Gateway) -> Starlette:
    """The ASGI application; its lifespan is the gateway's."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        async with gateway.running():
            yield

    async def telemetry(websocket: WebSocket) -> None:
        robot_id = websocket.path_params["robot_id"]
        refusal = gateway.refuse_robot(websocket, robot_id)
        if refusal is not None:
            await websocket.send_denial_response(_say(refusal))
            return
        await gateway.serve(websocket, robot_id)

    async def latest(request: Request) -> Response:
        robot_id = request.path_params["robot_id"]
        refusal = gateway.refuse_to_read(request, robot_id)
        if refusal is not None:
            return _say(refusal)
        found = gateway.latest.find(robot_id)
        if found is None:
            return PlainTextResponse("nothing came from this robot yet\n", 404, NO_STORE)
        return Response(orjson.dumps(found), headers=NO_STORE, media_type="application/json")

    async def healthz(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    routes = [
        WebSocketRoute(TELEMETRY, telemetry),
        Route(LATEST, latest),
        Route("/healthz", healthz),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


def _say(refusal: Refusal) -> Response:
    return PlainTextResponse(refusal.text, refusal.status, dict(refusal.headers))
