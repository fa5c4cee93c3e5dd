"""The pictures of docs/pages.md: each page in light, dark and phone width, of the sample app, in docs/pictures.

From a clone that has been set up (`make check` does it): `.venv/bin/python -m tools.pictures`. Wants chromium.
"""

from __future__ import annotations

import io
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser
from tests.fixtures.browser import PHONE, Scheme, chromium, visiting
from tests.fixtures.norn import NornServer

from norn.cli.demo import Demo

DIRECTORY = Path(__file__).parents[1] / "docs" / "pictures"
APP = "guestbook"
DESK = (1080, 760)
COLOURS = 128
VERSIONS = ("2-cities", "3-by-city")


class Stage(Demo):
    """The demo's app on a server of its own, as far as the moment before the way back."""

    def play(self) -> None:
        self.make_repository()
        self.start_server()
        self._run("deploy", APP)
        for visitor in ("Urd", "Verdandi", "Skuld"):
            self.sign(visitor)
        for version in VERSIONS:
            self.change(version)
            self._run("deploy", APP)
        self.sign("Loki")
        self._run("snapshots", "verify", APP, "newest")

    def _run(self, *arguments: str) -> None:
        if self.norn(*arguments) != 0:
            raise SystemExit(f"norn {' '.join(arguments)} failed")

    def answering(self) -> NornServer:
        found = NornServer(self.home)
        found.url = self.environment["NORN_URL"]
        found.port = int(found.url.rpartition(":")[2])
        return found


@contextmanager
def stage() -> Iterator[Stage]:
    home = Path(tempfile.mkdtemp(prefix="norn-pictures-"))
    home.chmod(0o755)
    found = Stage(home)
    try:
        found.play()
        yield found
    finally:
        found.stop_everything()
        for directory in [home, *(path for path in home.rglob("*") if path.is_dir() and not path.is_symlink())]:
            directory.chmod(0o700)
        shutil.rmtree(home)


def pages(server: NornServer) -> dict[str, str]:
    newest = server.history(APP)[0]["id"]
    snapshot = server.api("GET", f"/api/apps/{APP}/snapshots").body["snapshots"][0]["name"]
    return {
        "apps": "/",
        "app": f"/apps/{APP}",
        "operation": f"/operations/{newest}",
        "rollback": f"/apps/{APP}/rollback",
        "snapshots": f"/apps/{APP}/snapshots",
        "restore": f"/apps/{APP}/snapshots/restore?name={snapshot}",
        "retention": f"/apps/{APP}/retention",
        "audit": "/audit",
        "docs": "/docs",
        "sign-in": "/sign-in",
    }


LOOKS: dict[str, tuple[Scheme, tuple[int, int]]] = {
    "light": ("light", DESK),
    "dark": ("dark", DESK),
    "phone": ("light", PHONE),
}
SCREENS = {("rollback", "phone"): 6}
"""So many of a long page are in its picture, that of a rollback down to its button; else 2, on a phone 3."""


def take(browser: Browser, server: NornServer) -> None:
    DIRECTORY.mkdir(exist_ok=True)
    for look, (scheme, size) in LOOKS.items():
        with visiting(browser, server, scheme=scheme, size=size) as visit:
            for name, path in pages(server).items():
                visit.go(path)
                visit.page.locator(".loading").first.wait_for(state="detached")  # what is found out after the page
                screens = SCREENS.get((name, look), 3 if look == "phone" else 2)
                tall = min(int(visit.page.evaluate("document.body.scrollHeight")), screens * size[1])
                clip = {"x": 0.0, "y": 0.0, "width": float(size[0]), "height": float(tall)}
                save(visit.page.screenshot(full_page=True, clip=clip), DIRECTORY / f"{name}-{look}.png")


def save(png: bytes, to: Path) -> None:
    """With few colours: flat pages need no more, and the repository stays small. None is far from what it was."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    picture = picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
    picture.save(to, optimize=True)


if __name__ == "__main__":
    with stage() as found, chromium() as browser:
        take(browser, found.answering())
