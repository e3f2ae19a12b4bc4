"""Who may do what: expiry, patterns, rights, and what is wrong with a file of tokens."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from metrics_pipeline.access.bearer_token import digest_of
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.gateway.tokens import READ, SEND, Tokens
from metrics_pipeline.settings import GatewaySettings

TOKEN = "fleet-token-0123456789"
DIGEST = digest_of(TOKEN)
LATE = 1_830_297_600.0  # 2028-01-01


def make(tmp_path: Path, text: str = TOKEN, **token: Any) -> Tokens:
    (tmp_path / "token").write_text(text)
    section = {"token": {"file": str(tmp_path / "token")}, **token}
    return Tokens(GatewaySettings.model_validate({"tokens": {"fleet": section}}))


def of_file(tmp_path: Path, text: str) -> Tokens:
    (tmp_path / "robots").write_text(text)
    return Tokens(GatewaySettings(robot_tokens_file=tmp_path / "robots"))


@pytest.mark.parametrize(
    ("patterns", "robot", "is_allowed"),
    [
        (["*"], "robot-1", True),
        (["agv-*"], "agv-1", True),
        (["agv-*"], "bagv-1", False),
        (["agv-1"], "agv-1", True),
        (["agv-1"], "agv-10", False),
        (["a", "b"], "b", True),
    ],
)
def test_a_token_is_for_the_robots_it_names(
    tmp_path: Path, patterns: list[str], robot: str, is_allowed: bool
) -> None:
    tokens = make(tmp_path, robots=patterns)
    tokens.load()
    assert tokens.allows(DIGEST, robot, SEND, 0.0) is is_allowed


@pytest.mark.parametrize("pattern", ["", "**", "a*b", "*-1", "/agv", "agv 1", "é*", "a" * 129])
def test_a_pattern_that_no_robot_can_match_is_a_mistake(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ValueError, match="no robot can be called"):
        make(tmp_path, robots=["ok-*", pattern])


def test_a_right_that_was_not_given_is_not_there(tmp_path: Path) -> None:
    tokens = make(tmp_path, rights=["read"])
    tokens.load()
    assert tokens.allows(DIGEST, "robot-1", READ, 0.0)
    assert not tokens.allows(DIGEST, "robot-1", SEND, 0.0)


def test_a_token_is_good_until_it_expires(tmp_path: Path) -> None:
    tokens = make(tmp_path, expires_at="2028-01-01T00:00:00Z")
    tokens.load()
    assert tokens.allows(DIGEST, "robot-1", SEND, LATE - 1)
    assert not tokens.allows(DIGEST, "robot-1", SEND, LATE)
    assert tokens.in_words(LATE) == "1 shared, 0 of single robots; expired: fleet"


def test_nothing_is_allowed_before_tokens_are_read(tmp_path: Path) -> None:
    assert not make(tmp_path).allows(DIGEST, "robot-1", SEND, 0.0)
    assert not make(tmp_path).allows(digest_of(""), "robot-1", SEND, 0.0)


@pytest.mark.parametrize("text", ["short", "", "with white space in it", "ä" * 20])
def test_a_token_that_can_be_guessed_or_not_be_sent_is_a_mistake(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make(tmp_path, text).load()
    assert not text or text not in str(caught.value)


def test_a_file_has_a_token_for_each_robot(tmp_path: Path) -> None:
    tokens = of_file(
        tmp_path, f"# ours\n\na {TOKEN}\nb {TOKEN}x 2028-01-01T00:00:00Z\nc {TOKEN}y 2028-01-01\n"
    )
    tokens.load()
    assert tokens.allows(DIGEST, "a", SEND, LATE)
    assert not tokens.allows(DIGEST, "b", SEND, 0.0)
    for robot, token in (("b", f"{TOKEN}x"), ("c", f"{TOKEN}y")):
        assert tokens.allows(digest_of(token), robot, READ, LATE - 1)
        assert not tokens.allows(digest_of(token), robot, READ, LATE)


@pytest.mark.parametrize(
    "line", ["a", "a/b TOKEN", "a TOKEN soon", "a TOKEN 2028-01-01 more", "a short"]
)
def test_a_wrong_line_is_named_and_not_repeated(tmp_path: Path, line: str) -> None:
    written = line.replace("TOKEN", TOKEN)
    with pytest.raises(ConfigurationError, match="robots, line 2") as caught:
        of_file(tmp_path, f"# first\n{written}\n").load()
    assert TOKEN not in str(caught.value)


def test_a_token_that_cannot_be_read_is_withdrawn_and_the_others_are_good(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"{TOKEN}{name}")
    sections = {name: {"token": {"file": str(tmp_path / name)}} for name in ("a", "b")}
    tokens = Tokens(GatewaySettings.model_validate({"tokens": sections}))
    tokens.load()
    (tmp_path / "a").unlink()
    (tmp_path / "b").write_text("another-token-0123456789")
    with caplog.at_level(logging.WARNING):
        tokens.reload()
        tokens.reload()
    good = [f"{TOKEN}a", f"{TOKEN}b", "another-token-0123456789"]
    assert [tokens.allows(digest_of(each), "x", SEND, 0.0) for each in good] == [False, False, True]
    assert caplog.text.count("tokens that let nobody in") == 1
    (tmp_path / "a").write_text(f"{TOKEN}a")
    tokens.reload()
    assert tokens.allows(digest_of(f"{TOKEN}a"), "x", SEND, 0.0)


def test_a_wrong_line_withdraws_no_more_than_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = of_file(tmp_path, f"a {TOKEN}a\nb {TOKEN}b\n")
    tokens.load()
    (tmp_path / "robots").write_text(f"b short\nc {TOKEN}c\n")
    tokens.reload()
    found = {name: tokens.allows(digest_of(TOKEN + name), name, SEND, 0.0) for name in "abc"}
    assert found == {"a": False, "b": False, "c": True}
    assert "robots, line 1" in caplog.text
    assert TOKEN not in caplog.text


def test_a_file_that_cannot_be_read_leaves_its_tokens_as_they_were(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = of_file(tmp_path, f"a {TOKEN}\n")
    tokens.load()
    (tmp_path / "robots").unlink()
    tokens.reload()
    assert tokens.allows(DIGEST, "a", SEND, 0.0)
    assert "FileNotFoundError" in caplog.text


def test_a_robot_may_have_two_tokens_while_one_takes_the_place_of_the_other(tmp_path: Path) -> None:
    tokens = of_file(tmp_path, f"a {TOKEN}old\na {TOKEN}new\n")
    tokens.load()
    for token in (f"{TOKEN}old", f"{TOKEN}new"):
        assert tokens.allows(digest_of(token), "a", SEND, 0.0)


def test_no_token_is_shown(tmp_path: Path) -> None:
    tokens = make(tmp_path)
    tokens.load()
    assert TOKEN not in repr(vars(tokens))
    assert DIGEST.hex() not in repr(vars(tokens))


def test_a_gateway_without_any_token_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="give at least one, or robot_tokens_file"):
        GatewaySettings()
