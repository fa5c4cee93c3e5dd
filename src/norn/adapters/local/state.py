"""What the local runtime writes down of an app: what was accepted, and what is live."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from norn.adapters.local import files
from norn.domain.images import Image
from norn.domain.ports import Template
from norn.errors import RuntimeUnavailable, UnknownApp

T = TypeVar("T")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?\Z")


def is_app_name(name: str) -> bool:
    """Whether it is a DNS label (RFC 1123)."""
    return _NAME.match(name) is not None


def check_app_name(app: str) -> str:
    """The name itself, where it is a DNS label (RFC 1123) and so cannot leave its directory. Raises UnknownApp."""
    if not is_app_name(app):
        raise UnknownApp(f"{app!r} is not the name of an app.", hint="`norn apps` lists those that there are.")
    return app


@dataclass(frozen=True, slots=True)
class Upstream:
    """One replica."""

    instance: str
    """`<generation>-<n>`"""
    port: int | None
    """Where it listens on 127.0.0.1; None for a worker."""

    def to_json(self) -> dict[str, Any]:
        return {"instance": self.instance, "port": self.port}


@dataclass(frozen=True, slots=True)
class Desired:
    """The change that was accepted last; it is pending while its generation is not the live one's."""

    generation: int
    change_id: str
    """The deployment or operation that asked for it."""
    deployment_id: str
    image: Image
    template: Template

    def same(self, other: Desired | Active) -> bool:
        """Whether both bring the same image under the same template, for the same change."""
        mine = (self.change_id, self.deployment_id, self.image.digest, self.template.to_json())
        return mine == (other.change_id, other.deployment_id, other.image.digest, other.template.to_json())

    def to_json(self) -> dict[str, Any]:
        return {
            "generation": self.generation,
            "changeId": self.change_id,
            "deploymentId": self.deployment_id,
            "image": _image_to_json(self.image),
            "template": self.template.to_json(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Desired:
        return cls(
            generation=value["generation"],
            change_id=value["changeId"],
            deployment_id=value["deploymentId"],
            image=_image_from_json(value["image"]),
            template=Template.from_json(value["template"]),
        )


@dataclass(frozen=True, slots=True)
class Active:
    """What is live: the one truth, read by the proxy too."""

    generation: int
    change_id: str
    deployment_id: str
    image: Image
    template: Template
    upstreams: tuple[Upstream, ...]
    since: datetime

    @property
    def port(self) -> int | None:
        """Where the proxy listens; None for a worker."""
        return self.template.port if self.template.role == "webserver" else None

    @property
    def instances(self) -> frozenset[str]:
        return frozenset(upstream.instance for upstream in self.upstreams)

    def as_desired(self) -> Desired:
        return Desired(self.generation, self.change_id, self.deployment_id, self.image, self.template)

    def to_json(self) -> dict[str, Any]:
        return self.as_desired().to_json() | {
            "port": self.port,
            "upstreams": [upstream.to_json() for upstream in self.upstreams],
            "since": self.since.isoformat(),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Active:
        desired = Desired.from_json(value)
        return cls(
            desired.generation,
            desired.change_id,
            desired.deployment_id,
            desired.image,
            desired.template,
            tuple(Upstream(item["instance"], item["port"]) for item in value["upstreams"]),
            datetime.fromisoformat(value["since"]),
        )


def _image_to_json(image: Image) -> dict[str, str]:
    return {"tag": image.tag, "digest": image.digest, "commitSha": image.commit_sha}


def _image_from_json(value: Mapping[str, str]) -> Image:
    return Image(value["tag"], value["digest"], value["commitSha"])


class AppFiles:
    """The directory of one app, `apps/<app>` under NORN_HOME."""

    def __init__(self, home: Path, app: str) -> None:
        self.app = check_app_name(app)
        self.directory = home / "apps" / app
        self.instances = self.directory / "instances"
        self.proxies = self.directory / "proxy"
        self.home = self.directory / "home"
        """The HOME of the app's processes; they may write there."""

    def make(self) -> None:
        """Make the directories; the app's account reaches its home and nothing else."""
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        files.make_directory(self.directory.parent, 0o755)
        files.make_directory(self.directory, 0o755)
        files.make_directory(self.instances, 0o700)
        files.make_directory(self.proxies, 0o700)
        files.make_directory(self.home, 0o700)

    def desired(self) -> Desired | None:
        """What was accepted last. Raises RuntimeUnavailable where the file is damaged."""
        return self._read("desired.json", Desired.from_json)

    def active(self) -> Active | None:
        """What is live. Raises RuntimeUnavailable where the file is damaged."""
        return self._read("active.json", Active.from_json)

    def pending(self) -> Desired | None:
        """The accepted change, where it is not live yet."""
        desired, active = self.desired(), self.active()
        return None if desired is None or (active and active.generation == desired.generation) else desired

    def write_desired(self, desired: Desired | None) -> None:
        path = self.directory / "desired.json"
        if desired is not None:
            files.write_json(path, desired.to_json())
        elif path.exists():
            path.unlink()
            files.sync_directory(self.directory)

    @property
    def halted(self) -> bool:
        """Nothing of the app is to run, whatever is live."""
        return (self.directory / "halted").exists()

    def halt(self) -> None:
        """Durable on return."""
        (self.directory / "halted").touch(0o600)
        files.sync_directory(self.directory)

    def unhalt(self) -> None:
        (self.directory / "halted").unlink(missing_ok=True)
        files.sync_directory(self.directory)

    def write_active(self, active: Active) -> None:
        files.write_json(self.directory / "active.json", active.to_json())

    def next_generation(self) -> int:
        """Higher than any that was ever begun and left something behind."""
        known = [item.generation for item in (self.desired(), self.active()) if item is not None]
        known += [int(name.partition("-")[0]) for name in self.instance_names()]
        return max(known, default=0) + 1

    def instance_names(self) -> list[str]:
        if not self.instances.is_dir():
            return []
        return sorted(path.name for path in self.instances.iterdir() if re.fullmatch(r"\d+-\d+", path.name))

    def _read(self, name: str, parse: Callable[[Any], T]) -> T | None:
        path = self.directory / name
        try:
            value = files.read_json(path)
            return parse(value) if value is not None else None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RuntimeUnavailable(
                f"{path} cannot be read: {error!r}.", hint="Restore it from a backup, or remove it and deploy again."
            ) from error
