"""The settings file: what is wrong with it is told with file, line, key and what was expected."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metrics_pipeline.access.environment import (
    SETTINGS_VARIABLE,
    STATE_DIR_VARIABLE,
    default_settings_file,
)
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.settings import Settings
from metrics_pipeline.settings_file import HEALTH_URLS, load_settings
from metrics_pipeline.storage.influx import InfluxStoreSettings

SECRET = "HostName=h.azure-devices.net;SharedAccessKey=hunter2"
INFLUXDB = """\
version: 1
sources: {}
store:
  kind: influxdb
  api: v2
  org: example
  token: {env: INFLUXDB_TOKEN}
"""


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "INFLUXDB_URL",
        "INFLUXDB_TOKEN",
        *HEALTH_URLS,
        SETTINGS_VARIABLE,
        STATE_DIR_VARIABLE,
    ):
        monkeypatch.delenv(name, raising=False)


def load(folder: Path, text: str | bytes) -> Settings:
    file = folder / "settings.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_settings(file)


def complaint(folder: Path, text: str | bytes) -> str:
    """What is said of a file that is wrong, without the folder's name."""
    with pytest.raises(ConfigurationError) as caught:
        load(folder, text)
    return str(caught.value).replace(f"{folder}/", "")


MISTAKES: Mapping[str, tuple[str | bytes, str]] = {
    "unknown key": (
        "version: 1\nsources: {}\nexporter:\n  prot: 1\n",
        "settings.yaml: line 4: exporter.prot: there is no such key (did you mean 'port'?)",
    ),
    "unknown key at the top": (
        "version: 1\nsources: {}\nexportr: {}\n",
        "settings.yaml: line 3: exportr: there is no such key (did you mean 'exporter'?)",
    ),
    "unknown key like no other": (
        "version: 1\nsources: {}\nexporter:\n  tls: {xyz: 1, certificate_file: a, key_file: b}\n",
        "line 4: exporter.tls.xyz: there is no such key; expected one of certificate_file, key",
    ),
    "unknown source": (
        "version: 1\nsources:\n  azure_iot_hubb: {}\n",
        "line 3: sources.azure_iot_hubb: there is no such key (did you mean 'azure_iot_hub'?)",
    ),
    "key of another kind of store": (
        "version: 1\nsources: {}\nstore:\n  kind: embedded\n  url: http://x\n",
        "line 5: store.url: there is no such key; expected one of busy_timeout_seconds, kind, path",
    ),
    "wrong type": (
        "version: 1\nsources: {}\nexporter:\n  port: many\n",
        (
            "line 4: exporter.port: expected a valid integer, unable to parse string as an integer"
            ", got text"
        ),
    ),
    "out of range": (
        "version: 1\nsources: {}\nexporter: {port: 70000}\n",
        "line 3: exporter.port: expected less than or equal to 65535, got 70000",
    ),
    "list for a section": (
        "version: 1\nsources: {}\nexporter: [1]\n",
        "line 3: exporter: expected a valid dictionary or instance of ExporterSettings, got a list",
    ),
    "missing key": ("sources: {}\n", "settings.yaml: line 1: the key 'version' is missing"),
    "missing key in a section": (
        "version: 1\nsources: {}\nexporter:\n  tls:\n    key_file: x\n",
        "line 4: exporter.tls: the key 'certificate_file' is missing",
    ),
    "version of before": ("version: 0\nsources: {}\n", "line 1: version: expected 1, got 0"),
    "later version": (
        "version: 2\nsorces: {}\n",
        "settings.yaml: it is of version 2 of the settings, and this release knows 1. Upgrade",
    ),
    "repeated key": (
        "version: 1\nsources: {}\nexporter:\n  port: 1\n  port: 2\n",
        "settings.yaml:5: port is given twice",
    ),
    "not YAML": (
        "version: 1\nsources: {\n",
        (
            "settings.yaml:3: is not YAML: while parsing a flow node, "
            "expected the node content, but found '<stream end>'"
        ),
    ),
    "tabs": (
        "version: 1\nsources:\n\tinventory: {}\n",
        (
            "settings.yaml:3: is not YAML: while scanning for the next token, "
            "found character '\\t' that cannot start any token"
        ),
    ),
    "not a mapping": ("- version\n", "settings.yaml: expected keys and values at the top"),
    "one word": ("version\n", "settings.yaml: expected keys and values at the top"),
    "empty": ("", "settings.yaml: expected keys and values at the top. Begin with `version: 1`."),
    "comments only": ("# nothing\n", "settings.yaml: expected keys and values at the top"),
    "two documents": (
        "version: 1\n---\nversion: 1\n",
        (
            "settings.yaml:2: is not YAML: expected a single document in the stream, "
            "but found another document"
        ),
    ),
    "control character": ("version: \x01\n", "settings.yaml: is not YAML: unacceptable character"),
    "not UTF-8": (b"version: \xff\n", "settings.yaml: cannot be read ('utf-8' codec"),
    "number as a key": ("version: 1\n5432: x\n", "settings.yaml:2: a key is not text"),
    "nothing as a key": ("version: 1\nnull: x\n", "settings.yaml:2: a key is not text"),
    "list as a key": ("version: 1\n? [a, b]\n: x\n", "settings.yaml:2: a key is not text"),
    "date": (
        "version: 2024-02-31\nsources: {}\n",
        "settings.yaml: line 1: version: expected 1, got text",
    ),
    "number without digits": ("version: 0b_\n", "settings.yaml:1: is not YAML: this number cannot"),
    "number of too many digits": (f"version: {'9' * 5000}\n", "settings.yaml:1: is not YAML: this"),
    "hexadecimal number without end": (
        f"version: 0x{'f' * 5000}\nsources: {{}}\n",
        (
            "line 1: version: expected Unable to parse input string as an integer, "
            "exceeded maximum size, got a very large number"
        ),
    ),
    "deep nesting": ("version: " + "[" * 5000, "settings.yaml:1: is nested too deeply"),
    "deep nesting in blocks": ("version:\n" + "- " * 5000, "settings.yaml:2: is nested too"),
    "no kind of store": (
        "version: 1\nsources: {}\nstore:\n  path: x\n",
        "line 3: store: expected the key 'kind' to be one of embedded, influxdb",
    ),
    "wrong kind of store": (
        "version: 1\nsources: {}\nstore:\n  kind: csv\n",
        "line 3: store: expected the key 'kind' to be one of 'embedded', 'influxdb'",
    ),
    "provider that is none": (
        "version: 1\nsources: {}\nfleet:\n  every_minutes: 5\n  provider: gcp\n",
        "line 5: fleet.provider: expected one of aws_iot, azure_iot_hub, got 'gcp'",
    ),
    "provider that cannot count devices": (
        "version: 1\nsources: {}\nfleet:\n  provider: inventory\n",
        "line 4: fleet.provider: expected one of aws_iot, azure_iot_hub, got 'inventory'",
    ),
    "provider without a section": (
        "version: 1\nsources: {}\nfleet:\n  provider: aws_iot\n",
        "line 4: fleet.provider: there is no section sources.aws_iot; add it",
    ),
    "default provider without a section": (
        "version: 1\nsources: {}\nfleet: {}\n",
        "line 3: fleet.provider: there is no section sources.azure_iot_hub; add it",
    ),
    "cadence that does not divide the hour": (
        "version: 1\nsources: {}\nfleet:\n  provider: aws_iot\n  every_minutes: 7\n",
        "line 5: fleet.every_minutes: expected one of (1, 2, 3,",
    ),
    "user without a name": (
        "version: 1\nsources: {}\nexporter:\n  basic_auth: {username: '', password: {env: X}}\n",
        "line 4: exporter.basic_auth.username: ",
    ),
    "two places for a secret": (
        (
            "version: 1\nsources: {}\n"
            "exporter:\n  basic_auth: {username: u, password: {env: A, file: b}}\n"
        ),
        "line 4: exporter.basic_auth.password: give exactly one of env and file",
    ),
    "home of nobody": (
        "version: 1\nsources: {}\nstore: {kind: embedded, path: ~nobody-at-all/x}\n",
        "line 3: store.path: there is no such user's home; write the path from /",
    ),
    "driver in a database's address": (
        "version: 1\nsources: {}\noperational_database: {url: 'postgresql+asyncpg://h/d'}\n",
        "line 3: operational_database.url: expected sqlite:///file or postgresql://",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_told_with_its_place_and_what_was_expected(
    mistake: str, tmp_path: Path
) -> None:
    text, expected = MISTAKES[mistake]
    assert expected in complaint(tmp_path, text)


def test_all_mistakes_are_told_at_once(tmp_path: Path) -> None:
    told = complaint(tmp_path, "version: 0\nsources: {}\nexporter:\n  port: -1\n  hots: x\n")
    assert "3 mistakes:\n" in told
    assert "line 1: version" in told
    assert "line 4: exporter.port" in told
    assert "line 5: exporter.hots" in told


@pytest.mark.parametrize(
    "value",
    [
        f"'{SECRET}'",
        "424242",
        "42.4242",
        "[hunter2]",
        "{value: hunter2}",
        "{env: [hunter2]}",
        "*hunter2",
        "&hunter2 x",
        "!hunter2 x",
        "%hunter2",
        "'hunter2",
        "@hunter2",
    ],
)
def test_a_secret_given_as_a_value_is_refused_and_never_shown(value: str, tmp_path: Path) -> None:
    text = f"version: 1\nsources:\n  azure_iot_hub:\n    connection_string: {value}\n"
    told = complaint(tmp_path, text)
    assert not any(part in told for part in ("hunter2", "424242", "42.4242"))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:hunter2@h/d",
        "postgresql://u:hunter2/@h/d",
        "postgresql://u@h/d?password=hunter2",
        "postgresql://u@h:hunter2/d",
        "hunter2",
    ],
)
def test_a_password_in_the_address_of_a_database_is_refused_and_never_shown(
    url: str, tmp_path: Path
) -> None:
    told = complaint(tmp_path, f"version: 1\nsources: {{}}\noperational_database: {{url: '{url}'}}")
    assert "operational_database.url: " in told
    assert "hunter2" not in told


