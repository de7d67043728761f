"""Commands whose numbers are such that one can compute with them."""

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand

LARGEST = 1e9
"""Largest number that an option takes: as seconds, 32 years."""


class Command(TyperCommand):
    """A command that refuses `inf`, `nan` and numbers that overflow further on, whichever option they are given to."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line.

        Raises:
            BadParameter: an option is no such number.
        """
        left = super().parse_args(ctx, args)
        for option in self.params:
            value = ctx.params.get(option.name or "")
            if isinstance(value, float) and not abs(value) <= LARGEST:
                said = f"found {value:g}, expected a number of at most {LARGEST:,.0f}"
                raise typer.BadParameter(said, param_hint=repr(max(option.opts, key=len)))
        return left


class Application(typer.Typer):
    """An application of such commands."""

    def command(self, name: str | None = None, **settings: Any) -> Callable[..., Any]:
        """Return the decorator that adds a command."""
        return super().command(name, **{"cls": Command} | settings)
