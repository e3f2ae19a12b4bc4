"""Workers by settings alone: which jobs have them, and what Celery is told."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from metrics_pipeline.access.environment import SETTINGS_VARIABLE, STATE_DIR_VARIABLE
from metrics_pipeline.access.state_path import STATE_DIR_KEY
from metrics_pipeline.cli import main
from metrics_pipeline.core.device_assets import METRICS_JOB, STATUS_JOB
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.core.maintenance_assets import JOB as RETENTION_JOB
from metrics_pipeline.definitions import build_definitions
from metrics_pipeline.orchestration import run_events
from metrics_pipeline.orchestration.celery_polls import LivingWorker, build_worker
from metrics_pipeline.orchestration.poll_broker import broker_options
from metrics_pipeline.settings import Settings, WorkersSettings
from metrics_pipeline.settings_file import load_settings

URL = "redis://:hunter2-and-more@redis.example.net:6380/3"
OPTIONS = "broker_transport_options"


def make_settings(folder: Path, workers: Any) -> Settings:
    document = {
        "version": 1,
        "sources": {"inventory": {"database": {"url": "sqlite:///inventory.sqlite"}}},
        "polling": {"enabled": True, "shards": 2, "workers": workers},
    }
    return Settings.model_validate(document, context={STATE_DIR_KEY: folder})


def with_broker(folder: Path, url: str = URL, **more: Any) -> tuple[Settings, WorkersSettings]:
    (folder / "broker").write_text(url)
    settings = make_settings(folder, {"broker": {"file": "broker"}, **more})
    assert settings.sweeps.workers is not None
    return settings, settings.sweeps.workers


def executors(settings: Settings) -> dict[str, str]:
    """By the names of jobs."""
    built = build_definitions(settings)
    dg.Definitions.validate_loadable(built)
    jobs = (STATUS_JOB, METRICS_JOB, RETENTION_JOB)
    return {name: built.resolve_job_def(name).executor_def.name for name in jobs}


def test_polls_have_workers_and_other_jobs_do_not(tmp_path: Path) -> None:
    assert executors(with_broker(tmp_path)[0]) == {
        STATUS_JOB: "celery",
        METRICS_JOB: "celery",
        RETENTION_JOB: "in_process",
    }
    assert set(executors(make_settings(tmp_path, None)).values()) == {"in_process"}


def test_a_run_takes_no_address_of_the_broker(tmp_path: Path) -> None:
    """So there is no place in its configuration for one."""
    job = build_definitions(with_broker(tmp_path)[0]).resolve_job_def(METRICS_JOB)
    dg.validate_run_config(job, {})
    with pytest.raises(dg.DagsterInvalidConfigError, match="broker"):
        dg.validate_run_config(job, {"execution": {"config": {"broker": "redis://h"}}})


def test_an_address_in_the_settings_is_refused_and_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(
        f"version: 1\nsources: {{}}\npolling: {{workers: {{broker: '{URL}'}}}}\n", encoding="utf-8"
    )
    with pytest.raises(ConfigurationError, match="never written here") as refused:
        load_settings(file)
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["amqp://guest:hunter2@h//", "hunter2", "redis://:hunter2@", "redis://:hunter2@h:99999"]
)
def test_what_is_no_address_of_redis_is_told_without_it(tmp_path: Path, url: str) -> None:
    _, workers = with_broker(tmp_path, url)
    with pytest.raises(ConfigurationError, match="expected redis://") as refused:
        broker_options(workers, 300)
    assert f"file {tmp_path}/broker" in str(refused.value)
    assert "hunter2" not in str(refused.value)


def test_a_worker_keeps_a_poll_until_it_is_done_and_says_that_it_lives(tmp_path: Path) -> None:
    app = build_worker(*with_broker(tmp_path, lost_after_seconds=8, key_prefix="mine:"))
    conf = app.conf
    assert conf.broker_url == conf.result_backend == URL
    assert (conf.task_acks_late, conf.task_reject_on_worker_lost) == (True, True)
    assert conf.worker_prefetch_multiplier == 1
    assert conf.task_time_limit == 295
    assert conf[OPTIONS]["visibility_timeout"] == 8
    assert conf[OPTIONS]["unacked_restore_interval"] == 2
    assert conf[OPTIONS]["global_keyprefix"] == "mine:"
    (step,) = (each for each in app.steps["consumer"] if issubclass(each, LivingWorker))
    assert step.every_seconds == 2
    assert app.tasks["execute_plan"].acks_late


def test_with_tls_the_certificate_is_checked(tmp_path: Path) -> None:
    app = build_worker(*with_broker(tmp_path, URL.replace("redis:", "rediss:", 1)))
    assert app.conf.broker_use_ssl == {"ssl_cert_reqs": ssl.CERT_REQUIRED}
    known = app.backend.connparams
    assert known["ssl_cert_reqs"] == ssl.CERT_REQUIRED
    assert "SSL" in known["connection_class"].__name__


def test_without_the_extra_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_events, "find_spec", {}.get)
    with pytest.raises(ConfigurationError, match="pip install --require-hashes"):
        build_definitions(with_broker(tmp_path)[0])


def test_a_worker_without_such_settings_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (SETTINGS_VARIABLE, STATE_DIR_VARIABLE):
        monkeypatch.setenv(name, "")
    file = tmp_path / "settings.yaml"
    file.write_text("version: 1\nsources: {}\n")
    assert main(["worker", "--settings", str(file)]) == 1
    assert "polling.workers.broker" in capsys.readouterr().err
