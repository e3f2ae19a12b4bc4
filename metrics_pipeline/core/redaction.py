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
from collections.abc import Iterator
from urllib.parse import quote, unquote, urlsplit

HIDDEN = "***"

SHORTEST_KNOWN = 8
"""Characters: a shorter secret may be a word that is meant, as the community `public` is."""

MOST_KNOWN = 5000
"""Forms of secrets that are remembered; then those go that were read longest ago."""

MOST_SIGNATURES = 200
"""As MOST_KNOWN, of what is made of a secret for a request and a new one each time."""

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


class KnownSecrets:
    """What this process has read as a secret, in every form that a peer or a library gives it."""

    def __init__(self, most: int, besides: KnownSecrets | None = None) -> None:
        self._most = most
        self._besides = besides
        self._lock = threading.Lock()
        self._forms: OrderedDict[str, None] = OrderedDict()

    def remember(self, secret: str) -> None:
        """Have `secret` left out of errors from now on, and what is secret in it as well."""
        forms = {form for part in _parts_of(secret) for form in _forms_of(part)}
        with self._lock:
            for form in forms:
                self._forms[form] = None
                self._forms.move_to_end(form)
            while len(self._forms) > self._most:
                self._forms.popitem(last=False)

    def hide(self, text: str) -> str:
        """`text`, with stars for each of them."""
        with self._lock:
            found = [form for form in self._forms if form in text]
        for form in sorted(found, key=len, reverse=True):
            text = text.replace(form, HIDDEN)
        return text if self._besides is None else self._besides.hide(text)


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
