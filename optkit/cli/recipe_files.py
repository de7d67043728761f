"""The commands about recipes themselves: which there are, and copies to change."""

import sys
from typing import Annotated

import typer

recipes = typer.Typer(rich_markup_mode=None, add_completion=False)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(recipes, name="recipes")


@recipes.callback(invoke_without_command=True)
def show(
    context: typer.Context,
    form: Annotated[str, typer.Option("--format", help="table or json", metavar="FORMAT")] = "table",
) -> None:
    """Print the recipes that can be run by name: those of the folder recipes/, and the package's.

    Example: optkit recipes --format json
    """
    from optkit.recipe import catalogue

    if context.invoked_subcommand is None:
        sys.stdout.write(catalogue.render(catalogue.entries(), form))


@recipes.command()
def copy(name: Annotated[str, typer.Argument(help="name of a recipe of the package", metavar="NAME")]) -> None:
    """Copy a recipe of the package into recipes/, to change it; print the file. Nothing is overwritten.

    Example: optkit recipes copy qat_gelu10
    """
    from optkit.recipe import catalogue

    print(catalogue.copy(name))
