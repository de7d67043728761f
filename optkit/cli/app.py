"""The command line. Whatever is heavy is imported by the command that needs it, so that `--help` answers at once."""

import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated

import typer

from optkit.cli import benchmarks, comparison, machine, publishing, recipe_files, recipes, searching, servers, splitting

ENDING = (signal.SIGTERM, signal.SIGHUP)
"""Signals that ask for the end; Ctrl-C is Python's own matter."""
INTERRUPTED = {128 + number: number.name for number in (signal.SIGINT, *ENDING)}
_ONCE_S = 2.0  # `timeout` and others send a signal to the process and again to its group

app = typer.Typer(
    help="Quantize, sparsify and distil BERT-type models, and serve what is measured to be good.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for group in (recipes, recipe_files, searching, splitting, comparison, benchmarks, publishing, servers, machine):
    group.register(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script: prints errors in one place and turns them into the exit status."""
    from optkit.core.errors import OptkitError
    from optkit.core.printable import printing, say

    with printing():
        try:
            with _ended_by_signals():
                app(args=arguments, standalone_mode=True)
        except OptkitError as error:
            say(f"optkit: error: {error}")
            sys.exit(error.exit_status)
        except (KeyboardInterrupt, SystemExit) as end:
            # typer turns Ctrl-C into its status
            status = end.code if isinstance(end, SystemExit) else 128 + signal.SIGINT
            if status not in INTERRUPTED:
                raise
            how = INTERRUPTED[status]
            say(f"optkit: interrupted ({how}); finished steps are kept, and the same command goes on from them")
            sys.exit(status)


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Have the signals that ask for the end unwind the block, as Ctrl-C does, so that nothing is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = -_ONCE_S

    def end(number: int, frame: object) -> None:
        nonlocal came
        if time.monotonic() - came > _ONCE_S:
            came = time.monotonic()
            sys.exit(128 + number)

    ignored = [number for number in ENDING if signal.getsignal(number) is signal.SIG_IGN]  # as `nohup` has it
    before = {number: signal.signal(number, end) for number in ENDING if number not in ignored}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@app.callback()
def _start(verbose: Annotated[bool, typer.Option("--verbose", "-v", help="also show debugging messages")] = False) -> None:
    import logging

    from optkit.core.progress import log_to_stderr
    from optkit.serving import leftovers

    log_to_stderr(logging.DEBUG if verbose else logging.INFO)
    leftovers.sweep()
