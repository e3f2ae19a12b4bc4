"""What probes remember is there for the next run, and only that."""

from __future__ import annotations

from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from metrics_pipeline.storage import probe_memory
from metrics_pipeline.storage.operational import OperationalDatabase

IDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@hypothesis_settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.dictionaries(IDS, st.binary(max_size=20), max_size=3), st.dictionaries(IDS, st.binary()))
def test_memories_come_back_as_they_were_kept_last(
    operational: OperationalDatabase, before: dict[str, bytes], last: dict[str, bytes]
) -> None:
    with operational.writing() as connection:
        probe_memory.save(connection, "ssh", before)
        probe_memory.save(connection, "snmp", before)
        probe_memory.save(connection, "snmp", last)
        assert probe_memory.load(connection, "snmp") == last
        assert probe_memory.load(connection, "ssh") == before
