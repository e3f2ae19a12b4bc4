"""An Azure Event Hub on this machine: an AMQP 1.0 server that the Azure SDK talks to unchanged.

Start reading at `server`. `python -m metrics_pipeline.simulators.event_hub` is the same in a
process of its own.
"""
