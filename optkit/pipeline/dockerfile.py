"""The Dockerfile of an image with Triton and optkit's backends, which NVIDIA's containers lack."""

from collections.abc import Sequence
from pathlib import Path

from optkit.core.templates import template


def write(path: Path, image: str, base: str, installs: Sequence[str] = ()) -> None:
    """Write the Dockerfile.

    Args:
        path: of the file.
        image: what the image is called.
        base: image that it starts from, NVIDIA's.
        installs: commands that install the runtimes of engines which optkit's backends load.
    """
    made = template(__package__, "Dockerfile.jinja").render(file=path.name, image=image, base=base, installs=installs)
    path.write_text(made, encoding="utf-8")