@pytest.mark.parametrize(
    "tagged",
    [
        "!!python/object/apply:os.system ['echo harm > {harm}']",
        "!!python/object/new:os.system ['echo harm > {harm}']",
        "!!timestamp x",
        "!!int ''",
        "!!bool x",
    ],
)
def test_yaml_tags_are_refused_and_nothing_is_done(tagged: str, tmp_path: Path) -> None:
    told = complaint(tmp_path, f"version: {tagged.format(harm=tmp_path / 'harm')}\n")
    assert "settings.yaml:1: tags (!), anchors (&) and aliases (*) are not read here" in told
    assert not (tmp_path / "harm").exists()


def test_an_alias_bomb_is_refused_at_once(tmp_path: Path) -> None:
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 50)]
    told = complaint(tmp_path, "\n".join(["version: 1", "a0: &a0 [x]", *levels]))
    assert "settings.yaml:2: tags (!), anchors (&)" in told


def test_a_file_that_is_not_there_is_told_with_how_to_name_another(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"no\.yaml: cannot be read .*--settings"):
        load_settings(tmp_path / "no.yaml")


def test_a_folder_is_no_settings_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot be read .*Is a directory"):
        load_settings(tmp_path)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    assert load(tmp_path, "\ufeffversion: 1\nsources: {}\n").version == 1


