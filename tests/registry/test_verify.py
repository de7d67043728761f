"""Every byte that differs from what was published is found and named, and nothing is served until it is put right."""

import os
import shutil
import subprocess
import sys

import pytest

from optkit.cli.app import main
from optkit.core.errors import InputError
from optkit.registry import disk, verify
from optkit.registry.rollback import rollback

from . import small


def flip(path):
    """Change one bit of the last byte but one, which keeps JSON and text what they are."""
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def test_what_was_published_verifies(repository):
    assert verify.verify(repository) == []
    verify.require(repository)


@pytest.mark.parametrize(
    "name", ["model.py", "engine/model.onnx", "engine/engine.json", "probe.npz", "README.md", "provenance.json"]
)
@pytest.mark.parametrize("version", ["1", "3"])
def test_a_changed_byte_is_named(name, version, model):
    flip(model / version / name)
    (complaint,) = verify.verify(model.parent)
    assert complaint.startswith(f"{model / version / name}: SHA-256 is ") and "the file changed" in complaint


def test_a_changed_configuration_is_named_and_can_be_written_again(model):
    path = model / "config.pbtxt"
    path.write_text(path.read_text().replace("max_batch_size: 8", "max_batch_size: 9"))
    (complaint,) = verify.verify(model.parent)
    assert complaint == f"{path}: not as it was published; write it again: optkit rollback {small.MODEL} --to 3"
    rollback(model.parent, small.MODEL, to=3)
    assert verify.verify(model.parent) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no format", "not a Triton model configuration: 1:"),
        ('backend: "onnxruntime"', "found backend 'onnxruntime'"),
        ("versions: [1, 2]", "found a version policy with the versions"),
    ],
)
def test_a_configuration_that_cannot_be_read_is_named_and_can_be_written_again(text, message, model):
    path = model / "config.pbtxt"
    path.write_text(path.read_text().replace("versions: 3", text) if "versions" in text else text)
    (complaint,) = verify.verify(model.parent)
    assert complaint.startswith(f"{path}: ") and message in complaint
    with pytest.raises(InputError, match=r"config.pbtxt"):
        rollback(model.parent, small.MODEL)
    rollback(model.parent, small.MODEL, to=2)
    assert verify.verify(model.parent) == []


def test_a_live_version_that_is_missing(model):
    shutil.rmtree(model / "3")
    assert verify.verify(model.parent) == [
        f"{model / 'config.pbtxt'}: version 3 is live, which is missing; go back: optkit rollback {small.MODEL} --to N"
    ]
    rollback(model.parent, small.MODEL, to=2)
    assert verify.verify(model.parent) == []


def test_missing_and_foreign_files_are_named(model):
    (model / "2" / "engine" / "model.onnx").unlink()
    (model / "2" / "engine" / "__pycache__").mkdir()
    (model / "2" / "engine" / "__pycache__" / "model.pyc").touch()
    (model.parent / "stray.txt").touch()
    (model.parent / "byhand").mkdir()
    found = "\n".join(verify.verify(model.parent))
    assert f"{model}/2/engine/model.onnx: missing" in found
    assert f"{model}/2/engine/__pycache__/model.pyc: not among the files that were published" in found
    assert "stray.txt: not put there by optkit publish" in found
    assert "byhand/config.pbtxt: missing; the model was not put there by optkit publish" in found


def test_a_version_made_by_hand_is_named(model):
    shutil.copytree(model / "2", model / "7")
    (complaint,) = verify.verify(model.parent)
    assert complaint == f"{model}/7: made by hand from version 2 of '{small.MODEL}'; remove it"
    (model / "7" / "provenance.json").unlink()
    (complaint,) = verify.verify(model.parent)
    assert complaint.startswith(f"{model}/7: made by hand, it has no provenance.json")


@pytest.mark.parametrize("name", [".", "1", "1/engine", "1/engine/model.onnx"])
def test_a_link_out_of_the_repository_is_named(name, model, tmp_path):
    """A link is named even if the files behind it are the right ones: they may change at any time."""
    outside = tmp_path / "outside"
    os.rename(model / name if name != "." else model, outside)
    (model / name if name != "." else model).symlink_to(outside)
    assert any("a symbolic link to" in complaint for complaint in verify.verify(model.parent))


@pytest.mark.parametrize("name", ["a b", "a..b", "-x"])
def test_a_folder_whose_name_is_no_models(name, model):
    model.rename(model.parent / name)
    (complaint,) = verify.verify(model.parent)
    assert complaint.startswith(f"model name {name!r}: expected letters, digits")


@pytest.mark.parametrize("line", ["no json", "{}", '{"event": "publish", "version": "new"}', "[]"])
def test_a_history_that_is_none(line, model):
    (model / "history.jsonl").write_text(line + "\n")
    (complaint,) = verify.verify(model.parent)
    assert complaint.startswith(f"{model}/history.jsonl, line 1: ")
    assert complaint.endswith("; restore it from a backup")


def test_no_such_repository(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such folder"):
        verify.verify(tmp_path / "nowhere")


def test_the_command_names_each_file_and_ends_with_1(model, capsys):
    flip(model / "1" / "engine" / "model.onnx")
    flip(model / "2" / "model.py")
    with pytest.raises(SystemExit) as end:
        main(["verify", "--repository", str(model.parent)])
    assert end.value.code == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == [f"{model}/1/engine/model.onnx", f"{model}/2/model.py"]


@pytest.mark.slow
def test_serve_refuses_a_changed_byte(model):
    flip(model / "1" / "engine" / "model.onnx")
    arguments = [sys.executable, "-m", "optkit", "serve", "--repository", str(model.parent), "--port", "65000"]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert f"is not what was published:\n  - {model}/1/engine/model.onnx: SHA-256 is" in done.stderr
    assert "serving" not in done.stderr and "Traceback" not in done.stderr


def test_links_beside_the_models_are_named_and_not_followed(model, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    os.mkfifo(outside / "pipe")
    places = [model.parent / name for name in (".gitkeep", "stray", f"{model.name}_text_tokenizer")]
    for place in places:
        place.symlink_to(outside / "pipe" if place.name == ".gitkeep" else outside)
    found = verify.verify(model.parent)
    for place in places:
        assert any(line.startswith(f"{place}: a symbolic link to {outside}") for line in found)
    (model.parent / ".lock").unlink(missing_ok=True)
    (model.parent / ".lock").symlink_to(outside / "pipe")
    with pytest.raises(InputError, match=r"\.lock: a symbolic link to .*; remove it"):
        verify.verify(model.parent)


def test_a_lock_that_is_a_link_is_not_signed(model, tmp_path):
    (tmp_path / "precious").write_text("precious")
    (model.parent / ".lock").unlink(missing_ok=True)
    (model.parent / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(InputError, match=r"\.lock: a symbolic link to"), disk.locked(model.parent, "testing"):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_pipe_among_the_files_is_named(model):
    os.mkfifo(model / "2" / "pipe")
    (complaint,) = verify.verify(model.parent)
    assert complaint == f"{model}/2/pipe: neither a file nor a folder; remove it"
