"""What docker/ says, as the tests read it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[2]
DOCKER = REPOSITORY / "docker"

COMPOSE: Mapping[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())
SERVICES: Mapping[str, Mapping[str, Any]] = COMPOSE["services"]
OURS = tuple(name for name, service in SERVICES.items() if "build" in service)
"""The services of our image."""


def dockerfile_instructions() -> Sequence[tuple[str, Sequence[str]]]:
    """Instruction and arguments of each instruction of the Dockerfile, in order."""
    lines = (DOCKER / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")
    parsed = [shlex.split(line) for line in text.splitlines() if line]
    return [(words[0], words[1:]) for words in parsed]


def last_stage() -> Sequence[tuple[str, Sequence[str]]]:
    """The instructions that make the image that runs."""
    instructions = dockerfile_instructions()
    start = max(i for i, (name, _) in enumerate(instructions) if name == "FROM")
    return instructions[start:]


def image_environment() -> Mapping[str, str]:
    """The variables the image sets."""
    pairs = [word.split("=", 1) for name, words in last_stage() if name == "ENV" for word in words]
    return dict(pairs)


def bind_mounts(service: Mapping[str, Any]) -> Mapping[str, Path]:
    """The files of this repository that a service mounts, by their path in the container."""
    parts = [volume.split(":") for volume in service.get("volumes", ())]
    return {inside: DOCKER / outside for outside, inside, *_ in parts if outside.startswith(".")}


def named_volumes(service: Mapping[str, Any]) -> Mapping[str, str]:
    """The names of the volumes a service mounts, by their path in the container."""
    parts = [volume.split(":") for volume in service.get("volumes", ())]
    return {inside: name for name, inside, *_ in parts if not name.startswith(".")}