def test_the_environment_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(tmp_path, "version: 1\nsources: {}\nexporter: {port: 1234}\n")
    monkeypatch.setenv(SETTINGS_VARIABLE, str(tmp_path / "settings.yaml"))
    assert load_settings().exporter.port == 1234


def test_without_a_choice_the_settings_that_ship_are_read() -> None:
    assert load_settings() == load_settings(default_settings_file())


def url_of(settings: Settings) -> str:
    assert isinstance(settings.store, InfluxStoreSettings)
    return settings.store.url


@pytest.mark.parametrize("line", ["", "  url: http://file:8086\n"])
def test_influxdb_url_in_the_environment_wins_over_the_file(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFLUXDB_URL", "http://environment:8086")
    assert url_of(load(tmp_path, INFLUXDB + line)) == "http://environment:8086"


@pytest.mark.parametrize("line", ["", "  url: http://file:8086\n"])
def test_a_token_in_the_environment_is_the_one_that_is_used(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFLUXDB_URL", "http://environment:8086")
    monkeypatch.setenv("INFLUXDB_TOKEN", "from-the-environment")
    without = INFLUXDB.replace("  token: {env: INFLUXDB_TOKEN}\n", "")
    for text in (without, without + "  token: {file: token}\n"):
        store = load(tmp_path, text + line).store
        assert isinstance(store, InfluxStoreSettings)
        assert store.token is not None
        assert store.token.read() == "from-the-environment"


def test_without_a_token_in_the_environment_the_settings_name_it(tmp_path: Path) -> None:
    text = INFLUXDB.replace("{env: INFLUXDB_TOKEN}", "{file: token}")
    store = load(tmp_path, text + "  url: http://file:8086\n").store
    assert isinstance(store, InfluxStoreSettings)
    assert str(store.token).startswith("file ")


def test_influxdb_url_does_not_touch_another_kind_of_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFLUXDB_URL", "http://environment:8086")
    assert load(tmp_path, "version: 1\nsources: {}\nstore: {kind: embedded}\n").store.kind == (
        "embedded"
    )


@pytest.mark.parametrize("line", ["", "  url: http://file:8086\n"])
def test_a_wrong_influxdb_url_is_told_as_the_environments_mistake(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFLUXDB_URL", "not an address")
    assert "settings.yaml: environment variable INFLUXDB_URL: " in complaint(
        tmp_path, INFLUXDB + line
    )


PLATFORM = "version: 1\nsources: {}\nplatform:\n  services:\n"
INGEST_URLS = [
    "    ingest: {url: 'http://file:8080/health'}\n",
    "    ingest: {url_from: {file: ingest_url}}\n",
    "    evaluator: {url: 'http://file:8080/health'}\n",
    "    {}\n",
]


def health_url_of(settings: Settings, service: str) -> str | None:
    return settings.platform.services[service].url


@pytest.mark.parametrize("line", INGEST_URLS)
def test_a_health_url_in_the_environment_wins_over_the_file(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGEST_HEALTH_URL", "http://environment:8080/health")
    loaded = load(tmp_path, PLATFORM + line)
    assert health_url_of(loaded, "ingest") == "http://environment:8080/health"


@pytest.mark.parametrize("section", ["", "platform: {}\n", "platform: {services: {}}\n"])
def test_every_service_of_the_contract_has_its_variable(
    section: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("INGEST", "EVALUATOR", "DISPATCHER", "DELIVERY"):
        monkeypatch.setenv(f"{name}_HEALTH_URL", f"http://{name.lower()}/health")
    loaded = load(tmp_path, "version: 1\nsources: {}\n" + section)
    for name in ("ingest", "evaluator", "dispatcher", "delivery"):
        assert health_url_of(loaded, name) == f"http://{name}/health"


def test_the_rest_of_a_services_settings_stays_as_it_is_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGEST_HEALTH_URL", "http://environment:8080/health")
    loaded = load(tmp_path, PLATFORM + "    ingest: {url: 'http://file', timeout_seconds: 2}\n")
    assert loaded.platform.services["ingest"].timeout_seconds == 2


@pytest.mark.parametrize("line", INGEST_URLS)
def test_a_wrong_health_url_is_told_as_the_environments_mistake(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGEST_HEALTH_URL", "not-an-address-but-a-secret")
    said = complaint(tmp_path, PLATFORM + line)
    assert "settings.yaml: environment variable INGEST_HEALTH_URL: expected http://" in said
    assert "a-secret" not in said


@pytest.mark.parametrize(
    "platform", ["null", "[]", "3", "{services: []}", "{services: null}", "{services: {ingest: 3}}"]
)
def test_a_health_url_does_not_hide_that_the_file_is_wrong(
    platform: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INGEST_HEALTH_URL", "http://environment:8080/health")
    content = f"version: 1\nsources: {{}}\nplatform: {platform}\n"
    assert "platform" in complaint(tmp_path, content)


def test_the_interval_in_the_environment_wins_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METRICS_COLLECTION_INTERVAL", "7")
    content = "version: 1\nsources: {}\nplatform: {sample_every_seconds: 9}\n"
    assert load(tmp_path, content).platform.sample_every_seconds == 7


def test_a_wrong_interval_is_told_as_the_environments_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METRICS_COLLECTION_INTERVAL", "often")
    said = complaint(tmp_path, "version: 1\nsources: {}\n")
    assert "environment variable METRICS_COLLECTION_INTERVAL" in said


WORDS = [
    *("version", "sources", "fleet", "store", "exporter", "operational_database", "simulator"),
    *("platform", "services", "ingest", "url_from", "counters"),
    *("kind", "url", "port", "path", "azure_iot_hub", "connection_string", "env", "password"),
    *("embedded", "influxdb", "1", "0x", "2024-01-01", "1:30", ".nan", ".inf", "-.inf", "null"),
    *("yes", "~x/y", "=", "<<", "postgresql://a:b@c/d", "sqlite:///x"),
]
SYNTAX = ["\n", "\n  ", "\n    ", ": ", " ", ", ", "- ", "? ", "{", "}", "[", "]", "'", '"', "#"]
MORE_SYNTAX = ["&a ", "*a", "!!int ", "!x ", "|", ">", "%", "@", "`", "---\n", "...\n", "\t", "\\"]
ANY_TEXT = st.one_of(
    st.text(),
    st.lists(st.sampled_from([*WORDS, *SYNTAX, *MORE_SYNTAX]), max_size=40).map("".join),
    st.lists(
        st.tuples(st.sampled_from(WORDS), st.sampled_from(WORDS) | st.text(max_size=8)),
        max_size=8,
    ).map(lambda pairs: "version: 1\nsources: {}\n" + "\n".join(f"{k}: {v}" for k, v in pairs)),
)


def is_judged(file: Path) -> bool:
    """Whether `file` is settings, or a mistake that names it; anything else is raised."""
    try:
        return isinstance(load_settings(file), Settings)
    except ConfigurationError as error:
        return str(error).startswith(str(file))


@given(text=ANY_TEXT)
@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_text_is_settings_or_a_configuration_error(tmp_path: Path, text: str) -> None:
    file = tmp_path / "any.yaml"
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    assert is_judged(file)


SECTIONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(WORDS) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(
    content=st.fixed_dictionaries(
        {"version": st.just(1), "sources": SECTIONS},
        optional={
            name: SECTIONS for name in Settings.model_fields if name not in ("version", "sources")
        },
    )
)
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_content_is_settings_or_a_configuration_error(
    tmp_path: Path, content: dict[str, object]
) -> None:
    file = tmp_path / "any.yaml"
    file.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    assert is_judged(file)


@pytest.mark.parametrize(
    ("events", "says"),
    [
        ("{transport: {kind: kafka}}", r"events\.transport.*redis_stream.*json_lines.*log"),
        ("{transport: {kind: redis_stream}}", r"events\.transport.*url"),
        ("{transport: {kind: json_lines, rotate_bytes: 10}}", r"rotate_bytes.*65536"),
        ("{transport: {kind: redis_stream, url: {env: X}, stream: ''}}", r"stream"),
        ("{queue_size: 0}", r"events\.queue_size.*1"),
        ("{publish_metrics: sometimes}", r"events\.publish_metrics"),
        ("{transports: {kind: log}}", r"transports"),
    ],
)
def test_where_events_go_is_told_in_full_where_it_is_wrong(
    events: str, says: str, tmp_path: Path
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(f"version: 1\nsources: {{}}\nevents: {events}\n")
    with pytest.raises(ConfigurationError, match=f"(?s){says}"):
        load_settings(file)


def test_an_address_of_redis_given_as_a_value_is_refused_and_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    url = "redis://:hunter2@redis:6379/0"
    transport = f"{{kind: redis_stream, url: '{url}'}}"
    file.write_text(f"version: 1\nsources: {{}}\nevents: {{transport: {transport}}}\n")
    with pytest.raises(ConfigurationError, match=r"give {env: NAME} or {file: PATH}") as caught:
        load_settings(file)
    assert "hunter2" not in str(caught.value)
