"""An operator's list of devices, in CSV or JSON, read with every mistake told by line and column.

CSV (RFC 4180) begins with a line of column names and has commas, semicolons or tabs between cells,
as a spreadsheet saves it. JSON (RFC 8259) is a list of objects. Columns are those of
`core/device_rows.py`; all but `id`, `ip_address` and `protocol` may be left out.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from metrics_pipeline.access.inventory_devices import GivenDevice
from metrics_pipeline.core.device_rows import COLUMNS, REQUIRED, check_row, is_absent
from metrics_pipeline.core.errors import MetricsPipelineError

DELIMITERS = (",", ";", "\t")
SHOWN_MISTAKES = 50


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """Something wrong in a file; `column` is empty if it concerns the whole line."""

    line: int
    column: str
    says: str

    def __str__(self) -> str:
        column = f", column {self.column}" if self.column else ""
        return f"line {self.line}{column}: {self.says}"


class DevicesFileError(MetricsPipelineError):
    """A file of devices that cannot be used. `mistakes` are all that were found, by line."""

    def __init__(self, file: Path, mistakes: Sequence[Mistake]) -> None:
        shown = [f"{file}: {mistake}" for mistake in mistakes[:SHOWN_MISTAKES]]
        if len(mistakes) > SHOWN_MISTAKES:
            shown.append(f"{file}: and {len(mistakes) - SHOWN_MISTAKES} more mistakes")
        super().__init__("\n".join(shown))
        self.mistakes = tuple(mistakes)


@dataclass(frozen=True, slots=True)
class _Record:
    """One device as it stands in the file, and the line of each cell."""

    line: int
    cells: Mapping[str, object]
    lines: Mapping[str, int] = field(default_factory=dict)


class _Unreadable(Exception):
    """The file cannot be read on from here."""

    def __init__(self, line: int, says: str, column: str = "") -> None:
        super().__init__(says)
        self.mistake = Mistake(line, column, says)


def read_devices_file(file: Path, protocols: Collection[str]) -> list[GivenDevice]:
    """The devices in `file`, in its order; DevicesFileError with every mistake if there are any."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise MetricsPipelineError(
            f"{file}: cannot be read ({error.strerror}). Name a CSV or JSON file."
        ) from error
    mistakes: list[Mistake] = []
    devices: list[GivenDevice] = []
    try:
        text = _decode(content)
        records = _read_json if _is_json(file, text) else _read_csv
        devices = list(_check(records(text, mistakes), protocols, mistakes))
    except _Unreadable as error:
        mistakes.append(error.mistake)
    if mistakes:
        raise DevicesFileError(file, sorted(mistakes))
    return devices


def _decode(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _Unreadable(line, "expected text in UTF-8; save the file as that") from None


def _is_json(file: Path, text: str) -> bool:
    suffix = file.suffix.lower()
    return suffix == ".json" or (suffix != ".csv" and text.lstrip()[:1] in ("[", "{"))


def _check(
    records: Iterator[_Record], protocols: Collection[str], mistakes: list[Mistake]
) -> Iterator[GivenDevice]:
    lines_of_ids: dict[str, int] = {}
    for record in records:
        row, wrong = check_row(record.cells, protocols)
        for cell in wrong:
            line = record.lines.get(cell.column, record.line)
            mistakes.append(Mistake(line, cell.column, str(cell)))
        if row is None:
            continue
        line = record.lines.get("id", record.line)
        if row.id in lines_of_ids:
            says = f"expected each id once, got {row.id!r} as on line {lines_of_ids[row.id]}"
            mistakes.append(Mistake(line, "id", says))
        lines_of_ids.setdefault(row.id, line)
        yield GivenDevice(row, frozenset(record.cells))


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, COLUMNS, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(COLUMNS)}"
    return f"there is no such column ({hint})"


# --- CSV ------------------------------------------------------------------------------------------


def _read_csv(text: str, mistakes: list[Mistake]) -> Iterator[_Record]:
    rows = _csv_rows(text, _delimiter(text))
    line, header = next(rows, (1, []))
    names = [name.strip().lower() for name in header]
    wrong = list(_check_header(line, names))
    if wrong:
        mistakes.extend(wrong)
        return
    for line, cells in rows:
        if len(cells) == len(names):
            yield _Record(line, dict(zip(names, cells, strict=True)))
        else:
            says = f"expected {len(names)} cells, as the first line has, got {len(cells)}"
            mistakes.append(Mistake(line, "", says))


