"""A real Triton server for as long as a `with` block lasts, on the loopback address alone."""

import contextlib
import http.client
import json
import os
import shlex
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from optkit.core import temporary
from optkit.core.errors import InputError, MachineError
from optkit.serving import command, ensemble, install, log, memory, repository
from optkit.serving.command import ADDRESS, Ports

SUPERVISOR = Path(__file__).with_name("supervisor.py")
START_DEADLINE_S = 120.0
HTTP_THREADS = 4
ATTEMPTS = 3
"""A port that was free a moment ago may be taken by the time the server binds it."""


class Server:
    """A server over one repository; every model of `models` is loaded when the `with` block is entered.

    Models are controlled explicitly, so that the baseline and the candidates can be measured on the same server. The
    server and its backend processes end with the block, and also when this process is killed.

    Args:
        repository: the model repository, `<model>/config.pbtxt` and `<model>/<version>/`.
        logs: folder for the server's log, which is kept.
        models: names to load at the start.
        http_port: port of the HTTP protocol; a free one if None.
        deadline_s: seconds for the start, and for loading each model.
        http_threads: threads that read and write HTTP requests.
        grace_s: seconds given to requests in flight when the server is ended; 0 ends it at once.
        cache_mb: memory of the response cache for models that want one; 0: no cache, and they are served without.
    """

    def __init__(
        self,
        repository: Path,
        logs: Path,
        models: Iterable[str] = (),
        http_port: int | None = None,
        deadline_s: float = START_DEADLINE_S,
        http_threads: int = HTTP_THREADS,
        grace_s: float = 0.0,
        cache_mb: int = 0,
    ) -> None:
        self.repository = Path(repository).absolute()
        self.logs = Path(logs)
        self.models = tuple(models)
        self.http_port = http_port
        self.deadline_s = deadline_s
        self.http_threads = http_threads
        self.grace_s = grace_s
        self.cache_mb = cache_mb
        self.log = Path()
        self._ports = Ports(0, 0, 0)
        self._supervisor: subprocess.Popen[bytes] | None = None
        self._environments: set[Path] = set()

    @property
    def url(self) -> str:
        """`host:port` of the HTTP protocol, as clients take it."""
        return f"{ADDRESS}:{self._ports.http}"

    @property
    def grpc_url(self) -> str:
        """`host:port` of the gRPC protocol."""
        return f"{ADDRESS}:{self._ports.grpc}"

    @property
    def metrics_url(self) -> str:
        """URL of the metrics for Prometheus."""
        return f"http://{ADDRESS}:{self._ports.metrics}/metrics"

    def __enter__(self) -> Self:
        """Start the server and load its models.

        Raises:
            InputError: the repository is missing, or lacks one of the models.
            MachineError: the server is not installed, the port is taken, or it or a model cannot be started.
        """
        self._check()
        try:
            self._start()
            for model in self.models:
                self.load(model)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def load(self, model: str) -> None:
        """Load or reload a model of the repository.

        Raises:
            InputError: the repository has no such model.
            MachineError: it cannot be loaded; the message quotes the server.
        """
        self._require(model)
        before = _environments()
        try:
            self._control(model, "load")
        finally:
            if not self._environments:
                self._environments = _environments() - before

    def unload(self, model: str) -> None:
        """Unload a model; requests in flight are answered first."""
        self._require(model)
        self._control(model, "unload")

    def alive(self) -> bool:
        """Whether the server process runs."""
        return self._supervisor is not None and self._supervisor.poll() is None

    def version(self) -> str:
        """The version of tritonserver, by its own account."""
        return json.loads(self._ask("GET", "/v2", self.deadline_s)[1])["version"]

    def memory_bytes(self) -> int:
        """Memory of the server and its backend processes, see `memory.used_bytes`; 0 before the start."""
        return 0 if self._supervisor is None else memory.used_bytes(self._supervisor.pid)

    def close(self) -> None:
        """End the server and its backend processes; does nothing the second time."""
        if self._supervisor is None:
            return
        self._supervisor.terminate()
        try:
            self._supervisor.wait(self.grace_s + 10)
        except subprocess.TimeoutExpired:
            self._supervisor.kill()  # the kernel then kills the server, whose backends notice
            self._supervisor.wait()
        if len(self._environments) == 1:  # of several, nobody knows which is another server's
            with contextlib.suppress(OSError):  # gone
                self._environments.pop().rmdir()

    def _check(self) -> None:
        if not self.repository.is_dir():
            raise InputError(
                f"model repository {self.repository}: no such folder. Publish a model first, or name another one"
            )
        for model in self.models:
            self._require(model)

    def _require(self, model: str) -> None:
        if model not in os.listdir(self.repository) or not (self.repository / model / "config.pbtxt").is_file():
            have = repository.models(self.repository)
            raise InputError(
                f"model {model!r} is not in the repository {self.repository}, which has: {', '.join(have) or 'nothing'}"
            )

    def _start(self) -> None:
        """Start the process and wait until it answers, with other ports where somebody was quicker."""
        installation = install.find()
        for attempt in range(1, ATTEMPTS + 1):
            self._ports = command.ports(self.http_port)
            self._spawn(installation)
            if self._wait_until_live():
                return
            quoted = log.quote(self.log)
            if "already in use" not in quoted or attempt == ATTEMPTS:
                raise MachineError(f"Triton server on {self.url} ended while it was starting. {self.log} says:\n{quoted}")

    def _spawn(self, installation: install.Installation) -> None:
        descriptor, self.log = log.create(self.logs)
        self._identity = f"optkit-{uuid.uuid4().hex[:12]}"
        variables = [f"{name}={value}" for name, value in installation.environment.items()]
        arguments = command.arguments(
            self._identity, self.repository, installation.backends, self._ports,
            self.http_threads, self.deadline_s, self.grace_s,
        )  # fmt: skip
        cached = command.cache_arguments(installation.caches, self.cache_mb)
        guarded = [sys.executable, "-I", "-S", str(SUPERVISOR), str(os.getpid()), str(self.grace_s), self._identity]
        with open(descriptor, "wb") as file:
            # A session of its own: Ctrl-C in the terminal reaches us, and we end the server.
            self._supervisor = subprocess.Popen(
                [*guarded, "env", *variables, str(installation.binary), *arguments, *cached],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    def _wait_until_live(self) -> bool:
        """Wait for the server itself (by its identity: the port may be another's); False if its process ended."""
        deadline = time.monotonic() + self.deadline_s
        while self.alive():
            if time.monotonic() > deadline:
                raise MachineError(
                    f"Triton server on {self.url} is not ready after {self.deadline_s:g} s. {self.log} says:\n"
                    f"{log.quote(self.log)}"
                )
            try:
                if json.loads(self._ask("GET", "/v2", 1.0)[1])["name"] == self._identity:
                    return True
            except (OSError, http.client.HTTPException, ValueError, KeyError):
                pass  # not listening yet
            time.sleep(0.02)
        return False

    def _control(self, model: str, verb: str) -> None:
        path = f"/v2/repository/models/{quote(model)}/{verb}"
        try:
            status, body = self._ask("POST", path, self.deadline_s)
        except (OSError, http.client.HTTPException) as error:
            raise MachineError(
                f"model {model!r}: Triton server on {self.url} did not {verb} it: {error or type(error).__name__}. "
                f"{self.log} says:\n{log.quote(self.log)}"
            ) from error
        if status != http.client.OK:
            raise MachineError(
                f"model {model!r}: Triton server on {self.url} cannot {verb} it: {log.reason(body)}\n"
                f"{self.log} says:\n{log.quote(self.log)}"
            )

    def _ask(self, method: str, path: str, timeout_s: float) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection(ADDRESS, self._ports.http, timeout=timeout_s)
        try:
            connection.request(method, path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


def _environments() -> set[Path]:
    """Folders of Triton's Python backend for packed environments, which our models have none of.

    A server makes one, in a place that cannot be set, when it loads its first model. It leaves it behind when it is
    killed, and fails at a graceful end where it is gone already.
    """
    return set(Path("/tmp").glob("python_env_*"))


def serve(repository_folder: Path, http_port: int = 8000, logs: Path | None = None, cache_mb: int = 0) -> None:
    """Serve every model of a repository until Ctrl-C; where to ask is printed to standard error.

    Raises:
        InputError: the repository has no models.
        MachineError: the server is not installed, the port is taken, or a model cannot be loaded.
    """
    names = tuple(repository.models(Path(repository_folder)))
    names = tuple(name for name in names if name not in {step for model in names for step in ensemble.steps(model)})
    if not names:
        raise InputError(
            f"model repository {repository_folder}: found no models, expected at least one. Publish one first: "
            "optkit publish RECIPE --task TASK"
        )
    with (
        contextlib.nullcontext(logs) if logs else temporary.folder("optkit-serve", keep_after=MachineError) as kept,
        Server(repository_folder, kept, names, http_port=http_port, grace_s=5.0, cache_mb=cache_mb) as server,
    ):
        print(f"serving {', '.join(names)} on http://{server.url} (log: {server.log})", file=sys.stderr)
        asked = [name for name in names if ensemble.pipeline(name) in names]
        if asked:
            print(f"try: optkit ask {asked[0]} TEXT --url {server.url}", file=sys.stderr)
        print(f"try: {_curl(server, names[0])}", file=sys.stderr, flush=True)
        try:
            while server.alive():
                threading.Event().wait(0.5)
        except (KeyboardInterrupt, SystemExit):  # Ctrl-C, or a signal that asks for the end
            print("stopping", file=sys.stderr)
            return
        raise MachineError(f"Triton server on {server.url} ended. {server.log} says:\n{log.quote(server.log)}")


def _curl(server: Server, model: str) -> str:
    """A command line that asks the model one question: `[CLS] [SEP]` in BERT's vocabulary."""
    config = json.loads(server._ask("GET", f"/v2/models/{quote(model)}/config", 5.0)[1])
    values = {"input_ids": [101, 102], "attention_mask": [1, 1]}
    inputs = [
        {"name": item["name"], "shape": [1, 2], "datatype": "INT64", "data": values.get(item["name"], [0, 0])}
        for item in config["input"]
    ]
    address = f"http://{server.url}/v2/models/{quote(model)}/infer"
    return f"curl {address} -d {shlex.quote(json.dumps({'inputs': inputs}))}"
