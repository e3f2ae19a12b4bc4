"""One file per outside thing that is read. Sources know nothing of Dagster, stores or Prometheus,
nor of each other; `registry.py` lists them."""