def _csv_rows(text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not empty, and the line it begins on: quoted cells may have several."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            if not all(map(is_absent, cells)):
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        raise _Unreadable(line, f"is not CSV from here on: {error}") from None


def _delimiter(text: str) -> str:
    """The one that makes the most column names out of the first line."""
    first = text.lstrip().partition("\n")[0].replace('"', "").lower()

    def known(delimiter: str) -> int:
        return sum(name.strip() in COLUMNS for name in first.split(delimiter))

    return max(DELIMITERS, key=known)


def _check_header(line: int, names: Sequence[str]) -> Iterator[Mistake]:
    if not names:
        yield Mistake(line, "", f"expected column names: {', '.join(COLUMNS)}")
        return
    for at, name in enumerate(names):
        if name not in COLUMNS:
            yield Mistake(line, repr(name), _unknown(name))
        elif name in names[:at]:
            yield Mistake(line, name, "expected each column once, got it twice")
    for name in REQUIRED:
        if name not in names:
            yield Mistake(line, name, "expected this column, and it is not there")


# --- JSON -----------------------------------------------------------------------------------------

_SPACE = re.compile(r"[ \t\n\r]*")


class _JsonText:
    """A JSON document that is walked by hand as deep as its lines matter."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._decoder = json.JSONDecoder()
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", text))]

    @property
    def line(self) -> int:
        """The line of what comes next."""
        self.next_character()
        return bisect_right(self._line_starts, self._at)

    def next_character(self) -> str:
        """What comes next, after white space; empty at the end."""
        match = _SPACE.match(self._text, self._at)
        assert match is not None
        self._at = match.end()
        return self._text[self._at : self._at + 1]

    def value(self) -> object:
        """Read one value."""
        line = self.line
        try:
            value, self._at = self._decoder.raw_decode(self._text, self._at)
        except json.JSONDecodeError as error:
            raise _Unreadable(error.lineno, f"is not JSON from here on: {error.msg}") from None
        except (ValueError, RecursionError) as error:  # thousands of digits, or of brackets
            raise _Unreadable(line, f"is JSON that cannot be read: {error}") from None
        return value

    def take(self, *expected: str) -> str:
        """Read one of the characters `expected`."""
        found = self.next_character()
        if found not in expected or not found:
            says = f"expected {' or '.join(expected)}, got {found or 'the end of the file'}"
            raise _Unreadable(self.line, f"is not JSON from here on: {says}")
        self._at += 1
        return found

    def items(self, opening: str, closing: str) -> Iterator[None]:
        """Comma-separated items between two brackets; the caller reads each."""
        self.take(opening)
        if self.next_character() == closing:
            self.take(closing)
            return
        more = True
        while more:
            yield
            more = self.take(",", closing) == ","


def _read_json(text: str, mistakes: list[Mistake]) -> Iterator[_Record]:
    document = _JsonText(text)
    if document.next_character() != "[":
        raise _Unreadable(document.line, 'expected a list of devices: [{"id": …}, …]')
    for _ in document.items("[", "]"):
        if document.next_character() == "{":
            yield from _read_object(document, mistakes)
        else:
            mistakes.append(Mistake(document.line, "", 'expected a device: {"id": …}'))
            document.value()
    if document.next_character():
        raise _Unreadable(document.line, "expected the end of the file after the list")


def _read_object(document: _JsonText, mistakes: list[Mistake]) -> Iterator[_Record]:
    line = document.line
    cells: dict[str, object] = {}
    lines: dict[str, int] = {}
    wrong = []
    for _ in document.items("{", "}"):
        key_line = document.line
        name = document.value()
        document.take(":")
        value = document.value()
        if not isinstance(name, str) or name not in COLUMNS:
            wrong.append(Mistake(key_line, repr(name), _unknown(str(name))))
        elif name in cells:
            wrong.append(Mistake(key_line, name, "expected each column once, got it twice"))
        else:
            cells[name], lines[name] = value, key_line
    mistakes.extend(wrong)
    yield _Record(line, cells, lines)
