"""The command lines of buildah, podman and docker: pure functions, one list of arguments each."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from norn.errors import ProgramMissing, SettingInvalid

NAMES = ("buildah", "podman", "docker")
PASSED_ON = (
    "BUILDAH_ISOLATION",
    "BUILDAH_RUNTIME",
    "STORAGE_DRIVER",
    "STORAGE_OPTS",
    "CONTAINERS_CONF",
    "CONTAINERS_STORAGE_CONF",
    "CONTAINERS_REGISTRIES_CONF",
    "REGISTRY_AUTH_FILE",
    "DOCKER_HOST",
    "DOCKER_CONFIG",
    "DOCKER_CONTEXT",
    "XDG_RUNTIME_DIR",
)
"""Settings of the builders themselves that they are given from the server's environment."""


def find_builder(wanted: str | None) -> str:
    """The builder that is asked for, else the first that is installed. Raises ProgramMissing, SettingInvalid."""
    if wanted is not None and wanted not in NAMES:
        raise SettingInvalid(f"NORN_BUILDER={wanted!r} is none of {', '.join(NAMES)}.")
    for name in (wanted,) if wanted else NAMES:
        if shutil.which(name):
            return name
    raise ProgramMissing(
        f"{wanted or ', '.join(NAMES)}: not installed.",
        hint="Images for a cluster are built here: apt-get install buildah",
        program=wanted or NAMES[0],
    )


@dataclass(frozen=True, slots=True)
class Builder:
    """One of the three programs, and whether the registry is asked without TLS."""

    program: str
    insecure: bool = False

    def _tls(self) -> list[str]:
        # Docker's daemon decides by itself: plain HTTP for this machine's own registries, else as it is configured.
        return ["--tls-verify=false"] if self.insecure and self.program != "docker" else []

    def build(self, context: str, dockerfile: str, tag: str, labels: Mapping[str, str] = {}) -> list[str]:
        """Build `context` by `dockerfile` (a path of its own) into the local store, under `tag`."""
        # buildah alone would keep the container of a build that fails or is stopped, and nobody would ever remove it.
        verb = ["bud", "--layers", "--force-rm"] if self.program == "buildah" else ["build"]
        marks = [word for name, value in sorted(labels.items()) for word in ("--label", f"{name}={value}")]
        return [self.program, *verb, *self._tls(), *marks, "--file", dockerfile, "--tag", tag, context]

    def push(self, tag: str) -> list[str]:
        return [self.program, "push", *self._tls(), tag]

    def remove(self, *images: str) -> list[str]:
        return [self.program, "rmi", "--force", *images]

    def images(self, label: str) -> list[str]:
        """Prints the ids of the images in the local store that have a label, `NAME=VALUE`."""
        return [self.program, "images", "--quiet", "--no-trunc", "--filter", f"label={label}"]

    def image_id(self, tag: str) -> list[str]:
        """Prints the id under which the local store knows a tag."""
        if self.program == "buildah":
            return ["buildah", "inspect", "--type", "image", "--format", "{{.FromImageID}}", tag]
        return [self.program, "image", "inspect", "--format", "{{.Id}}", tag]

    def run(self, name: str, image: str, command: Sequence[str]) -> list[list[str]]:
        """Run a command in an image, and leave nothing: what to run one after the other."""
        if self.program == "buildah":
            return [
                ["buildah", "from", *self._tls(), "--name", name, image],
                ["buildah", "run", name, "--", *command],
            ]
        entry = ["--entrypoint", command[0]]
        return [[self.program, "run", "--rm", "--name", name, *entry, image, *command[1:]]]

    def forget(self, name: str) -> list[str]:
        """Remove what is left of `run`."""
        return ["buildah", "rm", name] if self.program == "buildah" else [self.program, "rm", "--force", name]


def last_stage(base: str, command: Sequence[str] | None) -> str:
    """A Dockerfile over the user's own image, whose command becomes the infraspec's.

    In the exec form, as JSON: no shell sees it. An ENTRYPOINT of the image stays, and gets the command as arguments.
    """
    lines = [f"FROM {base}"]
    if command is not None:
        lines.append(f"CMD {json.dumps(list(command))}")
    return "\n".join(lines) + "\n"
