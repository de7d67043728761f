"""What a run on a cluster shows: one bar for all steps, and a line for each that runs now, and where."""

import logging
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from optkit.core import mirror
from optkit.core.printable import escaped
from optkit.core.progress import console
from optkit.pipeline.cluster_worker import Outcome

log = logging.getLogger(__name__)


class View:
    """Progress of a run.

    Args:
        titles: of all steps.
        board: folder in which a node writes that it has begun a step.
    """

    def __init__(self, titles: list[str], board: Path) -> None:
        self._board = board
        self._places = {title: board / f"{number}.started" for number, title in enumerate(titles)}
        self._sent: set[str] = set()
        self._shown: dict[str, TaskID] = {}
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        self._progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._all = self._progress.add_task("steps", total=len(titles))

    def __enter__(self) -> "View":
        self._progress.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._progress.stop()

    def sent(self, title: str) -> None:
        """A step waits for a node."""
        if self._places[title].is_file():
            self._places[title].unlink()
            mirror.forget(self._places[title])
        self._sent.add(title)

    def look(self) -> None:
        """Show what nodes have begun since."""
        if self._sent:
            mirror.receive_new(self._board)
        for title in sorted(self._sent):
            if self._places[title].is_file():
                node = self._places[title].read_text()
                log.info("%s: on node %s", title, node)
                self._shown[title] = self._progress.add_task(escape(escaped(f"  {title}, on {node}")), total=None)
                self._sent.discard(title)

    def lost(self, title: str) -> None:
        """A step's node died."""
        self._sent.discard(title)
        if title in self._shown:
            self._progress.remove_task(self._shown.pop(title))

    def done(self, title: str, outcome: Outcome | None = None) -> None:
        """A step is over; one that was taken in this process has no outcome."""
        self.lost(title)
        self._progress.advance(self._all)
        if outcome is not None:
            log.info("%s: done in %.1f s on node %s", title, outcome.seconds, outcome.node)
