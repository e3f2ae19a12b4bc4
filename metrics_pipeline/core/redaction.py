"""Texts of failures without what must not be shown or sent: passwords, keys, tokens.

Our own errors never hold a secret: what this process has read as one is taken out of them, for a
peer may repeat in its refusal what it was shown. What Dagster keeps of a run may also be the text
of a library's error, which may quote an address or a connection string with all that is in it.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from urllib.parse import quote, unquote, urlsplit

HIDDEN = "***"

SHORTEST_KNOWN = 8
"""Characters: a shorter secret may be a word that is meant, as the community `public` is."""

MOST_KNOWN = 5000
"""Secrets that are remembered; then those go that were read longest ago."""

FORGOTTEN_AT_ONCE = 8
"""Every so many-th part goes at once."""

MOST_SIGNATURES = 200
"""As MOST_KNOWN, of what is made of a secret for a request and a new one each time."""

PIECE = 4
STRIDE = SHORTEST_KNOWN - PIECE + 1
"""Characters: what of a text is looked up first (`_Forms`)."""

# No pattern begins with a repetition without a bound, and none gives back what it took to try again
# with less: over one long word that would take minutes.

WORD = re.compile(r"\S+")
IN_ADDRESS = re.compile(r"://(?P<user>[^\s:/@'\"]*)(?P<end>[:@])")
"""Before the last `@` of a word: what follows may be a password, which may have an `@` itself."""

PASSWORDS = "pass(?:word|wd|phrase)|pwd"
WORDS = (
    PASSWORDS,
    "pass",
    "secret",
    "token",
    "community",
    "sig(?:nature)?",
    "(?:api|access|account|private)[_-]?key",
)
QUOTED = r"(?:'(?:[^'\\]|\\.)*'?|\"(?:[^\"\\]|\\.)*\"?)"
"""Up to the end of the text where that was cut off before the quote."""

SCHEMES = r"(?:Bearer|Basic|Digest|Negotiate|Token|ApiKey|SharedAccessSignature)\s+"
ANY_CASE = re.IGNORECASE | re.DOTALL

HEADER = re.compile(
    rf"(?P<kept>authorization['\"]?\s*[=:]\s*(?:{SCHEMES})?)(?:{QUOTED}|[^\s,'\"]+)", ANY_CASE
)
SCHEME = re.compile(
    r"(?P<kept>\b(?:Bearer|Basic|SharedAccessSignature)\s+)(?!auth[a-z]*\b)[\w+/=.~%&-]{12,}",
    ANY_CASE,
)
"""`bearer …` without its header; no prose such as `basic authentication`."""

PHRASE = re.compile(
    rf"(?P<kept>(?:{PASSWORDS})[ \t]{{0,4}}(?::\s+|=[ \t]+))(?![\s'\"])[^\r\n]+", ANY_CASE
)
"""`password: three words of it`: after a blank there may be others, up to the line's end."""

PROSE = re.compile(
    rf"(?P<kept>\b(?:{PASSWORDS}|community(?:[ ](?:string|name))?)\s+){QUOTED}", ANY_CASE
)
"""`community 'priv8'`. A secret or a token in quotes is a name, or what a parser stumbled over."""

NAMED = re.compile(
    rf"(?P<kept>(?:{'|'.join(WORDS)})['\"]?\s*[=:]\s*)(?:{QUOTED}|[^\s;,&'\"]+)", ANY_CASE
)
"""`SharedAccessKey=…;`, `"password": "…"`, `sig=…&`: what the name of its value calls a secret."""


KEY_PART = re.compile(rf"(?:{'|'.join(WORDS)})=([^;&\s]+)", ANY_CASE)
"""`SharedAccessKey=…` of a connection string, `token=…` of an address."""

LONG_SEGMENT_CHARACTERS = 16
"""A part of a path that is as long may be a token."""


