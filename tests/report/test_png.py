"""The pictures as PNG files."""

from dataclasses import replace

import pytest
from PIL import Image

from optkit.core.errors import MachineError
from optkit.report.png import draw

from .test_figures import LOAD, STAGES
from .test_table import BASELINE, INT8

pytestmark = pytest.mark.slow

LADDER = {rung: {"value": 95.0} for rung in ("float", "pytorch", "graph", "engine", "server")}


def test_every_picture_that_there_are_numbers_for(tmp_path) -> None:
    rows = [BASELINE, replace(INT8, recipe="odd_$_$name", stages=STAGES, ladder=LADDER, load=LOAD)]
    paths = draw(rows, tmp_path / "plots")
    names = ("accuracy_against_latency", "throughput_against_latency", "int8", "ladder", "loss_by_stage", "under_load")
    assert {path.name for path in paths} == {f"{name}.png" for name in names}
    for path in paths:
        with Image.open(path) as image:
            colours = image.convert("RGB").getcolors(maxcolors=1 << 20)
            assert image.width >= 600 and image.height >= 150 and len(colours) > 20


def test_without_stages_and_ladders_there_are_no_pictures_of_them(tmp_path) -> None:
    names = {path.stem for path in draw([BASELINE, INT8], tmp_path)}
    assert names == {"accuracy_against_latency", "throughput_against_latency", "int8"}


def test_a_folder_that_is_a_file(tmp_path) -> None:
    (tmp_path / "plots").write_text("")
    with pytest.raises(MachineError, match=r"plots: the pictures cannot be written: File exists"):
        draw([BASELINE, INT8], tmp_path / "plots")
