"""`metrics-pipeline run`: the whole product on one machine, as the processes it has in production.

Simulator, code server, webserver, daemon and exporter, each in its own process group with its own
log, all ended together. Production starts the same commands in containers (docker/).
"""
