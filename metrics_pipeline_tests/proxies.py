"""Proxies that the environment names."""

from __future__ import annotations

import pytest


def name_proxy(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """The proxy of the environment is `url`, for every host."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
