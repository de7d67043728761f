"""One run of MLPerf's load generator on a thread of its own, so that Ctrl-C reaches the main one and ends it at once."""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Answered = Callable[[Sequence[int]], None]
"""Takes the numbers of queries; the load generator's own objects are gone by then."""
Ask = Callable[[Sequence[Any], Answered], None]
"""Sends queries, and calls the function with those that are answered."""


class LoadRun:
    """A run that can be interrupted.

    The load generator's C++ has no way to be told to end. So a run that is interrupted is left behind: held at its next
    query on a thread that waits for nothing that comes, with what it uses left alone until the process ends.

    Args:
        lg: the module of the load generator.
        ask: sends queries.
        count: of the examples that queries name by number.
    """

    def __init__(self, lg: Any, ask: Ask, count: int) -> None:
        self._lg = lg
        self._ask = ask
        self._count = count
        self._interrupted = False
        self._ended = threading.Event()  # a thread's own `join` takes it for ended after an interruption (Python 3.11)

    def run(self, settings: Any, folder: Path) -> None:
        """Run to the end.

        Args:
            settings: the load generator's.
            folder: for its logs.
        """
        system = self._lg.ConstructSUT(self._issue, lambda: None)
        library = self._lg.ConstructQSL(self._count, self._count, lambda indices: None, lambda indices: None)
        output, logs = self._lg.LogOutputSettings(), self._lg.LogSettings()
        output.outdir, output.copy_summary_to_stdout = str(folder), False
        logs.log_output = output
        threading.Thread(target=self._test, args=(system, library, settings, logs), daemon=True).start()
        try:
            self._ended.wait()
        except BaseException:
            self._interrupted = True
            raise
        self._lg.DestroyQSL(library)
        self._lg.DestroySUT(system)

    def _test(self, *arguments: Any) -> None:
        try:
            self._lg.StartTestWithLogSettings(*arguments, "")
        finally:
            self._ended.set()

    def _issue(self, queries: Sequence[Any]) -> None:
        try:
            if not self._interrupted:
                self._ask(queries, self._answer)
        except RuntimeError:  # nobody is left to be asked
            if not self._interrupted:
                raise
        if self._interrupted:
            threading.Event().wait()

    def _answer(self, numbers: Sequence[int]) -> None:
        self._lg.QuerySamplesComplete([self._lg.QuerySampleResponse(number, 0, 0) for number in numbers])
