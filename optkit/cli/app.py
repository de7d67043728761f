"""The command line. Whatever is heavy is imported by the command that needs it, so that `--help` answers at once."""

import signal
from collections.abc import Sequence
from typing import Annotated

import typer

from optkit.cli import benchmarks, comparison, machine, publishing, recipe_files, recipes, searching, servers, splitting
from optkit.cli.commands import Application

app = Application(
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
    from optkit.cli.ending import INTERRUPTED, Ending
    from optkit.core.errors import OptkitError
    from optkit.core.printable import printing, say

    ending = Ending()
    with printing():
        try:
            with ending.asked_for():
                app(args=arguments, standalone_mode=True)
        except OptkitError as error:
            say(f"optkit: error: {error}")
            ending.leave(error.exit_status)
        except (KeyboardInterrupt, SystemExit) as end:
            # typer turns Ctrl-C into its status
            status = end.code if isinstance(end, SystemExit) else 128 + signal.SIGINT
            if not isinstance(status, int):
                raise
            if status in INTERRUPTED:
                how = INTERRUPTED[status]
                say(f"optkit: interrupted ({how}); finished steps are kept, and the same command goes on from them")
            ending.leave(status)


@app.callback()
def _start(verbose: Annotated[bool, typer.Option("--verbose", "-v", help="also show debugging messages")] = False) -> None:
    import logging

    from optkit.core.progress import log_to_stderr
    from optkit.serving import leftovers

    log_to_stderr(logging.DEBUG if verbose else logging.INFO)
    leftovers.sweep()
