"""Where lines of CSV go is found before anything is trained, and only what befalls the file is told of it."""

from pathlib import Path

import pytest

from optkit import Recipe
from optkit.benchmark.measurement import Measurement, Reading
from optkit.core.errors import InputError, MachineError
from optkit.pipeline import load_test

READING = Reading(**dict.fromkeys(Reading.__dataclass_fields__, 1))
LINE = Measurement("r", "int8", True, 1, READING, 1, 1.0, 1.0, 1.0, 1.0)


def test_a_file_that_cannot_be_is_refused_before_anything_is_trained(tmp_path):
    for out in (tmp_path, tmp_path / "nowhere" / "load.csv"):
        with pytest.raises(InputError, match=r"--out .*expected a file in a folder that is there"):
            load_test.run(Recipe(name="r"), None, 1.0, 100.0, out)


def test_a_disk_that_is_full_is_said_with_the_file():
    with (
        pytest.raises(MachineError, match="/dev/full: cannot be written: No space left on device"),
        load_test._writer(Path("/dev/full")) as write,
    ):
        write(LINE)


def test_what_fails_while_the_file_is_open_is_not_the_files_fault(tmp_path):
    with pytest.raises(ConnectionResetError), load_test._writer(tmp_path / "load.csv") as write:
        write(LINE)
        raise ConnectionResetError
    assert (tmp_path / "load.csv.partial").read_text().count("\n") == 2 and not (tmp_path / "load.csv").exists()


def test_a_file_of_an_earlier_run_stays_until_another_is_whole(tmp_path, caplog):
    out = tmp_path / "load.csv"
    out.write_text("earlier")
    with pytest.raises(KeyboardInterrupt), load_test._writer(out) as write:
        write(LINE)
        raise KeyboardInterrupt
    assert out.read_text() == "earlier" and "load.csv.partial has what was measured" in caplog.text
    with load_test._writer(out) as write:
        write(LINE)
    assert out.read_text().count("\n") == 2 and [path.name for path in tmp_path.iterdir()] == ["load.csv"]
