"""The command `metrics-pipeline`: exit status 0 is fine, 1 something is wrong, 2 wrong usage.

Heavy imports are inside the subcommands, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from metrics_pipeline import __version__
from metrics_pipeline.access.environment import (
    SETTINGS_VARIABLE,
    STATE_DIR_VARIABLE,
    make_dagster_home,
    past_proxies,
    state_dir,
)
from metrics_pipeline.access.garbage_collection import importing
from metrics_pipeline.core.errors import ConfigurationError, MetricsPipelineError
from metrics_pipeline.devices_cli import add_devices
from metrics_pipeline.events_cli import add_events
from metrics_pipeline.telemetry_cli import add_telemetry

if TYPE_CHECKING:
    from metrics_pipeline.orchestration.instance_findings import Evaluated
    from metrics_pipeline.settings import Settings

MAX_PORT = 65535


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit status."""
    options = build_parser().parse_args(arguments)
    _export_choices(options)
    _set_up_logging()
    try:
        status: int = options.command(options)
    except MetricsPipelineError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 1
    return status


def _set_up_logging() -> None:
    """Our own news, and of the libraries only what is wrong."""
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("metrics_pipeline").setLevel(logging.INFO)
    for handler in logging.getLogger().handlers:
        # Dagster's PostgreSQL storage tells every try, on several lines, through the root logger.
        handler.addFilter(lambda record: record.name != "root")


def _leave_its_news_to_dagster() -> None:
    """A handler of its own prints them; with that of the root they would be there twice."""
    logging.getLogger("dagster").propagate = False


