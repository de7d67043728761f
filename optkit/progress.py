"""What a person sees while optkit works: progress bars and messages on standard error, never on standard output."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(stderr=True)


@contextmanager
def bar(title: str, total: int, disable: bool = False) -> Iterator[Callable[[int], None]]:
    """A progress bar; the block gets the function that advances it. Without a terminal it is silent."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=disable or not console.is_terminal) as progress:
        task = progress.add_task(title, total=total)
        yield lambda count: progress.advance(task, count)


def log_to_stderr(level: int = logging.INFO) -> None:
    """Show optkit's own messages."""
    handler = RichHandler(console=console, show_path=False, show_level=False, omit_repeated_times=False, markup=False)
    handler.setFormatter(logging.Formatter("%(message)s", datefmt="%H:%M:%S"))
    logger = logging.getLogger("optkit")
    logger.handlers = [handler]
    logger.setLevel(level)
    logger.propagate = False
