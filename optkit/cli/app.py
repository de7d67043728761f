"""The command line. Whatever is heavy is imported by the command that needs it, so that `--help` answers at once."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from optkit.cli import benchmarks, comparison, machine, publishing, recipe_files, recipes, servers

INTERRUPTED = 130

app = typer.Typer(
    help="Quantize, sparsify and distil BERT-type models, and serve what is measured to be good.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for group in (recipes, recipe_files, comparison, benchmarks, publishing, servers, machine):
    group.register(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the console script: prints errors in one place and turns them into the exit status."""
    from optkit.core.errors import OptkitError
    from optkit.core.printable import printing, say

    with printing():
        try:
            app(args=arguments, standalone_mode=True)
        except OptkitError as error:
            say(f"optkit: error: {error}")
            sys.exit(error.exit_status)
        except (KeyboardInterrupt, SystemExit) as end:
            if isinstance(end, SystemExit) and end.code != INTERRUPTED:  # into which typer turns Ctrl-C
                raise
            say("optkit: interrupted; finished steps are kept, and the same command goes on from them")
            sys.exit(INTERRUPTED)


@app.callback()
def _start(verbose: Annotated[bool, typer.Option("--verbose", "-v", help="also show debugging messages")] = False) -> None:
    import logging

    from optkit.core.progress import log_to_stderr

    log_to_stderr(logging.DEBUG if verbose else logging.INFO)
