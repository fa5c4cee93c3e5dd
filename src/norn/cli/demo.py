"""norn demo: three deploys of a sample app on a throw-away server, the third one broken, and the way back.

First of the code, then of the data.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

from norn.cli.context import Context
from norn.cli.demo_traffic import Traffic
from norn.errors import EXIT_DONE, EXIT_FAILED, NotFound, ProgramFailed, SettingInvalid, Unsafe

_APP = "guestbook"
_VERSIONS = ("1 as it is", "2-cities", "3-by-city")
_SETTLE_S = 1.5
_START_TIMEOUT_S = 60.0
_SIGN_S = 15.0


def add_demo(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "On a throw-away server: deploys a sample app with a database three times, the third one broken, while "
        "requests are sent all the time; rolls back, restores the data, and says how long that took and what was lost."
    )
    parser.epilog = (
        "examples:\n"
        "  norn demo\n"
        "  norn demo --keep                  leave the server running to look around\n"
        "  NORN_REGISTRY=localhost:5001 norn demo --runtime kubernetes"
    )
    parser.add_argument("--keep", action="store_true", help="leave the server and the app running")
    parser.add_argument("--runtime", choices=("local", "kubernetes"), default="local", help="where the app runs")
    parser.add_argument("--base-image", help=f"for kubernetes: a Python {_version()} to build on")
    parser.set_defaults(run=run)


class Demo:
    """On local processes."""

    prefix = ""
    """Of the app's paths, as they are reached from here."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.repository = home / "projects" / _APP
        self.port, server_port = _free_port(), _free_port()
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("NORN_")} | {
            "NORN_HOME": str(home / "norn"),
            "NORN_APPS_DIR": str(home / "projects"),
            "NORN_LISTEN": f"127.0.0.1:{server_port}",
            "NORN_URL": f"http://127.0.0.1:{server_port}",
        }
        self.log = home / "server.log"
        self.server: subprocess.Popen[bytes] | None = None

    # ---- the app -------------------------------------------------------------------------------------------------

    def make_repository(self) -> None:
        """A real git repository with the sample app, its driver vendored, on a free port."""
        shutil.copytree(example(), self.repository, ignore=shutil.ignore_patterns("versions", "__pycache__"))
        vendor(self.repository / "vendor")
        self.adjust()
        self._git("init", "--quiet", "--initial-branch=main", ".")
        self._commit("Guestbook: visitors sign")

    def adjust(self) -> None:
        """What is different on this machine: the port, and which Python."""
        spec = self.repository / "infraspec.yaml"
        text = spec.read_text(encoding="utf-8").replace("port: 8080", f"port: {self.port}")
        spec.write_text(text.replace("python3", _python()), encoding="utf-8")

    def change(self, version: str) -> None:
        """The next version, as a commit."""
        self._git("apply", str(example() / "versions" / f"{version}.patch"))
        self._commit(f"Version {version}")

    def _commit(self, message: str) -> None:
        self._git("add", "--all", "--force")
        who = ("-c", "user.name=Demo", "-c", "user.email=demo@example.com", "-c", "commit.gpgsign=false")
        self._git(*who, "commit", "--quiet", "--message", message)

    def _git(self, *arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=self.repository, check=True, stdin=subprocess.DEVNULL)

    # ---- the server ----------------------------------------------------------------------------------------------

    def start_server(self) -> None:
        with self.log.open("wb") as log:
            self.server = subprocess.Popen(
                [sys.executable, "-m", "norn", "serve"],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        host, _, port = self.environment["NORN_LISTEN"].rpartition(":")
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), 1):
                if (self.home / "norn" / "admin-token").exists():
                    return
            if self.server.poll() is not None:
                break
            time.sleep(0.05)
        raise ProgramFailed("The server did not start.", output=self.log.read_text(errors="replace")[-4_000:])

    def stop_everything(self) -> None:
        subprocess.run(
            [sys.executable, "-m", "norn", "serve", "--stop-all"],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        if self.server is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.server.wait(20)

    def norn(self, *arguments: str) -> int:
        """Run a command as a person would, in front of them."""
        print(f"\n$ norn {' '.join(arguments)}", flush=True)
        return subprocess.run(
            [sys.executable, "-m", "norn", *arguments, "-o", "text"], env=self.environment, check=False
        ).returncode

    def sign(self, visitor: str) -> None:
        """Once; on a cluster a pod of the version before may still answer for a moment, and is asked again."""
        deadline = time.monotonic() + _SIGN_S
        while (status := self._sign(visitor)) != 201:
            if time.monotonic() > deadline:
                raise ProgramFailed(f"Signing the guestbook was answered with HTTP {status}.")
            time.sleep(0.5)

    def _sign(self, visitor: str) -> int:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("POST", f"{self.prefix}/api/entries", json.dumps({"visitor": visitor}))
        status = connection.getresponse().status
        connection.close()
        return status


class ClusterDemo(Demo):
    """On the cluster of the present kubeconfig; the app is reached through the API server, by `kubectl proxy`."""

    def __init__(self, home: Path, base_image: str | None) -> None:
        super().__init__(home)
        self.base_image = base_image or f"python:{_version()}-slim"
        passed = {name: value for name, value in os.environ.items() if name in _CLUSTER_SETTINGS}
        if "NORN_REGISTRY" not in passed:
            raise SettingInvalid(
                "NORN_REGISTRY is not set: a cluster pulls its images from a registry.",
                hint="For example NORN_REGISTRY=localhost:5001, as the nodes can reach it, too.",
            )
        if "NORN_POSTGRES_URL" not in passed:
            passed.setdefault("NORN_POSTGRES_POD_URL", f"postgresql://{_own_address()}")
        self.namespace = passed.get("NORN_NAMESPACE", "default")
        self.environment |= passed | {"NORN_RUNTIME": "kubernetes"}
        self.prefix = f"/api/v1/namespaces/{self.namespace}/services/{_APP}:http/proxy"
        self._proxy: subprocess.Popen[bytes] | None = None

    def adjust(self) -> None:
        dockerfile = self.repository / "Dockerfile"
        text = dockerfile.read_text(encoding="utf-8")
        dockerfile.write_text(text.replace("python:3.11-slim", self.base_image), encoding="utf-8")
        spec = self.repository / "infraspec.yaml"
        text = spec.read_text(encoding="utf-8").replace("env: {", 'env: {HOST: "0.0.0.0", ')
        spec.write_text(f"{text}hosts: {{internal: {_APP}}}\n", encoding="utf-8")

    def start_server(self) -> None:
        super().start_server()
        argv = ["kubectl", "proxy", f"--port={self.port}"]
        quiet = subprocess.DEVNULL
        self._proxy = subprocess.Popen(argv, stdin=quiet, stdout=quiet, stderr=quiet)

    def stop_everything(self) -> None:
        super().stop_everything()
        what = ("deployments,services,secrets", f"--selector=app.kubernetes.io/name={_APP}", "--ignore-not-found")
        argv = ["kubectl", "--namespace", self.namespace, "delete", *what]
        subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False)
        if self._proxy is not None:
            self._proxy.terminate()
            self._proxy.wait(10)