class _Forms:
    """Texts to find in another, at a cost that does not grow with how many they are.

    A form has `SHORTEST_KNOWN` characters at least, so one of the pieces of `PIECE` characters that
    a text has at every `STRIDE`-th place is among the first of a form that begins there or before.
    Others may look while one adds: nothing is changed that they may be walking through.
    """

    def __init__(self, forms: Iterable[str] = ()) -> None:
        self._forms: set[str] = set()
        self._lengths: dict[str, frozenset[int]] = {}
        """Of the forms, by how they begin."""
        self._pieces: set[str] = set()
        for form in forms:
            self.add(form)

    def add(self, form: str) -> None:
        """Have it found from now on."""
        self._forms.add(form)
        begin = form[:SHORTEST_KNOWN]
        self._lengths[begin] = self._lengths.get(begin, frozenset()) | {len(form)}
        self._pieces.update(form[at : at + PIECE] for at in range(STRIDE))

    def find(self, text: str) -> list[tuple[int, int]]:
        """Where each begins and ends in `text`, in order; they may overlap."""
        pieces = self._pieces
        if not pieces:
            return []
        places = [at for at in range(0, len(text), STRIDE) if text[at : at + PIECE] in pieces]
        if not places:
            return []
        starts = (start for at in places for start in range(max(at - STRIDE + 1, 0), at + 1))
        return [
            (start, start + length)
            for start in starts
            for length in sorted(self._lengths.get(text[start : start + SHORTEST_KNOWN], ()))
            if text[start : start + length] in self._forms
        ]


class KnownSecrets:
    """What this process has read as a secret, in every form that a peer or a library gives it."""

    def __init__(self, most: int, besides: KnownSecrets | None = None) -> None:
        self._most = most
        self._besides = besides
        self._lock = threading.Lock()
        self._secrets: OrderedDict[str, frozenset[str]] = OrderedDict()
        self._forms = _Forms()

    def remember(self, secret: str) -> None:
        """Have `secret` left out of errors from now on, and what is secret in it as well."""
        with self._lock:
            if secret not in self._secrets:
                self._add(secret)
            self._secrets.move_to_end(secret)

    def _add(self, secret: str) -> None:
        forms = frozenset(form for part in _parts_of(secret) for form in _forms_of(part))
        self._secrets[secret] = forms
        for form in forms:
            self._forms.add(form)
        if len(self._secrets) > self._most:
            self._forget()

    def _forget(self) -> None:
        """Those read longest ago: some at once, for the forms of all others are looked up anew."""
        for _ in range(1 + self._most // FORGOTTEN_AT_ONCE):
            self._secrets.popitem(last=False)
        self._forms = _Forms(form for forms in self._secrets.values() for form in forms)

    def hide(self, text: str) -> str:
        """`text`, with stars for each of them."""
        found = self._forms.find(text)
        if found:
            text = _starred(text, found)
        return text if self._besides is None else self._besides.hide(text)


def _starred(text: str, found: Iterable[tuple[int, int]]) -> str:
    """Stars once for what overlaps."""
    shown, done = [], 0
    for start, end in found:
        if start >= done:
            shown += [text[done:start], HIDDEN]
        done = max(done, end)
    return "".join([*shown, text[done:]])


SIGNATURES = KnownSecrets(MOST_SIGNATURES)
"""What this process has signed requests with of late."""

KNOWN = KnownSecrets(MOST_KNOWN, SIGNATURES)
"""Those of this process, signatures included."""


def _parts_of(secret: str) -> Iterator[str]:
    """All of it, the keys of a connection string, and what may be secret in an address."""
    yield secret
    yield from KEY_PART.findall(secret)
    if "://" not in secret:
        return
    try:
        url = urlsplit(secret)
    except ValueError:  # it is no address; who needs one will say so
        return
    yield url.password or ""
    yield url.query
    yield from (each for each in url.path.split("/") if len(each) >= LONG_SEGMENT_CHARACTERS)


def _forms_of(part: str) -> Iterator[str]:
    """As it is, as in an address, in JSON and in Python, and on one line."""
    plain = unquote(part)
    forms = {part, plain, quote(plain), quote(plain, safe=""), " ".join(plain.split())}
    forms |= {json.dumps(plain)[1:-1], json.dumps(plain, ensure_ascii=False)[1:-1]}
    forms |= {repr(plain)[1:-1], ascii(plain)[1:-1]}
    yield from (form for form in forms if len(form) >= SHORTEST_KNOWN)


def without_secrets(text: str) -> str:
    """`text`, with stars for what is known as a secret, and for whatever looks like one."""
    text = WORD.sub(_without_password, KNOWN.hide(text))
    for pattern in (HEADER, SCHEME, PHRASE, PROSE, NAMED):
        text = pattern.sub(rf"\g<kept>{HIDDEN}", text)
    return text


def _without_password(word: re.Match[str]) -> str:
    """Of an address; where it has one part before its `@` only, that may be a token."""
    text = word[0]
    last = text.rfind("@")
    for found in IN_ADDRESS.finditer(text, 0, last + 1):
        kept = found.end() if found["end"] == ":" else found.start("user")
        if kept < last:
            return f"{text[:kept]}{HIDDEN}{text[last:]}"
    return text
