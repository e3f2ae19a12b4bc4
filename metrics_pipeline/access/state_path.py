"""Paths in the settings: a relative one is below the state directory, wherever one starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, ValidationInfo

STATE_DIR_KEY = "state_dir"
"""The key of the validation context that holds the state directory."""


def state_dir_of(info: ValidationInfo) -> Path:
    """The state directory the settings are being read for; the working directory if none is."""
    context = info.context or {}
    return Path(context.get(STATE_DIR_KEY, "."))


def _resolve(path: Path, info: ValidationInfo) -> Path:
    try:
        return state_dir_of(info) / path.expanduser()
    except RuntimeError:
        raise ValueError("there is no such user's home; write the path from /") from None


StatePath = Annotated[Path, AfterValidator(_resolve)]
