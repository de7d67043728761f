"""Templates in Jinja2: text with places for values, kept as files beside the modules that fill them in."""

from functools import cache
from typing import TYPE_CHECKING

from optkit.core.printable import escaped

if TYPE_CHECKING:
    from jinja2 import Template


@cache
def template(package: str, name: str) -> "Template":
    """Read a template, once. What is put into HTML is escaped, so is what is HTML in Markdown, and a missing value
    is an error.

    `{{ value | number(".2f") }}` writes a number as Python's `format` does.

    Args:
        package: full name of the package in whose folder `templates/` it lies.
        name: of its file, such as `page.html.jinja`.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader(package),
        autoescape=select_autoescape(["html.jinja"]),
        undefined=StrictUndefined,
        finalize=_in_markdown if name.endswith("md.jinja") else None,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["number"] = format
    return environment.get_template(name)


def _in_markdown(value: object) -> object:
    return escaped(value).replace("<", "&lt;") if isinstance(value, str) else value
