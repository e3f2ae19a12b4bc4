"""Every source there is. Adding one is one file here and one line below."""

from __future__ import annotations

from collections.abc import Mapping

from metrics_pipeline.sources import aws_iot, azure_iot_hub, inventory
from metrics_pipeline.sources.spec import SourceSpec

SOURCES: Mapping[str, SourceSpec] = {
    spec.name: spec for spec in (azure_iot_hub.SPEC, aws_iot.SPEC, inventory.SPEC)
}
