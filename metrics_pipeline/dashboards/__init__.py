"""Grafana dashboards, built with grafana-foundation-sdk from the catalogue of metrics.

`listing.py` names them all, one module each; `export.py` writes them as files for Grafana. What
they share: `families.py` and `queries.py` (what may be asked, and how), `panels.py`, `layout.py`,
`units.py`, `norms.py`, `links.py`, `variables.py`. No Grafana and no network is needed here.
"""