_CLUSTER_SETTINGS = (
    "NORN_NAMESPACE", "NORN_KUBE_CONTEXT", "NORN_REGISTRY", "NORN_BUILDER", "NORN_POSTGRES_URL",
    "NORN_POSTGRES_POD_URL",
)  # fmt: skip


def _own_address() -> str:
    """The address by which this machine goes out: pods of a cluster nearby reach it there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            return socket.gethostbyname(socket.gethostname())
        address: str = probe.getsockname()[0]
        return address


def run(context: Context) -> int:
    kubernetes = context.args.runtime == "kubernetes"
    if kubernetes and shutil.which("kubectl") is None:
        raise NotFound("kubectl is not installed.", hint="The demo reaches the app, and tidies up, by kubectl.")
    if shutil.which("git") is None:
        raise NotFound("git is not installed.", hint="apt-get install git")
    home = Path(tempfile.mkdtemp(prefix="norn-demo-"))
    home.chmod(0o755)  # apps run as another user where this one is root
    demo = ClusterDemo(home, context.args.base_image) if kubernetes else Demo(home)
    try:
        status = _story(demo, Traffic(demo.port, demo.prefix))
    except BaseException:
        context.args.keep = False
        raise
    finally:
        if not context.args.keep:
            with _uninterrupted():
                demo.stop_everything()
                _remove(home)
    if context.args.keep:
        print("\nThe server runs on. To look around:")
        print(f"  export NORN_HOME={home}/norn NORN_URL={demo.environment['NORN_URL']}")
        print(f"  norn status {_APP}; curl http://127.0.0.1:{demo.port}{demo.prefix}/")
        print(f"To end it:\n  NORN_HOME={home}/norn norn serve --stop-all; chmod -R u+w {home}; rm -r {home}")
    return status


def _story(demo: Demo, traffic: Traffic) -> int:
    print("A throw-away server with its own PostgreSQL, and a sample app in a git repository.", flush=True)
    demo.make_repository()
    demo.start_server()
    if demo.norn("deploy", _APP) != 0:
        return EXIT_FAILED
    for visitor in ("Urd", "Verdandi", "Skuld"):
        demo.sign(visitor)
    traffic.phase("version 1")
    traffic.start()
    time.sleep(_SETTLE_S)
    demo.change(_VERSIONS[1])
    traffic.phase("deploy of version 2")
    if demo.norn("deploy", _APP) != 0:
        return EXIT_FAILED
    demo.change(_VERSIONS[2])
    traffic.phase("deploy of version 3, which is broken")
    if demo.norn("deploy", _APP) != 0:
        return EXIT_FAILED
    traffic.phase("version 3 is live")
    demo.sign("Loki")
    time.sleep(_SETTLE_S)
    print("\nIts health check passes, its tests pass, and visitors see wrong answers. Back:", flush=True)
    traffic.phase("asking for a rollback")
    began = time.monotonic()
    refused = demo.norn("rollback", _APP, "--reason", "the page fails")
    if refused != Unsafe.exit_status:
        print("\nIT WAS NOT REFUSED, though version 3 has dropped a column that version 2 writes.")
        return EXIT_FAILED
    print(
        "\nThe code of version 2 would not be enough. What helps is said as well: back with the data of then.",
        flush=True,
    )
    traffic.phase("rollback with the data")
    status = demo.norn("rollback", _APP, "--restore-snapshot", "--yes", "--reason", "the page fails")
    took = time.monotonic() - began
    traffic.phase("with the data of then")
    time.sleep(_SETTLE_S)
    traffic.stop()
    demo.sign("Bragi")  # what the code alone could not have done
    demo.norn("history", _APP)
    demo.norn("snapshots", "list", _APP)
    return _summary(traffic, status, took, lossless=not isinstance(demo, ClusterDemo))


def _summary(traffic: Traffic, status: int, took: float, *, lossless: bool) -> int:
    print(f"\nThe way back took {took:.1f} s, from the first command to the good version answering.")
    print("What visitors saw (a visit is the page and its numbers):\n")
    print(f"  {'phase':38} {'right':>7} {'wrong or failed':>16}")
    for phase in traffic.phases:
        print(f"  {phase:38} {traffic.right[phase]:7} {traffic.wrong[phase]:16}")
    after = [(traffic.right[phase], traffic.wrong[phase]) for phase in ("with the data of then",)]
    good_again = all(right > 0 and (wrong == 0 if lossless else wrong * 10 < right) for right, wrong in after)
    # On a cluster the endpoints of a Service lag behind its pods: a few requests may meet one that is going.
    unharmed = not lossless or (traffic.wrong["version 1"] == 0 and traffic.wrong["deploy of version 2"] == 0)
    print("\nThe good version answers again, with the data of then." if good_again else "\nIT DID NOT COME BACK.")
    return EXIT_DONE if status == 0 and good_again and unharmed else EXIT_FAILED


def _remove(home: Path) -> None:
    """Images are read-only, for their owner too."""
    for directory, _, _ in os.walk(home):
        Path(directory).chmod(0o700)
    shutil.rmtree(home)


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Nothing is left behind, even when somebody presses Ctrl-C twice."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def example() -> Path:
    """The sample app: beside the source, or in the installed package."""
    import norn

    package = Path(norn.__file__).parent
    for place in (package / "examples" / _APP, package.parent.parent / "examples" / _APP):
        if (place / "infraspec.yaml").exists():
            return place
    raise NotFound("The sample app is not part of this installation.", hint="Run the demo from a clone.")


def vendor(into: Path) -> None:
    """Copy the PostgreSQL driver that Norn itself uses, so that the app needs nothing from a network."""
    into.mkdir()
    for module in ("psycopg", "psycopg_binary", "typing_extensions"):
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None:
            raise NotFound(f"{module} is not installed.", hint="Install Norn with its dependencies: make demo")
        origin = Path(spec.origin)
        if origin.name != "__init__.py":
            shutil.copy(origin, into)
            continue
        shutil.copytree(origin.parent, into / module, ignore=shutil.ignore_patterns("__pycache__"))
        libraries = origin.parent.with_name(f"{module}.libs")
        if libraries.exists():
            shutil.copytree(libraries, into / libraries.name)


def _version() -> str:
    """Of the Python that the vendored driver was made for."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _python() -> str:
    """The interpreter that the vendored driver was made for, outside of any virtual environment."""
    return os.path.realpath(sys.executable)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
