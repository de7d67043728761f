"""A real Triton server for as long as a `with` block lasts, on the loopback address alone."""

import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from http.client import HTTPException
from pathlib import Path
from secrets import token_urlsafe
from types import TracebackType
from typing import BinaryIO, Self

from optkit.core import atomic, temporary
from optkit.core.errors import InputError, MachineError
from optkit.core.patience import Patience
from optkit.serving import command, front_process, install, leftovers, log, repository, ticket
from optkit.serving.command import ADDRESS
from optkit.serving.front_process import LARGEST_BODY
from optkit.serving.owner import Owner
from optkit.serving.ticket import Ticket
from optkit.serving.triton_process import TritonProcess

START_DEADLINE_S = 120.0
HTTP_THREADS = 4
_log = logging.getLogger(__name__)


class Server:
    """A server over one repository; every model of `models` is loaded when the `with` block is entered.

    Clients reach its front (`optkit.serving.front`), which bounds and checks requests; Triton itself listens on sockets in
    a folder of this user alone. Models are controlled explicitly, so that the baseline and the candidates can be measured
    on the same server. The server, its front and its backend processes end with the block, and also when this process is
    killed.

    Args:
        repository: the model repository, `<model>/config.pbtxt` and `<model>/<version>/`.
        logs: folder for the server's log, which is kept.
        models: names to load at the start.
        http_port: port of the HTTP protocol; a free one if None.
        deadline_s: seconds for the start, and for loading each model.
        http_threads: threads that read and write HTTP requests.
        grace_s: seconds given to requests in flight when the server is ended; 0 ends it at once.
        cache_mb: memory of the response cache for models that want one; 0: no cache, and they are served without.
        grpc: also listen for gRPC, past the front: requests are not bounded there, models are not controlled.
        largest_body: bytes of a request's body.
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
        grpc: bool = False,
        largest_body: int = LARGEST_BODY,
    ) -> None:
        self.repository = Path(repository).absolute()
        self.logs = Path(logs)
        self.models = tuple(models)
        self.http_port = http_port
        self.deadline_s = deadline_s
        self.http_threads = http_threads
        self.grace_s = grace_s
        self.cache_mb = cache_mb
        self.grpc = grpc
        self.largest_body = largest_body
        self.log = Path()
        self._stack = ExitStack()
        self._triton: TritonProcess | None = None
        self._loaded: list[str] = []
        self._closed = False

    @property
    def identity(self) -> str:
        """What the server calls itself; its processes and its shared memory carry it in their names."""
        return self._ticket.identity

    @property
    def url(self) -> str:
        """`host:port` of the HTTP protocol, as clients take it."""
        return f"{ADDRESS}:{self._listeners.http_port}"

    @property
    def grpc_url(self) -> str:
        """`host:port` of the gRPC protocol, where it was asked for; else the address of Triton's own socket."""
        return self._ticket.grpc or f"{ADDRESS}:{self._listeners.grpc_port}"

    @property
    def metrics_url(self) -> str:
        """URL of the metrics for Prometheus."""
        return f"http://{ADDRESS}:{self._listeners.metrics_port}/metrics"

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
        """End the server.

        Raises:
            MachineError: in the place of one that came of the server's own end, which clients cannot tell.
        """
        told = not isinstance(error, MachineError) or str(self.log) in str(error)
        how = None if told else self._how_it_ended_meanwhile()
        quoted = how and log.quote(self.log)
        self.close()
        if how:
            raise MachineError(
                f"Triton server on {self.url} ended while it was asked ({how}). {self.log} says:\n{quoted}"
            ) from error

    def _how_it_ended_meanwhile(self) -> str | None:
        """How the server ended, where it does within a second: its front tells clients before the process is gone."""
        patience = Patience(1.0)
        while self.alive():
            if patience.is_over():
                return None
            time.sleep(0.02)
        return self.how_it_ended()

    def load(self, model: str) -> None:
        """Load or reload a model of the repository.

        Raises:
            InputError: the repository has no such model.
            MachineError: it cannot be loaded; the message quotes the server.
        """
        self._require(model)
        try:
            self._load(model)
        except MachineError as error:
            # Triton aborts now and then when a backend process reads its first message (boost::interprocess::lock_exception)
            if self._closed or self._triton is None or not self._triton.has_crashed(within_s=1.0):
                raise
            _log.warning("%s\nIt is started again, and the model loaded once more", error)
            self.restart(self._loaded)
            self._load(model)
        self._loaded = [*dict.fromkeys([*self._loaded, model])]

    def _load(self, model: str) -> None:
        assert self._triton is not None
        with self._triton.loading():
            self.owner.control(model, "load", self.deadline_s)

    def unload(self, model: str) -> None:
        """Unload a model; requests in flight are answered first."""
        self._require(model)
        self.owner.control(model, "unload", self.deadline_s)
        self._loaded = [name for name in self._loaded if name != model]

    def alive(self) -> bool:
        """Whether the server and its front run."""
        return self._triton is not None and self._triton.alive() and self._front.poll() is None

    def restart(self, models: Sequence[str]) -> None:
        """Start what has ended again, with `models` loaded before anything is answered; the ports stay as they are.

        Raises:
            MachineError: it cannot be started.
        """
        assert self._triton is not None
        if self._front.poll() is not None:
            self._start_front()
        if not self._triton.alive():
            self._triton.close()
            self._start_triton(models)

    def how_it_ended(self) -> str:
        """What ended, and how."""
        if self._triton is not None and not self._triton.alive():
            return self._triton.how_it_ended()
        return f"its front: exit status {self._front.returncode}"

    def version(self) -> str:
        """The version of tritonserver, by its own account."""
        return str(self.owner.metadata(self.deadline_s).get("version"))

    def memory_bytes(self) -> int:
        """Memory of the server and its backend processes, without the front; 0 before the start."""
        return 0 if self._triton is None else self._triton.memory_bytes()

    def close(self) -> None:
        """End the server, its backend processes and then its front; does nothing the second time."""
        self._closed = True
        try:
            if self._triton is not None:
                self._front.send_signal(front_process.DRAIN)  # else Triton waits for connections that are idle
                self._triton.close()
        finally:
            self._stack.close()

    def _check(self) -> None:
        if not self.repository.is_dir():
            raise InputError(f"model repository {self.repository}: no such folder. Publish a model first or name another")
        for model in self.models:
            self._require(model)

    def _require(self, model: str) -> None:
        if model not in os.listdir(self.repository) or not (self.repository / model / "config.pbtxt").is_file():
            have = repository.models(self.repository)
            raise InputError(
                f"model {model!r} is not in the repository {self.repository}, which has: {', '.join(have) or 'nothing'}"
            )

    def _start(self) -> None:
        self._installation = install.find()
        self._listeners = self._stack.enter_context(command.listen(self.http_port, self.grpc))
        descriptor, self.log = log.create(self.logs)
        self._log_file: BinaryIO = self._stack.enter_context(os.fdopen(descriptor, "ab"))
        self._ticket, self._place = self._stack.enter_context(self._ticketed())
        self.owner = Owner(self.url, self._ticket.secret, self.log)
        self._stack.callback(self._end_front)
        self._start_front()
        self._start_triton(())

    @contextmanager
    def _ticketed(self) -> Iterator[tuple[Ticket, Path]]:
        """Yield a new ticket and its path, for the time of the block."""
        port = self._listeners.http_port
        leftovers.sweep()
        try:
            with temporary.folder(ticket.SOCKETS, leftovers.SHARED_MEMORY) as folder:
                grpc = None if self.grpc else command.grpc_socket(folder)
                drawn = Ticket(folder.name, token_urlsafe(32), str(folder), grpc)
                with ticket.held(port, drawn) as place:
                    yield drawn, place
        except OSError as error:
            raise atomic.disk_error(ticket.path(port), error) from error

    def _start_front(self) -> None:
        self._front = front_process.start(
            self._place, self._listeners.http, self._listeners.metrics, self.largest_body, self._log_file
        )

    def _end_front(self) -> None:
        self._front.terminate()
        self._front.wait()

    def _start_triton(self, models: Sequence[str]) -> None:
        """Start the process and wait until it answers."""
        for path in Path(self._ticket.folder).iterdir():
            if path.is_socket():
                path.unlink()  # left by one that died
        arguments = command.arguments(
            self._ticket, self._linked("repository", self.repository), self._linked("backends", self._installation.backends),
            self._listeners.grpc_port, self.http_threads, self.deadline_s, self.grace_s,
        )  # fmt: skip
        arguments += command.cache_arguments(self._installation.caches, self.cache_mb)
        arguments += [f"--load-model={model}" for model in models]
        self._triton = TritonProcess(self._installation, arguments, self._ticket, self.grace_s, self._log_file)
        with self._triton.loading():
            live = self._is_live(self.deadline_s * max(1, len(models)))
        if not live:
            raise MachineError(
                f"Triton server on {self.url} ended while it was starting. {self.log} says:\n{log.quote(self.log)}"
            )

    def _linked(self, name: str, target: Path) -> Path:
        """Return a path for Triton: it splits its backends' command lines at blanks, and their Python reads ASCII alone."""
        link = Path(self._ticket.folder, name)
        if not link.is_symlink():
            link.symlink_to(target)
        return link

    def _is_live(self, deadline_s: float) -> bool:
        """Wait until the server answers; False if its process has ended."""
        patience = Patience(deadline_s)
        while self.alive():
            if patience.is_over():
                raise MachineError(
                    f"Triton server on {self.url} is not ready after {deadline_s:g} s. {self.log} says:\n"
                    f"{log.quote(self.log)}"
                )
            try:
                if self.owner.metadata(1.0).get("name") == self.identity:
                    return True
            except (OSError, HTTPException, MachineError):
                pass  # not listening yet
            time.sleep(0.02)
        return False
