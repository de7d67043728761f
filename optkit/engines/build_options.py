"""Build options besides graph and precision: a frozen dataclass for each kind of engine that has any."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from optkit.core.errors import InputError


@dataclasses.dataclass(frozen=True)
class BuildOptions:
    """No options. A kind that has some subclasses this; their names are the keys of `--option KEY=VALUE`."""

    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """All keys."""
        return tuple(field.name for field in dataclasses.fields(cls))

    @classmethod
    def parse(cls, kind: str, given: Mapping[str, Any]) -> Self:
        """Options from the texts of a command line, or from JSON's types.

        Args:
            kind: of the engine, for messages.
            given: value by key; what is not named takes its default.

        Raises:
            InputError: naming every key that there is not and every value that is wrong.
        """
        from pydantic import TypeAdapter, ValidationError  # an engine that is only run needs none

        try:
            return TypeAdapter(cls).validate_python(dict(given))
        except ValidationError as error:
            lines = [f"  {cls._mistake(detail)}" for detail in error.errors()]
            raise InputError(f"build options of the {kind} engine:\n" + "\n".join(lines)) from error

    @classmethod
    def _mistake(cls, detail: Any) -> str:
        """One line from one of pydantic's error details."""
        key = ".".join(str(part) for part in detail["loc"])
        if detail["type"] == "unexpected_keyword_argument":
            return f"{key}: there is no such option; expected one of {', '.join(cls.names()) or 'none at all'}"
        return f"{key}: found {detail['input']!r}: {detail['msg'][0].lower()}{detail['msg'][1:]}"

    def as_dict(self) -> dict[str, Any]:
        """Return the options that the result depends on in JSON types, for keys and records."""
        return dataclasses.asdict(self)
