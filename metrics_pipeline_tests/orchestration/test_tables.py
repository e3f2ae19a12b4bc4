"""Tables in the metadata that the UI shows."""

import dagster as dg

from metrics_pipeline.orchestration.tables import table_of_counts


def test_counts_are_a_table_in_the_order_in_which_they_are_given() -> None:
    shown = table_of_counts("ended", "outcome", [("lost", 2), ("closed", 10)])
    assert shown == {
        "ended": dg.MetadataValue.table(
            [
                dg.TableRecord({"outcome": "lost", "count": 2}),
                dg.TableRecord({"outcome": "closed", "count": 10}),
            ],
            schema=dg.TableSchema(
                columns=[dg.TableColumn("outcome", "string"), dg.TableColumn("count", "int")]
            ),
        )
    }


def test_without_counts_there_is_no_table() -> None:
    assert table_of_counts("ended", "outcome", []) == {}