def build_parser() -> argparse.ArgumentParser:
    """All subcommands and their options."""
    parser = argparse.ArgumentParser(
        prog="metrics-pipeline", description="Collects and shows the numbers of a device fleet."
    )
    parser.add_argument("-V", "--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands)
    _add_check(commands)
    _add_doctor(commands)
    _add_daemon(commands)
    _add_code_server(commands)
    _add_exporter(commands)
    _add_gateway(commands)
    _add_worker(commands)
    _add_simulate(commands)
    add_devices(commands, _add)
    add_telemetry(commands, _add)
    add_events(commands, _add)
    _add_dashboards(commands)
    return parser


def _add(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    what: str,
    example: str,
    *,
    below: bool = False,
) -> argparse.ArgumentParser:
    """`below` is for a command of a command: what was said to the upper one stays."""
    default = argparse.SUPPRESS if below else None
    parser = commands.add_parser(
        name, help=what, description=what, epilog=f"example: metrics-pipeline {example}"
    )
    parser.add_argument(
        "--settings", type=Path, default=default, metavar="FILE", help="the settings, a YAML file"
    )
    parser.add_argument(
        "--state-dir",
        type=Path,
        default=default,
        metavar="DIR",
        help="where everything is kept (default .state)",
    )
    return parser


def _port(given: str) -> int:
    if given.isascii() and given.isdigit() and int(given) <= MAX_PORT:
        return int(given)
    raise argparse.ArgumentTypeError(f"expected a number from 0 to {MAX_PORT}, got {given!r}")


def _number(given: str) -> int:
    if given.isascii() and given.isdigit() and int(given) > 0:
        return int(given)
    raise argparse.ArgumentTypeError(f"expected a number above 0, got {given!r}")


def _seconds(given: str) -> float:
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if seconds > 0:
        return seconds
    raise argparse.ArgumentTypeError(f"expected a number of seconds above 0, got {given!r}")


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _add(commands, "run", "Run everything on this machine.", "run --for 90")
    parser.add_argument(
        "--for", type=_seconds, dest="for_seconds", metavar="SECONDS", help="end after SECONDS"
    )
    parser.add_argument("--webserver-port", type=_port, default=3000, metavar="PORT")
    parser.add_argument(
        "--exporter-port", type=_port, metavar="PORT", help="default: the settings'"
    )
    parser.add_argument("--gateway-port", type=_port, metavar="PORT", help="default: the settings'")
    parser.add_argument(
        "--no-simulator", action="store_true", help="do not start the simulated IoT Hub"
    )
    parser.set_defaults(command=_run)


def _add_check(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _add(
        commands,
        "check",
        "Read the settings, try all they name, and say what works.",
        "check --settings fleet.yaml",
    )
    parser.add_argument(
        "--upgrade",
        action="store_true",
        help="first change the embedded store's file, if an earlier release made it; nothing else "
        "may run",
    )
    parser.set_defaults(command=_check)


def _add_doctor(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "Say what is wrong with what runs, and what to do."
    parser = _add(commands, "doctor", about, "doctor --settings fleet.yaml")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--workspace",
        type=Path,
        metavar="FILE",
        help="the daemon's workspace file (default: workspace.yaml in DAGSTER_HOME)",
    )
    for name in ("exporter", "gateway"):
        parser.add_argument(
            f"--{name}-url", metavar="URL", help=f"where the {name} is, if not as the settings say"
        )
    parser.set_defaults(command=_doctor)


def _add_daemon(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "Run Dagster's daemon; anew when the clock is set back."
    parser = _add(commands, "daemon", about, "daemon --workspace workspace.yaml")
    parser.add_argument(
        "--workspace",
        type=Path,
        metavar="FILE",
        help="where the code server is (default: workspace.yaml in DAGSTER_HOME)",
    )
    parser.set_defaults(command=_daemon)


def _add_code_server(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about, example = "Serve the definitions to Dagster, and start runs.", "code-server --port 4000"
    parser = _add(commands, "code-server", about, example)
    parser.add_argument("--host", default="127.0.0.1", help="default 127.0.0.1")
    parser.add_argument("--port", type=_port, required=True, metavar="PORT")
    parser.add_argument(
        "--runs-elsewhere",
        action="store_true",
        help="where Dagster's run launcher starts them elsewhere, in pods of their own, say: keep "
        "no process to fork them from",
    )
    parser.set_defaults(command=_code_server)


def _add_exporter(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _add(commands, "exporter", "Serve /metrics to Prometheus.", "exporter --port 9464")
    parser.add_argument("--port", type=_port, metavar="PORT", help="default: the settings'")
    parser.add_argument(
        "--dagster-url", metavar="URL", help="Dagster's UI, if the settings do not say where it is"
    )
    parser.set_defaults(command=_exporter)


def _add_gateway(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "Take the telemetry of robots over WebSocket."
    parser = _add(commands, "gateway", about, "gateway --port 8765")
    parser.add_argument("--port", type=_port, metavar="PORT", help="default: the settings'")
    parser.set_defaults(command=_gateway)


def _add_worker(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about = "Poll devices for runs of other machines (polling.workers)."
    parser = _add(commands, "worker", about, "worker --at-once 4")
    parser.add_argument(
        "--at-once",
        type=_number,
        default=4,
        metavar="N",
        help="so many polls at a time, in a process each (default 4)",
    )
    parser.add_argument("--name", metavar="NAME", help="what it is called; default: celery")
    parser.set_defaults(command=_worker)


def _add_simulate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = _add(commands, "simulate", "Run the simulated IoT Hub of the settings.", "simulate")
    parser.add_argument(
        "--gateway-port", type=_port, metavar="PORT", help="to which its robots send"
    )
    parser.set_defaults(command=_simulate)


def _add_dashboards(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    about, example = "Write the Grafana dashboards as files.", "dashboards export dashboards"
    actions = _add(commands, "dashboards", about, example).add_subparsers(
        required=True, metavar="ACTION"
    )
    parser = _add(
        actions,
        "export",
        "Write each dashboard into a JSON file of DIR, for Grafana's provisioning or its import.",
        example,
        below=True,
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="made if it is not there")
    parser.set_defaults(command=_export_dashboards)


def _export_choices(options: argparse.Namespace) -> None:
    """Options become environment, which is what every process of ours reads."""
    if options.state_dir is not None:
        os.environ[STATE_DIR_VARIABLE] = str(options.state_dir.absolute())
    if options.settings is not None:
        os.environ[SETTINGS_VARIABLE] = str(options.settings.absolute())


def _choose_dagster_home() -> None:
    """The folder that DAGSTER_HOME names, else the one below the state directory."""
    if os.environ.get("DAGSTER_HOME"):
        return
    try:
        home = make_dagster_home(state_dir())
    except OSError as error:
        raise ConfigurationError(
            str(state_dir()),
            f"nothing can be written there ({error.strerror})",
            "Make it writable, or give another with --state-dir.",
        ) from error
    os.environ["DAGSTER_HOME"] = str(home)


def _tell(progress: str) -> None:
    print(progress, file=sys.stderr, flush=True)


def _run(options: argparse.Namespace) -> int:
    with importing():
        from metrics_pipeline.settings_file import load_settings
        from metrics_pipeline.stack.layout import choose_layout, lock
        from metrics_pipeline.stack.run import run
        from metrics_pipeline.storage.open import upgrade_store

    settings = load_settings()
    with lock(state_dir()):
        layout = choose_layout(
            webserver_port=options.webserver_port,
            exporter_port=settings.exporter.port
            if options.exporter_port is None
            else options.exporter_port,
            gateway_port=_gateway_port(settings, options.gateway_port),
        )
        # Else a run would have to do it, and would be ended before it has.
        upgrade_store(settings.store, _tell)
        return run(
            layout,
            settings,
            with_simulator=not options.no_simulator,
            for_seconds=options.for_seconds,
        )


def _gateway_port(settings: Settings, given: int | None) -> int:
    """0, any free one, where there is no gateway."""
    if settings.gateway is None:
        return 0
    return settings.gateway.port if given is None else given


def _check(options: argparse.Namespace) -> int:
    with importing():
        from metrics_pipeline.preflight import check_everything, render
        from metrics_pipeline.settings_file import load_settings
        from metrics_pipeline.storage.open import upgrade_store

    settings = load_settings()
    if options.upgrade:
        upgrade_store(settings.store, _tell)
    _choose_dagster_home()
    attempts = check_everything(settings)
    print(render(attempts))
    return 0 if all(attempt.is_well for attempt in attempts) else 1


def _doctor(options: argparse.Namespace) -> int:
    with importing():
        from metrics_pipeline.doctor.examination import (
            Whereabouts,
            examine,
            find_home,
            is_well,
            render,
            render_json,
        )

    home = find_home()
    os.environ["DAGSTER_HOME"] = str(home)
    os.environ.update(past_proxies(os.environ))  # gRPC reads them there
    where = Whereabouts(
        home,
        options.workspace or home / "workspace.yaml",
        options.exporter_url,
        options.gateway_url,
    )
    findings = examine(*_load_definitions(), where)
    print(render_json(findings) if options.json else render(findings))
    return 0 if is_well(findings) else 1


def _daemon(options: argparse.Namespace) -> int:
    with importing():
        from metrics_pipeline.orchestration.daemon import run_daemon

    _choose_dagster_home()
    _leave_its_news_to_dagster()
    run_daemon(options.workspace or Path(os.environ["DAGSTER_HOME"]) / "workspace.yaml")
    return 0


def _load_definitions() -> tuple[Settings | ConfigurationError, Evaluated | None]:
    """The settings and what they have evaluated; of settings that are wrong, what is wrong."""
    with importing():
        from metrics_pipeline.definitions import build_definitions
        from metrics_pipeline.orchestration.instance_findings import what_is_evaluated
        from metrics_pipeline.settings_file import load_settings

    try:
        settings = load_settings()
        return settings, what_is_evaluated(build_definitions(settings))
    except ConfigurationError as error:
        return error, None


def _code_server(options: argparse.Namespace) -> int:
    _choose_dagster_home()
    _leave_its_news_to_dagster()
    with importing():
        from metrics_pipeline.warm_runs import serve

    code = ["--module-name", "metrics_pipeline.definitions", "--location-name", "metrics_pipeline"]
    address = ["--host", options.host, "--port", str(options.port)]
    serve([*code, *address], has_runs=not options.runs_elsewhere)
    return 0


def _exporter(options: argparse.Namespace) -> int:
    with importing():
        from metrics_pipeline.exporter.serve import serve
        from metrics_pipeline.settings_file import load_settings

    settings = load_settings()
    _choose_dagster_home()
    serve(settings, options.port, options.dagster_url)
    return 0


def _gateway(options: argparse.Namespace) -> int:
    with importing():
        from metrics_pipeline.gateway.serve import serve
        from metrics_pipeline.settings_file import load_settings

    serve(load_settings(), options.port)
    return 0


def _worker(options: argparse.Namespace) -> int:
    from metrics_pipeline.settings_file import load_settings

    settings = load_settings()
    workers = settings.sweeps.workers
    if not settings.polls_devices or workers is None:
        raise ConfigurationError(
            "polling.workers",
            "there is no such section, or no device is polled",
            "Set polling.enabled, and polling.workers.broker.",
        )
    _choose_dagster_home()
    with importing():
        from metrics_pipeline.orchestration.celery_polls import work

        # Before the processes that poll are forked: they share it.
        import_module("metrics_pipeline.definitions")
    work(settings, workers, options.at_once, options.name)
    return 0


def _simulate(options: argparse.Namespace) -> int:
    with importing():
        from metrics_pipeline.settings_file import load_settings
        from metrics_pipeline.stack.simulate import simulate

    simulate(load_settings(), options.gateway_port)
    return 0


def _export_dashboards(options: argparse.Namespace) -> int:
    from metrics_pipeline.dashboards.export import export

    for path in export(options.folder):
        print(path)
    return 0
