"""The dashboards over a Prometheus that scrapes a running product."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from metrics_pipeline_tests.dashboards.exported import JOB, SELECTOR, Query, queries, variables
from metrics_pipeline_tests.servers import PLAIN_HTTP

ASKED = re.compile(r"label_values\((\w+)(?:\{job=\"\$job\"\})?, (\w+)\)")


def used_names() -> set[str]:
    """Of series that some panel asks for."""
    return {name for query in queries() for name, _ in SELECTOR.findall(query.expression)}


def values_of_variables(url: str) -> Mapping[str, Sequence[str]]:
    """What Grafana offers for each variable that is a query, as it asks for it."""
    found = {}
    for variable in variables():
        if variable["type"] == "query":
            asked = ASKED.fullmatch(variable["query"]["query"])
            assert asked is not None, variable
            selector = f'{asked[1]}{{job="{JOB}"}}'
            path = f"{url}/api/v1/label/{asked[2]}/values"
            found[variable["name"]] = _data(path, {"match[]": selector})
    return found


def has_data(url: str, query: Query, values: Mapping[str, Sequence[str]]) -> bool:
    """Whether some value of the variable that `query` names gives it a series.

    A query that Prometheus does not understand fails the test.
    """
    text = query.expression.replace("$job", JOB).replace("$__rate_interval", "1m")
    for name, each in values.items():
        text = text.replace(f'="${name}"', f'=~"{"|".join(each)}"')
    assert "$" not in text, query
    reply = PLAIN_HTTP.post(f"{url}/api/v1/query", data={"query": text})
    assert reply.status_code == 200, (text, reply.text)
    return bool(reply.json()["data"]["result"])


def _data(url: str, form: Mapping[str, str]) -> Any:
    reply = PLAIN_HTTP.get(url, params=form)
    assert reply.status_code == 200, (form, reply.text)
    return reply.json()["data"]
