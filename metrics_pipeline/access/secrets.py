"""Secrets by reference: the settings name an environment variable or a file, never a value."""

from __future__ import annotations

import os

from pydantic import BaseModel, Field, model_validator

from metrics_pipeline.access.state_path import StatePath
from metrics_pipeline.core.errors import ConfigurationError
from metrics_pipeline.core.redaction import KNOWN


class SecretReference(BaseModel, frozen=True, extra="forbid", hide_input_in_errors=True):
    """Where a secret is: `{env: NAME}` or `{file: PATH}`. Its value is read at each use."""

    env: str | None = Field(
        default=None, min_length=1, description="The environment variable that holds it."
    )
    file: StatePath | None = Field(
        default=None, description="The file that holds it; relative to the state directory."
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_a_value(cls, given: object) -> object:
        if isinstance(given, str | int | float):
            # The value is not repeated here: it may be the secret itself.
            raise ValueError("a secret is never written here: give {env: NAME} or {file: PATH}")
        return given

    @model_validator(mode="after")
    def _exactly_one(self) -> SecretReference:
        if (self.env is None) == (self.file is None):
            raise ValueError("give exactly one of env and file")
        return self

    def __str__(self) -> str:
        return f"environment variable {self.env}" if self.env else f"file {self.file}"

    def read(self) -> str:
        """The secret, without surrounding white space; ConfigurationError if it is not there.

        From now on it is in no error's text, whoever repeats it.
        """
        value = (os.environ.get(self.env, "") if self.env else self._read_file()).strip()
        if not value:
            raise ConfigurationError(str(self), "no secret is there", "Set it and try again.")
        KNOWN.remember(value)
        return value

    def _read_file(self) -> str:
        assert self.file is not None
        try:
            return self.file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                str(self),
                f"cannot be read ({error.__class__.__name__})",
                "Create it, or make it readable.",
            ) from error
