"""metrics_pipeline: the numbers of a device fleet, collected by Dagster, kept and shown.

Start reading at `definitions.py`; the shapes everything plugs into are in `core/ports.py`
and every metric there is in `core/catalog.py`.
"""

__version__ = "0.1.0"
