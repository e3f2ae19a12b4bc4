"""The part of IoT Hub's query language that counts: parsed and evaluated like the service does.

    SELECT COUNT() AS name FROM devices [WHERE condition]

A condition is made of AND, OR, NOT, parentheses, `=`, `!=`, `<>` and IS_DEFINED over dotted paths
(also with the prefix `devices.`) and string, number and boolean literals. Keywords may be in any
case. A comparison with a path that is not there, or between two types, is neither true nor false
(None here), NOT leaves it so, AND and OR follow Kleene; a device counts when the whole is true.
Fact: "IoT Hub query language for device and module twins, jobs, and message routing",
learn.microsoft.com. Everything else the language has is refused with QueryError.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

MAX_DEPTH = 50
KEYWORDS = frozenset({"select", "as", "from", "where", "and", "or", "not", "true", "false"})

Scalar = str | float | bool
Truth = bool | None


class QueryError(ValueError):
    """The query is not one of this language; says what was expected and where."""

    def __init__(self, expected: str, position: int) -> None:
        super().__init__(f"expected {expected} at character {position}")
        self.position = position


@dataclass(frozen=True, slots=True)
class Path:
    """A value of the document: `tags.deviceType`. Undefined where a part is missing."""

    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two operands, equal or not."""

    left: Path | Scalar
    operator: Literal["=", "!="]
    right: Path | Scalar


@dataclass(frozen=True, slots=True)
class IsDefined:
    """Whether the document has the path; true for null."""

    path: Path


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite; undefined stays undefined."""

    condition: Condition


@dataclass(frozen=True, slots=True)
class All:
    """AND over two or more conditions."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """OR over two or more conditions."""

    conditions: tuple[Condition, ...]


Condition = Comparison | IsDefined | Not | All | AnyOf


@dataclass(frozen=True, slots=True)
class CountQuery:
    """A whole query: the name of the count, and which documents count (None: all)."""

    alias: str
    condition: Condition | None

    def count(self, documents: Iterable[Mapping[str, Any]]) -> int:
        """How many of `documents` the condition is true for."""
        condition = self.condition
        if condition is None:
            return sum(1 for _ in documents)
        return sum(1 for document in documents if evaluate(condition, document) is True)


# --- evaluating -----------------------------------------------------------------------------

_UNDEFINED: Final = object()


def evaluate(condition: Condition, document: Mapping[str, Any]) -> Truth:
    """True, false, or None for undefined."""
    match condition:
        case IsDefined(path):
            return _value(path, document) is not _UNDEFINED
        case Comparison():
            return _compare(condition, document)
        case Not(inner):
            truth = evaluate(inner, document)
            return None if truth is None else not truth
        case All(conditions):
            return _kleene({evaluate(each, document) for each in conditions}, decisive=False)
        case AnyOf(conditions):
            return _kleene({evaluate(each, document) for each in conditions}, decisive=True)


def _kleene(truths: set[Truth], decisive: bool) -> Truth:
    """`decisive` if one is that, else undefined if one is that, else the opposite."""
    if decisive in truths:
        return decisive
    return None if None in truths else not decisive


def _compare(comparison: Comparison, document: Mapping[str, Any]) -> Truth:
    left = _value(comparison.left, document)
    right = _value(comparison.right, document)
    if _kind(left) is None or _kind(left) is not _kind(right):
        return None
    return (left == right) is (comparison.operator == "=")


def _kind(value: object) -> type | None:
    """The value's type in the language; None where it compares with nothing."""
    for kind in (bool, str):
        if isinstance(value, kind):
            return kind
    return float if isinstance(value, int | float) else None


def _value(operand: Path | Scalar, document: Mapping[str, Any]) -> object:
    if not isinstance(operand, Path):
        return operand
    value: object = document
    for part in operand.parts:
        if not isinstance(value, Mapping) or part not in value:
            return _UNDEFINED
        value = value[part]
    return value


