"""Who we are to AWS, and where it answers: credentials, signature version 4, host names.

botocore finds the credentials, signs, and knows the host names of all regions. It is loaded at
first use, not at import.

Raises CredentialRefused where AWS's standard chain finds no credentials, SourceUnreachable when the
service or program that gives them does not answer, and ConfigurationError when a secret is not
where the settings say. No secret and no token is in any of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Mapping
from functools import cached_property
from typing import Any

import httpx
from pydantic import BaseModel, Field, field_validator, model_validator

from metrics_pipeline.access.hosts import is_loopback
from metrics_pipeline.access.secrets import SecretReference
from metrics_pipeline.core.errors import CredentialRefused, SourceUnreachable
from metrics_pipeline.core.redaction import SIGNATURES

MODELS: Mapping[str, str] = {"iot": "iot", "greengrass": "greengrassv2"}
"""Signing name of a service → what botocore calls its model."""


class AwsAccountSettings(BaseModel, frozen=True, extra="forbid"):
    """An account in one region, and who we are to it.

    Without `profile` and `access_key_id` the credentials are those of AWS's standard chain:
    environment, shared configuration files, the role of the container or instance.
    """

    region: str = Field(
        pattern=r"^[a-z]{2,}(-[a-z]+)+-\d+$",
        description="Region of the fleet, such as eu-west-1. Required.",
    )
    iot_endpoint_url: str | None = Field(
        default=None,
        description="Where AWS IoT answers (a VPC or FIPS endpoint); the region's own if not set. "
        "http:// only on loopback.",
    )
    greengrass_endpoint_url: str | None = Field(
        default=None,
        description="Where Greengrass v2 answers; the region's own if not set. "
        "http:// only on loopback.",
    )
    profile: str | None = Field(
        default=None,
        min_length=1,
        description="Profile of the shared AWS configuration files; AWS's standard chain if not "
        "set. Not together with access_key_id.",
    )
    access_key_id: str | None = Field(
        default=None,
        min_length=1,
        repr=False,
        description="Access key of an IAM user; needs secret_access_key.",
    )
    secret_access_key: SecretReference | None = Field(
        default=None, description="Where the secret of access_key_id is; needs access_key_id."
    )

    @field_validator("iot_endpoint_url", "greengrass_endpoint_url")
    @classmethod
    def _check_url(cls, given: str | None) -> str | None:
        return None if given is None else _checked_url(given)

    @model_validator(mode="after")
    def _one_credential(self) -> AwsAccountSettings:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("give both access_key_id and secret_access_key, or neither")
        if self.access_key_id is not None and self.profile is not None:
            raise ValueError("give profile or access_key_id, not both")
        return self


def _checked_url(given: str) -> str:
    try:
        url = httpx.URL(given)
    except httpx.InvalidURL:
        raise ValueError("expected https://host:port") from None
    if url.scheme not in ("https", "http") or not url.host or url.path != "/" or url.query:
        raise ValueError("expected https://host:port, without path and query")
    if url.userinfo:
        raise ValueError("take user and password out of the url: requests are signed")
    if url.scheme == "http" and not is_loopback(url.host):
        raise ValueError("http:// is only accepted on loopback: use https://")
    return given.rstrip("/")


class Identity:
    """Finds credentials and host names. `timeout_seconds` is for the services that give them."""

    def __init__(self, source: str, settings: AwsAccountSettings, timeout_seconds: float) -> None:
        self._source = source
        self._settings = settings
        self._timeout_seconds = timeout_seconds
        self._region_urls: dict[str, str] = {}
        self.name = _credential_name(source, settings)
        """What people call the credential."""

    def credentials(self) -> Any:
        """botocore credentials, refreshed if they were about to expire.

        Raises CredentialRefused, SourceUnreachable when the service that gives them is down, and
        ConfigurationError when the secret is not where the settings say.
        """
        found = self._translated(self._find)
        if found is None:
            raise self._refused(f"no credentials in {self.name}")
        return found

    def signature(self, service: str) -> httpx.Auth:
        """Signs a request to `service` with the credentials of now; raises what they raise.

        They are found here, as a service or program that gives them may be slow: botocore bounds
        the first by `timeout_seconds`, and the second not at all.
        """
        return _Signature(service, self._settings.region, self.credentials())

    def base_url(self, service: str) -> str:
        """Where `service` answers: the setting, or else the region's host name."""
        settings = self._settings
        given = {"iot": settings.iot_endpoint_url, "greengrass": settings.greengrass_endpoint_url}
        return given[service] or self._region_url(service)

    def _region_url(self, service: str) -> str:
        if service not in self._region_urls:
            self._region_urls[service] = self._translated(lambda: self._ask_botocore(service))
        return self._region_urls[service]

    def _ask_botocore(self, service: str) -> str:
        from botocore.config import Config  # noqa: PLC0415

        # The only public way to the host name is a client, whose keys are not used.
        client = self._session.create_client(
            MODELS[service],
            region_name=self._settings.region,
            aws_access_key_id="unused",
            aws_secret_access_key="unused",  # noqa: S106
            config=Config(ignore_configured_endpoint_urls=True),
        )
        return str(client.meta.endpoint_url)

    def _find(self) -> Any:
        from botocore.credentials import Credentials  # noqa: PLC0415

        settings = self._settings
        if settings.access_key_id is not None and settings.secret_access_key is not None:
            return Credentials(settings.access_key_id, settings.secret_access_key.read())
        found = self._session.get_credentials()
        return None if found is None else found.get_frozen_credentials()

    def _translated(self, question: Callable[[], Any]) -> Any:
        from botocore import exceptions  # noqa: PLC0415

        # botocore's messages are not repeated: they may quote what a credential process printed.
        try:
            return question()
        except (
            exceptions.HTTPClientError,
            exceptions.MetadataRetrievalError,
            exceptions.CredentialRetrievalError,
        ) as error:
            problem = f"{error.__class__.__name__} from {self.name}"
            fix = "Check the service or program that gives the credentials."
            raise SourceUnreachable(self._source, "credentials", problem, fix) from None
        except (exceptions.BotoCoreError, exceptions.ClientError) as error:
            raise self._refused(f"{error.__class__.__name__} from {self.name}") from None

    def _refused(self, problem: str) -> CredentialRefused:
        fix = "Set the credentials, or name others in the settings."
        return CredentialRefused(self._source, "credentials", problem, fix)

    @cached_property
    def _session(self) -> Any:
        import botocore.session  # noqa: PLC0415
        from botocore.config import Config  # noqa: PLC0415

        session = botocore.session.Session(profile=self._settings.profile)
        # For the services that give credentials: tries are ours, so that the deadline holds.
        session.set_default_client_config(
            Config(
                connect_timeout=self._timeout_seconds,
                read_timeout=self._timeout_seconds,
                retries={"total_max_attempts": 1},
            )
        )
        return session


def _credential_name(source: str, settings: AwsAccountSettings) -> str:
    if settings.secret_access_key is not None:
        return f"{source}.access_key_id with the secret of {settings.secret_access_key}"
    if settings.profile is not None:
        return f"AWS profile {settings.profile!r}"
    return "AWS's standard credential chain"


class _Signature(httpx.Auth):
    """Signs requests to one service with AWS signature version 4."""

    requires_request_body = True

    def __init__(self, service: str, region: str, credentials: Any) -> None:
        self._service = service
        self._region = region
        self._credentials = credentials

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """Add the signature's headers; asked once, the answer is not looked at."""
        from botocore.auth import SigV4Auth  # noqa: PLC0415
        from botocore.awsrequest import AWSRequest  # noqa: PLC0415

        # At level DEBUG botocore logs what it signs, the session token included.
        logging.getLogger("botocore.auth").setLevel(logging.INFO)
        signed = AWSRequest(request.method, str(request.url), data=request.content)
        SigV4Auth(self._credentials, self._service, self._region).add_auth(signed)
        for name in ("Authorization", "X-Amz-Security-Token"):
            SIGNATURES.remember(signed.headers.get(name, ""))
        request.headers.update(dict(signed.headers.items()))
        yield request
