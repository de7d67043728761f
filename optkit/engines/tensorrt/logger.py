"""What TensorRT says while it works: every line kept, warnings and errors shown, and progress."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

log = logging.getLogger(__name__)
_NOISE = ("Int64 binding", "timing cache")
"""Warnings that say what is meant to be so, or that the builder says in optkit's words."""


class BuildLog:
    """TensorRT's messages by severity. `logger` is what TensorRT takes; it must live as long as what was made with it."""

    def __init__(self, trt: ModuleType) -> None:
        self.lines: list[tuple[str, str]] = []
        self.logger = _logger(trt, self.lines)

    def errors(self) -> list[str]:
        return [text for severity, text in self.lines if severity in ("ERROR", "INTERNAL_ERROR")]

    def text(self, severities: tuple[str, ...] = ("INTERNAL_ERROR", "ERROR", "WARNING", "INFO")) -> str:
        """The lines of some severities, one below the other."""
        return "".join(f"[{severity}] {text}\n" for severity, text in self.lines if severity in severities)


def _logger(trt: ModuleType, lines: list[tuple[str, str]]) -> Any:
    names = {severity: name for name, severity in trt.ILogger.Severity.__members__.items()}

    class Logger(trt.ILogger):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            name = names[severity]
            lines.append((name, message))
            # errors are raised with the failure that they lead to
            if name == "WARNING" and not any(noise in message for noise in _NOISE):
                log.warning("TensorRT: %s", message)

    return Logger()


@contextmanager
def progress(trt: ModuleType, config: Any) -> Iterator[None]:
    """Show how far a build is, and let Ctrl-C end it between two steps rather than at its end."""
    monitor = _monitor(trt)
    config.progress_monitor = monitor
    try:
        yield
    finally:
        monitor.close()
    if monitor.interrupted:
        raise KeyboardInterrupt


def _monitor(trt: ModuleType) -> Any:
    from optkit.core.progress import bar  # draws; not needed where an engine runs

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined,misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.interrupted = False
            self._open: dict[str, tuple[Any, Any]] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            if parent is None:
                context = bar(f"TensorRT: {name}", steps)
                self._open[name] = context, context.__enter__()

        def step_complete(self, name: str, step: int) -> bool:
            try:
                if name in self._open:
                    self._open[name][1](1)
            except KeyboardInterrupt:  # must not pass through TensorRT's own code
                self.interrupted = True
            return not self.interrupted

        def phase_finish(self, name: str) -> None:
            if name in self._open:
                self._open.pop(name)[0].__exit__(None, None, None)

        def close(self) -> None:
            for context, _ in self._open.values():
                context.__exit__(None, None, None)

    return Monitor()
