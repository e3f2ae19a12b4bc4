"""What AWS's REST APIs are asked, and what their error replies mean.

Facts: the API references of AWS IoT (2015-05-28) and IoT Greengrass v2 (2020-11-30), and botocore's
models of both.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus

from metrics_pipeline.access.http import Reply, retry_after_seconds
from metrics_pipeline.core.errors import (
    CredentialRefused,
    SourceError,
    SourceRefused,
    SourceThrottled,
    UnexpectedReply,
    excerpt,
)

CREDENTIAL_CODES = frozenset(
    {
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "InvalidToken",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "RequestExpired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
THROTTLING_CODES = frozenset(
    {
        "LimitExceededException",
        "RequestLimitExceeded",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
PLAIN_CODES = (
    "AccessDenied",
    "IndexNotReadyException",
    "InvalidQueryException",
    "ResourceNotFoundException",
    "Unauthorized",
)
"""How codes begin whose message is shown. To a wrong signature AWS replies with the whole signed
request, session token included."""


@dataclass(frozen=True, slots=True)
class Call:
    """One operation. `action` is the IAM right it needs, and begins with the signing name.

    `fixes` are error code → what to do, where this operation needs more than a right.
    """

    action: str
    method: str
    path: str
    fixes: Mapping[str, str] = field(default_factory=dict)

    @property
    def service(self) -> str:
        """`iot` or `greengrass`."""
        return self.action.partition(":")[0]


@dataclass(frozen=True, slots=True)
class AwsError:
    """What AWS says is wrong; `code` and `message` are empty where it does not say."""

    status: int
    code: str
    message: str

    @property
    def problem(self) -> str:
        """Status and code, and the message unless it may repeat what we signed."""
        problem = f"HTTP {self.status} {self.code}".rstrip()
        if not self.message or not self.code.startswith(PLAIN_CODES):
            return problem
        return f"{problem}: {excerpt(self.message.encode())}"


def parse_error(reply: Reply) -> AwsError:
    """The error in `reply`.

    Its code is in the header `x-amzn-errortype`, or in the body as `__type` or `code`, with a
    namespace before it or a link behind it.
    """
    try:
        found = json.loads(reply.body)
    except (ValueError, RecursionError):
        found = None
    document = found if isinstance(found, dict) else {}
    given = reply.headers.get("x-amzn-errortype") or document.get("__type") or document.get("code")
    code = str(given or "").split(":")[0].rpartition("#")[2]
    message = str(document.get("message") or document.get("Message") or "")
    return AwsError(reply.status, code, message)


def error_of(source: str, call: Call, reply: Reply, credential: str) -> SourceError:
    """What a reply that is no success means; `credential` is how people call ours."""
    error = parse_error(reply)
    if error.code in CREDENTIAL_CODES:
        fix = f"Check {credential}, that it is not expired, and this machine's clock."
        return CredentialRefused(source, call.action, error.problem, fix)
    if error.code in THROTTLING_CODES:
        fix = f"Lengthen the interval, or have AWS raise the quota of {call.action}."
        asked = retry_after_seconds(reply.headers, datetime.now(UTC))
        return SourceThrottled(source, call.action, error.problem, fix, asked)
    fix = _fix_of_refusal(call, error, credential)
    if fix:
        return SourceRefused(source, call.action, error.problem, fix)
    return UnexpectedReply(source, call.action, error.problem, reply.body)


def _fix_of_refusal(call: Call, error: AwsError, credential: str) -> str:
    if error.code in call.fixes:
        return call.fixes[error.code]
    if error.status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
        return f"Allow {call.action} in the IAM policy of {credential}."
    if error.status == HTTPStatus.NOT_FOUND:
        return f"Check region and {call.service}_endpoint_url, and that the region offers it."
    return ""
