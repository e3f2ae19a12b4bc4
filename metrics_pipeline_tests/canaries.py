"""Secrets that are planted, and how they are found again in whatever was written.

A canary is looked for as it is, and as base64, hexadecimal and UTF-16, of which the zeros are left
out; as it is means letters and digits, which are the same in a URL, in JSON and in a shell. Of each
only 12 characters in a row need be there: a page of a database, or a message that was cut off, may
have no more.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

ENOUGH = 12
"""Characters that tell a canary: 48 bits and more."""

HALF_BYTES = 10
"""Of randomness, as 20 digits, in either half of a canary."""

PUNCTUATION = " '\"\\;,&@:/%{}€"
"""Where a pattern, a URL or a quotation might end too early."""

WORD = re.compile(rb"[a-z0-9+/]{%d,}" % ENOUGH)
"""What a form may be a part of."""

SQLITE_HEADER = b"SQLite format 3\0"
ZLIB_HEADER = re.compile(rb"\A\x78[\x01\x9c\xda]")


@dataclass(frozen=True, slots=True)
class Canary:
    """A secret for the key of the settings called `key`."""

    key: str
    value: str = field(repr=False)

    def forms(self) -> Iterator[bytes]:
        """What is looked for."""
        words = [word for word in re.split(r"[^A-Za-z0-9]+", self.value) if len(word) >= ENOUGH]
        for word in words:
            plain = word.encode()
            yield from _ends(plain)
            yield from _ends(plain.hex().encode())
            for shift in range(3):
                # Its first and last characters hold bits of what is beside it.
                yield from _ends(base64.b64encode(b"\0" * shift + plain)[4:-4])


def make_canary(key: str, between: str = "") -> Canary:
    """One with `between` in its middle, whose halves are looked for each by itself."""
    halves = (f"c{secrets.token_hex(HALF_BYTES)}aa" for _ in range(2))
    return Canary(key, between.join(halves))


def _ends(text: bytes) -> tuple[bytes, ...]:
    return text[:ENOUGH], text[-ENOUGH:]


@dataclass(frozen=True, slots=True)
class Search:
    """Finds any of some canaries: their keys, by what tells them."""

    keys: Mapping[bytes, str]

    @classmethod
    def of(cls, canaries: Iterable[Canary]) -> Search:
        return cls({form.lower(): canary.key for canary in canaries for form in canary.forms()})

    def find(self, place: str, content: bytes | str) -> set[str]:
        """`key in place` for each that is there."""
        raw = content.encode() if isinstance(content, str) else content
        words = (match[0] for match in WORD.finditer(raw.replace(b"\0", b"").lower()))
        pieces = (word[at : at + ENOUGH] for word in words for at in range(len(word) - ENOUGH + 1))
        return {f"{self.keys[piece]} in {place}" for piece in pieces if piece in self.keys}

    def find_in_files(self, folder: Path, without: Iterable[Path] = ()) -> set[str]:
        """In each file below `folder`, but for those where they were planted; in SQLite's twice."""
        planted = set(without)
        found: set[str] = set()
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path not in planted:
                content = path.read_bytes()
                place = str(path.relative_to(folder))
                found |= self.find(place, content)
                if content.startswith(SQLITE_HEADER):
                    # What is deflated in a row is not to be found in its file.
                    engine = sa.create_engine(f"sqlite:///{path}")
                    found |= {f"{each} of {place}" for each in self.find_in_database(engine)}
                    engine.dispose()
        return found

    def find_in_database(self, engine: sa.Engine) -> set[str]:
        """In every value of every table; Dagster compresses some, and we do."""
        found: set[str] = set()
        tables = sa.inspect(engine).get_table_names()
        with engine.connect() as connection:
            for name in tables:
                rows = connection.execute(sa.text(f'SELECT * FROM "{name}"'))
                text = b"\n".join(_raw(value) for row in rows for value in row)
                found |= self.find(f"table {name}", text)
        return found

    def find_in_processes(self, pids: Iterable[int], part: str) -> set[str]:
        """In `cmdline` or `environ` of the processes."""
        found: set[str] = set()
        for pid in pids:
            try:
                content = Path(f"/proc/{pid}/{part}").read_bytes()
            except OSError:  # it has ended
                continue
            found |= self.find(f"{part} of a process", content)
        return found


def _raw(value: object) -> bytes:
    if isinstance(value, memoryview):
        value = value.tobytes()
    if isinstance(value, bytes):
        return zlib.decompress(value) if ZLIB_HEADER.match(value) else value
    return str(value).encode()


def processes_of(state: Path) -> list[int]:
    """The processes that have the state directory in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            environment = (entry / "environ").read_bytes()
        except OSError:
            continue
        if str(state).encode() in environment and int(entry.name) != os.getpid():
            found.append(int(entry.name))
    return found
