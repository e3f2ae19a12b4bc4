"""How both engines cut, halve, continue and give up: the same questions to the same agents."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metrics_pipeline.access.snmp_messages import ErrorStatus, Pdu
from metrics_pipeline.sources.snmp_engines.asking import AskingSession
from metrics_pipeline.sources.snmp_engines.fast import FastEngine
from metrics_pipeline.sources.snmp_engines.reference import ReferenceEngine
from metrics_pipeline.sources.snmp_engines.spec import Community, EngineSettings
from metrics_pipeline.sources.snmp_session import (
    SnmpFailure,
    SnmpMalformed,
    SnmpRefused,
    SnmpTimeout,
)
from metrics_pipeline_tests.hostile_snmp_agent import (
    NO_SUCH_INSTANCE,
    NOTHING,
    Answer,
    Mib,
    Question,
    hostile_agent,
    number,
    text,
)

T = TypeVar("T")
Engine = type[FastEngine] | type[ReferenceEngine]

ENGINES: list[Engine] = [FastEngine, ReferenceEngine]
both_engines = pytest.mark.parametrize("engine", ENGINES)
both_versions = pytest.mark.parametrize("version", [0, 1], ids=["v1", "v2c"])

SYSTEM = "1.3.6.1.2.1.1"
IN, OUT, NAMES, NOT_THERE = (f"1.3.6.1.2.1.2.2.1.{column}" for column in (10, 16, 2, 99))
TABLE = {
    **{f"{IN}.{row}": number(row) for row in range(1, 100)},
    **{f"{OUT}.{row}": number(-row) for row in range(1, 70)},
    **{f"{NAMES}.{row}": text(f"eth{row}") for row in range(1, 100)},
}


def ask(
    engine: Engine,
    answer: Answer,
    question: Callable[[AskingSession], Awaitable[T]],
    version: int = 1,
    limits: EngineSettings | None = None,
) -> T:
    """What `question` gives over a session with an agent that answers with `answer`."""

    async def run() -> T:
        limits_or_ours = limits or EngineSettings(timeout_seconds=5, tries=1)
        async with (
            hostile_agent(answer) as address,
            engine(limits_or_ours) as opened,
            opened.session(address, Community(version, "public")) as session,
        ):
            return await question(session)

    return asyncio.run(run())


@both_engines
@both_versions
def test_variables_the_agent_has_not_are_absent(engine: Engine, version: int) -> None:
    oids = [f"{IN}.{row}" for row in range(95, 105)]
    found = ask(engine, Mib(TABLE), lambda session: session.get(oids), version)
    assert found == {f"{IN}.{row}": row for row in range(95, 100)}


@both_engines
def test_nothing_asked_is_no_request(engine: Engine) -> None:
    mib = Mib(TABLE)
    assert ask(engine, mib, lambda session: session.get([])) == {}
    assert ask(engine, mib, lambda session: session.walk([])) == {}
    assert mib.questions == []


@both_engines
@both_versions
def test_many_variables_are_cut_into_as_few_requests_as_the_limit_allows(
    engine: Engine, version: int
) -> None:
    mib = Mib(TABLE)
    limits = EngineSettings(timeout_seconds=5, max_varbinds=40)
    found = ask(engine, mib, lambda session: session.get(list(TABLE)), version, limits)
    assert len(found) == len(TABLE)
    assert [len(question.oids) for question in mib.questions] == [40, 40, 40, 40, 40, 40, 27]


@both_engines
@both_versions
def test_what_is_too_big_is_asked_in_halves(engine: Engine, version: int) -> None:
    mib = Mib(TABLE, max_variables=7)
    oids = [f"{IN}.{row}" for row in range(1, 61)]
    found = ask(engine, mib, lambda session: session.get(oids), version)
    assert list(found.values()) == list(range(1, 61))


@both_engines
def test_a_variable_that_alone_is_too_big_is_absent(engine: Engine) -> None:
    assert ask(engine, Mib(TABLE, max_variables=0), lambda s: s.get([f"{IN}.1", f"{IN}.2"])) == {}


@both_engines
def test_an_agent_that_answers_the_first_few_is_asked_for_the_rest(engine: Engine) -> None:
    oids = [f"{IN}.{row}" for row in range(1, 31)]
    found = ask(engine, Mib(TABLE, cut_at=8), lambda session: session.get(oids))
    assert list(found.values()) == list(range(1, 31))


@both_engines
@pytest.mark.parametrize(
    "status", [ErrorStatus.GENERAL, ErrorStatus.NO_ACCESS, ErrorStatus.NO_SUCH_NAME]
)
def test_a_variable_that_is_blamed_is_left_out_and_the_others_are_asked_again(
    engine: Engine, status: ErrorStatus
) -> None:
    def answer(question: Question) -> bytes:
        if f"{IN}.2" in question.oids:
            return question.error(status, question.oids.index(f"{IN}.2") + 1)
        return question.reply([(oid, TABLE[oid]) for oid in question.oids])

    found = ask(engine, answer, lambda session: session.get([f"{IN}.{n}" for n in (1, 2, 3)]))
    assert found == {f"{IN}.1": 1, f"{IN}.3": 3}


@pytest.mark.parametrize(
    ("engine", "index"), [(FastEngine, 0), (ReferenceEngine, 0), (FastEngine, 99)]
)
def test_an_error_that_blames_nothing_is_narrowed_down(engine: Engine, index: int) -> None:
    def answer(question: Question) -> bytes:
        if f"{IN}.2" in question.oids:
            return question.error(ErrorStatus.GENERAL, index)
        return question.reply([(oid, TABLE[oid]) for oid in question.oids])

    found = ask(engine, answer, lambda session: session.get([f"{IN}.{n}" for n in range(1, 9)]))
    assert sorted(found.values()) == [1, 3, 4, 5, 6, 7, 8]


@both_engines
def test_no_access_to_anything_is_a_refusal(engine: Engine) -> None:
    with pytest.raises(SnmpRefused, match="noAccess"):
        ask(engine, lambda q: q.error(ErrorStatus.NO_ACCESS, 1), lambda s: s.get([f"{IN}.1"]))


@both_engines
def test_an_authorization_error_is_a_refusal_of_a_get_and_of_a_walk(engine: Engine) -> None:
    def answer(question: Question) -> bytes:
        return question.error(ErrorStatus.AUTHORIZATION)

    with pytest.raises(SnmpRefused, match="authorizationError"):
        ask(engine, answer, lambda session: session.get([f"{IN}.1"]))
    with pytest.raises(SnmpRefused, match="authorizationError"):
        ask(engine, answer, lambda session: session.walk([IN]))


@both_engines
def test_a_failure_carries_what_earlier_requests_brought(engine: Engine) -> None:
    mib, limits = Mib(TABLE), EngineSettings(timeout_seconds=0.2, tries=1, max_varbinds=2)

    def answer(question: Question) -> bytes | None:
        return mib(question) if f"{IN}.1" in question.oids else None

    with pytest.raises(SnmpTimeout) as failed:
        ask(engine, answer, lambda s: s.get([f"{IN}.{n}" for n in (1, 2, 3)]), limits=limits)
    assert failed.value.answered == {f"{IN}.1": 1, f"{IN}.2": 2}


@both_engines
@both_versions
@pytest.mark.parametrize(
    "mib",
    [
        Mib(TABLE),
        Mib(TABLE, max_variables=13),
        Mib(TABLE, max_variables=1),
        Mib(TABLE, cut_at=1),
        Mib(TABLE, cut_at=11),
        Mib(TABLE, repetitions=1),
        Mib(TABLE, repetitions=50),
    ],
    ids=["usual", "tooBig", "tooBig for two", "cut to one", "cut", "one row", "too many rows"],
)
def test_columns_are_walked_side_by_side_whatever_the_agent_sends_at_once(
    engine: Engine, version: int, mib: Mib
) -> None:
    found = ask(engine, mib, lambda s: s.walk([IN, OUT, NAMES, NOT_THERE]), version)
    assert found == {
        IN: {str(row): row for row in range(1, 100)},
        OUT: {str(row): -row for row in range(1, 70)},
        NAMES: {str(row): f"eth{row}".encode() for row in range(1, 100)},
        NOT_THERE: {},
    }
    assert list(found[IN]) == [str(row) for row in range(1, 100)]


@both_engines
@both_versions
@pytest.mark.parametrize("step", [0, -1], ids=["the same again", "back"])
def test_names_that_do_not_increase_are_malformed(engine: Engine, version: int, step: int) -> None:
    def answer(question: Question) -> bytes:
        row = 500 if question.oids == (IN,) else int(question.oids[0].rpartition(".")[2]) + step
        return question.reply([(f"{IN}.{row}", number(1))])

    with pytest.raises(SnmpMalformed, match="does not increase"):
        ask(engine, answer, lambda session: session.walk([IN]), version)


@both_engines
def test_a_table_that_ends_before_itself_is_malformed(engine: Engine) -> None:
    with pytest.raises(SnmpMalformed, match="does not increase"):
        ask(
            engine,
            lambda question: question.reply([(f"{SYSTEM}.1.0", number(1))]),
            lambda session: session.walk([IN]),
        )


def test_a_table_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metrics_pipeline.sources.snmp_engines.asking.MAX_ROWS", 1000)

    def answer(question: Question) -> bytes:
        last = question.oids[0].removeprefix(IN).removeprefix(".")
        rows = range(int(last or 0) + 1, int(last or 0) + 100)
        return question.reply([(f"{IN}.{row}", number(1)) for row in rows])

    with pytest.raises(SnmpMalformed, match="does not end"):
        ask(FastEngine, answer, lambda session: session.walk([IN]))


@both_engines
def test_an_error_within_a_table_is_no_part_of_a_table(engine: Engine) -> None:
    mib = Mib(TABLE)

    def answer(question: Question) -> bytes:
        if question.oids == (IN,):
            return mib(question)
        return question.error(ErrorStatus.GENERAL, 1)

    with pytest.raises(SnmpMalformed, match="within the table"):
        ask(engine, answer, lambda session: session.walk([IN]))


@both_engines
def test_a_column_that_is_an_error_from_the_start_is_empty(engine: Engine) -> None:
    mib = Mib(TABLE)

    def answer(question: Question) -> bytes:
        if NOT_THERE in question.oids:
            return question.error(ErrorStatus.GENERAL, question.oids.index(NOT_THERE) + 1)
        return mib(question)

    found = ask(engine, answer, lambda session: session.walk([NOT_THERE, IN]))
    assert (len(found[NOT_THERE]), len(found[IN])) == (0, 99)


@both_engines
def test_a_cell_that_is_null_is_absent_and_the_walk_goes_on(engine: Engine) -> None:
    cells = {f"{IN}.1": number(1), f"{IN}.2": NOTHING, f"{IN}.3": number(3)}
    found = ask(engine, Mib(cells), lambda session: session.walk([IN]))
    assert found == {IN: {"1": 1, "3": 3}}


@both_engines
def test_a_reply_to_another_question_is_malformed(engine: Engine) -> None:
    with pytest.raises(SnmpMalformed, match=f"told of {OUT}.1"):
        ask(
            engine,
            lambda question: question.reply([(f"{OUT}.1", number(1))]),
            lambda session: session.get([f"{IN}.1"]),
        )


@pytest.mark.parametrize("tag", [Pdu.GET, Pdu.GET_BULK])
@both_engines
def test_a_reply_without_variables_is_malformed(engine: Engine, tag: Pdu) -> None:
    with pytest.raises(SnmpMalformed, match="variables"):
        ask(
            engine,
            lambda question: question.reply([]),
            lambda s: s.get([f"{IN}.1"]) if tag == Pdu.GET else s.walk([IN]),
        )


def test_twenty_thousand_interfaces_are_walked_in_a_reasonable_number_of_requests() -> None:
    rows = 20_000
    mib = Mib(
        {f"{column}.{row}": number(row) for column in (IN, OUT) for row in range(1, rows + 1)}
    )
    found = ask(FastEngine, mib, lambda session: session.walk([IN, OUT]))
    assert [len(found[column]) for column in (IN, OUT)] == [rows, rows]
    assert sum(found[IN].values()) == rows * (rows + 1) // 2  # type: ignore[arg-type]
    assert len(mib.questions) <= rows / 25 + 1


@settings(max_examples=60, deadline=None)
@given(
    cells=st.dictionaries(
        st.builds(
            lambda column, index: f"{column}.{index}",
            st.sampled_from([IN, OUT, NAMES]),
            st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4).map(
                lambda parts: ".".join(map(str, parts))
            ),
        ),
        st.sampled_from([number(1), text("x"), NO_SUCH_INSTANCE]),
        max_size=40,
    ),
    cut_at=st.integers(1, 40),
    max_variables=st.integers(1, 40),
    version=st.sampled_from([0, 1]),
)
def test_any_table_is_walked_whole_or_not_at_all(
    cells: dict[str, bytes], cut_at: int, max_variables: int, version: int
) -> None:
    cells = {oid: value for oid, value in cells.items() if value != NO_SUCH_INSTANCE}
    mib = Mib(cells, cut_at=cut_at, max_variables=max_variables)
    found = ask(FastEngine, mib, lambda session: session.walk([OUT, IN, NAMES]), version)
    assert {f"{column}.{index}" for column, rows in found.items() for index in rows} == set(cells)


ODD_VARIABLES = st.lists(
    st.tuples(
        st.sampled_from([IN, f"{IN}.1", f"{IN}.2", f"{OUT}.1", "1.3", SYSTEM]),
        st.sampled_from([number(1), NOTHING, NO_SUCH_INSTANCE]),
    ),
    max_size=4,
)


@settings(max_examples=100, deadline=None)
@given(
    replies=st.lists(st.tuples(ODD_VARIABLES, st.integers(-1, 20), st.integers(-1, 4)), min_size=1),
    version=st.sampled_from([0, 1]),
)
def test_a_random_agent_is_never_more_than_a_failure(
    replies: list[tuple[list[tuple[str, bytes]], int, int]], version: int
) -> None:
    upcoming = itertools.cycle(replies)
    agent = lambda question: question.reply(*next(upcoming))  # noqa: E731
    for question in (
        lambda session: session.get([f"{IN}.1", f"{IN}.2"]),
        lambda session: session.walk([IN, OUT]),
    ):
        with contextlib.suppress(SnmpFailure):
            ask(FastEngine, agent, question, version)
