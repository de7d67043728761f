"""Display of progress: progress bars and messages on standard error, never on standard output."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from optkit.core.printable import Printable, escaped

log = logging.getLogger(__name__)
console = Console(stderr=True)
_SECONDS = 10.0


@contextmanager
def bar(title: str, total: int, disable: bool = False, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A progress bar; the block gets the function that advances it. Without a terminal it is a line now and then."""
    if disable or not console.is_terminal:
        yield _Lines(title, total, disable, done)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(escape(escaped(title)), total=total, completed=done)
        yield lambda count: progress.advance(task, count)


class _Lines:
    """Progress for a log file: a line every ten seconds."""

    def __init__(self, title: str, total: int, silent: bool, done: int) -> None:
        self.title, self.total, self.silent = title, total, silent
        self.before, self.done, self.start = done, done, time.monotonic()
        self.said = self.start

    def __call__(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if count and not self.silent and now - self.said >= _SECONDS:
            self.said = now
            spent, left = now - self.start, self.total - self.done
            rate = (self.done - self.before) / spent
            told = (self.title, self.done, self.total, _per_second(rate), spent, _in_words(left / rate))
            log.info("%s: %d of %d, %s, %.0f s, %s left", *told)


class _Rate(ProgressColumn):
    """How fast a bar advances."""

    def render(self, task: Task) -> str:
        return "" if task.speed is None else _per_second(task.speed)


def _per_second(rate: float) -> str:
    return f"{rate:.0f}/s" if rate >= 10 else f"{rate:.2g}/s"


def _in_words(seconds: float) -> str:
    return f"about {seconds:.0f} s" if seconds < 120 else f"about {seconds / 60:.0f} min"


def log_to_stderr(level: int = logging.INFO) -> None:
    """Show optkit's own messages."""
    handler = logging.StreamHandler(Printable(sys.stderr))
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logger = logging.getLogger("optkit")
    logger.handlers = [handler]
    logger.setLevel(level)
    logger.propagate = False
