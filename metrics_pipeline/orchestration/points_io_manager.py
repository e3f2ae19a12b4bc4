"""Stores what assets return, and shows in the materialization what was stored and what was not."""

from collections.abc import Mapping, Sequence
from contextlib import suppress

import dagster as dg

from metrics_pipeline.core.errors import MetricsPipelineError, StoreError
from metrics_pipeline.core.fetches import Fetch, totals_of
from metrics_pipeline.core.points import Point
from metrics_pipeline.core.ports import Reading
from metrics_pipeline.orchestration.failures import failure
from metrics_pipeline.storage.tallies import CountOnce
from metrics_pipeline.storage.writer import Writer, WriteReport

MAX_VALUES_SHOWN = 40


class NothingStored(MetricsPipelineError):
    """All points of a result were refused."""

    def __init__(self, asset: str, report: WriteReport) -> None:
        reasons = ", ".join(f"{n} {reason}" for reason, n in report.rejected.items())
        examples = "; ".join(report.examples)
        super().__init__(f"{asset}: none of its points could be stored ({reasons}): {examples}")


class PointsIOManager(dg.IOManager):
    """Hands an asset's `Reading` to the writer; loads an asset's latest points."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def handle_output(self, context: dg.OutputContext, obj: Reading) -> None:
        """Store the points; a store that cannot is the step's failure, without a second reading.

        The fetches are counted in the transaction in which the points become the latest values;
        where it comes to none, by themselves.
        """
        once = CountOnce(totals_of(obj.fetches))
        try:
            report = self._writer.write(context.asset_key.to_user_string(), obj, once)
        except StoreError as error:
            with suppress(StoreError):
                self._writer.count(once)
            raise failure([error], kept=0) from error
        context.add_output_metadata(_describe(report, obj))
        if report.rejected and not (report.accepted or report.spooled):
            raise failure([NothingStored(context.asset_key.to_user_string(), report)], kept=0)

    def load_input(self, context: dg.InputContext) -> tuple[Point, ...]:
        """The latest points of the upstream asset; none if it never gave any."""
        snapshot = self._writer.latest(context.asset_key.to_user_string())
        return snapshot.points if snapshot else ()


def _describe(report: WriteReport, reading: Reading) -> dict[str, dg.MetadataValue]:
    shown: dict[str, dg.MetadataValue] = {
        "points_stored": dg.MetadataValue.int(report.accepted),
        "points_rejected": dg.MetadataValue.int(sum(report.rejected.values())),
        "snapshot": dg.MetadataValue.json(
            {"asset": report.snapshot.asset, "revision": report.snapshot.revision}
        ),
    }
    if report.spooled:
        shown["points_spooled"] = dg.MetadataValue.int(report.spooled)
    if reading.fetches:
        shown["fetches"] = describe_fetches(reading.fetches)
    if report.rejected:
        shown["rejected"] = _rejected_table(report.rejected)
        shown["rejected_examples"] = dg.MetadataValue.md(
            "\n".join(f"- {e}" for e in report.examples)
        )
    return {**_values(reading), **shown}


def _values(reading: Reading) -> dict[str, dg.MetadataValue]:
    """The numbers read, by field name, which Dagster plots; of many series only the count."""
    fields = [(name, value) for point in reading.points for name, value in point.fields.items()]
    if len(fields) > MAX_VALUES_SHOWN or len(fields) > len(dict(fields)):
        return {}
    return {
        name: dg.MetadataValue.int(value)
        if isinstance(value, int)
        else dg.MetadataValue.float(value)
        for name, value in fields
        if isinstance(value, int | float)
    }


def describe_fetches(fetches: Sequence[Fetch]) -> dg.MetadataValue:
    """As JSON, which takes half the CPU of a table."""
    return dg.MetadataValue.json(
        [
            {
                "source": fetch.source,
                "seconds": round(fetch.seconds, 3),
                "ok": fetch.succeeded,
                "failed": fetch.failed,
            }
            for fetch in fetches
        ]
    )


def _rejected_table(rejected: Mapping[str, int]) -> dg.MetadataValue:
    records = [dg.TableRecord({"reason": reason, "points": n}) for reason, n in rejected.items()]
    return dg.MetadataValue.table(records)