# --- parsing --------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<word>[A-Za-z_$][A-Za-z0-9_$]*)
      | (?P<number>-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)
      | (?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
      | (?P<sign>!=|<>|[=().])
      | (?P<end>\Z)
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int

    def is_word(self, word: str) -> bool:
        return self.kind == "word" and self.text.lower() == word


def parse_query(text: str) -> CountQuery:
    """The query `text` is, or QueryError."""
    return _Parser(_tokens(text)).query()


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position = 0
    while not tokens or tokens[-1].kind != "end":
        match = _TOKEN.match(text, position)
        if match is None:
            raise QueryError("a word, a literal or an operator", position)
        kind = match.lastgroup
        assert kind is not None
        tokens.append(_Token(kind, match[kind], match.start(kind)))
        position = match.end()
    return tokens


class _Parser:
    """Recursive descent, one method for each rule; OR binds weakest, then AND, then NOT."""

    def __init__(self, tokens: list[_Token]) -> None:
        self._tokens = tokens
        self._next = 0
        self._depth = 0

    def query(self) -> CountQuery:
        for word in ("select", "count"):
            self._expect_word(word)
        for sign in ("(", ")"):
            self._expect_sign(sign)
        self._expect_word("as")
        alias = self._name()
        self._expect_word("from")
        self._expect_word("devices")
        condition = self._condition() if self._take_word("where") else None
        if self._token.kind != "end":
            raise self._expected("the end of the query")
        return CountQuery(alias, condition)

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    def _condition(self) -> Condition:
        parts = [self._conjunction()]
        while self._take_word("or"):
            parts.append(self._conjunction())
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def _conjunction(self) -> Condition:
        parts = [self._negation()]
        while self._take_word("and"):
            parts.append(self._negation())
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _negation(self) -> Condition:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._expected(f"at most {MAX_DEPTH} conditions in each other")
        condition = Not(self._negation()) if self._take_word("not") else self._predicate()
        self._depth -= 1
        return condition

    def _predicate(self) -> Condition:
        if self._take_sign("("):
            condition = self._condition()
            self._expect_sign(")")
            return condition
        if self._take_word("is_defined"):
            self._expect_sign("(")
            path = self._path()
            self._expect_sign(")")
            return IsDefined(path)
        return self._comparison()

    def _comparison(self) -> Comparison:
        left = self._operand()
        if self._take_sign("="):
            return Comparison(left, "=", self._operand())
        if self._take_sign("!=") or self._take_sign("<>"):
            return Comparison(left, "!=", self._operand())
        raise self._expected("=, != or <>")

    def _operand(self) -> Path | Scalar:
        token = self._token
        if token.kind == "string":
            self._next += 1
            return _unquote(token.text)
        if token.kind == "number":
            self._next += 1
            return float(token.text)
        if token.is_word("true") or token.is_word("false"):
            self._next += 1
            return token.is_word("true")
        return self._path()

    def _path(self) -> Path:
        parts = [self._name()]
        while self._take_sign("."):
            parts.append(self._name())
        if len(parts) > 1 and parts[0] == "devices":
            del parts[0]
        return Path(tuple(parts))

    def _name(self) -> str:
        token = self._token
        if token.kind != "word" or token.text.lower() in KEYWORDS:
            raise self._expected("a name")
        self._next += 1
        return token.text

    def _take_word(self, word: str) -> bool:
        taken = self._token.is_word(word)
        self._next += taken
        return taken

    def _take_sign(self, sign: str) -> bool:
        taken = self._token.kind == "sign" and self._token.text == sign
        self._next += taken
        return taken

    def _expect_word(self, word: str) -> None:
        if not self._take_word(word):
            raise self._expected(word.upper())

    def _expect_sign(self, sign: str) -> None:
        if not self._take_sign(sign):
            raise self._expected(sign)

    def _expected(self, what: str) -> QueryError:
        return QueryError(what, self._token.position)


def _unquote(literal: str) -> str:
    def unescape(match: re.Match[str]) -> str:
        return chr(int(match[1], 16)) if match[1] else match[2]

    return _ESCAPE.sub(unescape, literal[1:-1])
