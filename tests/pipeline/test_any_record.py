"""Whatever lies in the place of a record of a run or of a publishing is read, or named: never a traceback, never a hang."""

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optkit.cli.app import main
from tests import damage
from tests.pipeline.test_version_0_1 import ARCHIVE

RECIPE = "checkpoints/classification/ptq_int8/seed-0"
MODEL = "model_repository/classification_ptq_int8"
COMPARED = [["compare", "--format", form] for form in ("table", "json", "csv", "html")]
EXPLAINED = [["explain", "ptq_int8"]]
CHECKED = [["verify"], ["list"], ["rollback", "classification_ptq_int8", "--to", "1"]]
RECORDS = {
    f"{RECIPE}/result.json": COMPARED + EXPLAINED,
    f"{RECIPE}/record.json": COMPARED,
    f"{RECIPE}/engines/record.json": COMPARED,
    f"{RECIPE}/served/record.json": COMPARED,
    f"{RECIPE}/served/examples.json": EXPLAINED,
    f"{MODEL}/history.jsonl": CHECKED,
    f"{MODEL}/1/provenance.json": CHECKED,
    f"{MODEL}/1/engine/engine.json": CHECKED,
}


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("records")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


@st.composite
def breakages(draw: st.DrawFn) -> tuple[str, list[str], Callable[[bytes], st.SearchStrategy[bytes]]]:
    """A record, a command that reads it, and how it is damaged."""
    name = draw(st.sampled_from(list(RECORDS)))
    return name, draw(st.sampled_from(RECORDS[name])), draw(st.sampled_from([_misfits, _misfits, damage.damaged]))


def _misfits(content: bytes) -> st.SearchStrategy[bytes]:
    """Damage a JSON document, or the first of several lines."""
    lines = content.decode().splitlines(keepends=True)
    try:
        return damage.misfits(json.loads(content))
    except json.JSONDecodeError:
        rest = "".join(lines[1:]).encode()
        return damage.misfits(json.loads(lines[0])).map(lambda first: first + b"\n" + rest)


def run(command: list[str], folder: Path) -> int:
    places = {"verify": ["--repository"], "list": ["--repository"], "rollback": ["--repository"]}
    told = places.get(command[0], ["--task", "classification", "--checkpoints"])
    where = folder / ("model_repository" if command[0] in places else "checkpoints")
    try:
        main([*command, *told, str(where)])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.slow
@pytest.mark.doors
@given(data=st.data())
def test_any_record_is_read_or_named(data: st.DataObject, old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name, command, harm = data.draw(breakages())
    path = old / name
    kept = {one: one.read_bytes() for one in (path, old / MODEL / "history.jsonl", old / MODEL / "config.pbtxt")}
    path.write_bytes(data.draw(harm(kept[path])))
    try:
        status = run(command, old)
        out, err = capsys.readouterr()
        assert status in (0, 1, 2, 3)
        assert not status or str(path.parent) in out + err
    finally:
        for one, content in kept.items():
            one.write_bytes(content)


@pytest.mark.parametrize("name", [name for name in RECORDS if name.endswith("record.json")])
def test_a_record_that_is_a_folder_is_named(name: str, old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = old / name
    path.rename(old / "aside")
    path.mkdir()
    try:
        assert run(["compare"], old) in (0, 2)
        assert str(old / RECIPE) in capsys.readouterr().err or name == f"{RECIPE}/record.json"  # not needed to compare
    finally:
        path.rmdir()
        (old / "aside").rename(path)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"value": "high"}, 'result.json: [0].value is "high", expected a number; run the recipe again: optkit run'),
        ({"delta_ci95": [1.0]}, "result.json: [0].delta_ci95 has 1 entries, expected 2"),
        ({"speedup": {"1": 0, "8": 1.0, "64": 1.0}}, "result.json: a speed-up is no positive number"),
        ({"throughput": {}}, "result.json: latency_ms, throughput and speedup are not of the same batch sizes"),
        ({"surprise": 1}, "result.json: [0] has surprise, which no such record has"),
    ],
)
def test_a_result_of_other_types_is_named(fields: dict, said: str, old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = old / RECIPE / "result.json"
    kept = path.read_text()
    rows = json.loads(kept)
    if "speedup" in fields:
        fields = {"speedup": dict.fromkeys(rows[0]["speedup"], 0)}
    path.write_text(json.dumps([{**rows[0], **fields}]))
    try:
        assert run(["compare"], old) == 2
        assert said in capsys.readouterr().err
    finally:
        path.write_text(kept)


def test_an_output_that_is_a_folder_is_named(old: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for out in (old, Path("."), Path("/")):
        with pytest.raises(SystemExit) as end:
            main(["compare", "--task", "classification", "--checkpoints", str(old / "checkpoints"), "--out", str(out)])
        assert end.value.code == 2
        assert f"{out}: cannot be written: found a folder" in capsys.readouterr().err
