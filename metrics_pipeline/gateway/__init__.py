"""The gateway: robots send their telemetry over WebSocket, and are told what is stored.

Above `storage` and `events`, beside the exporter. docs/gateway.md is what robots rely on.
"""
