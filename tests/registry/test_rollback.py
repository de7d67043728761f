"""Going back makes an earlier, unchanged version live and says so in the history; pruning keeps what is live."""

import pytest

from optkit.cli.app import main
from optkit.core.errors import InputError, MachineError
from optkit.registry import history, layout, verify
from optkit.registry.disk import locked
from optkit.registry.rollback import prune, rollback
from optkit.serving import config
from optkit.serving import repository as repositories

from . import small


def test_back_by_one_each_time(model):
    assert rollback(model.parent, small.MODEL) == 2
    assert rollback(model.parent, small.MODEL, why="worse than it looked") == 1
    with pytest.raises(InputError, match=r"version 1 is live and there is no lower one; name one with --to"):
        rollback(model.parent, small.MODEL)
    done = [(event["event"], event["version"], event["instead_of"]) for event in history.read(model)]
    assert done[3:] == [("rollback", 2, 3), ("rollback", 1, 2)]
    assert history.read(model)[-1]["why"] == "worse than it looked"
    assert (model / "README.md").read_text().startswith(f"# {small.MODEL}, version 1\n")
    assert verify.verify(model.parent) == []


def test_triton_is_told_by_the_version_policy(model):
    rollback(model.parent, small.MODEL, to=1)
    message = config.parse((model / "config.pbtxt").read_text())
    assert list(message.version_policy.specific.versions) == [1]
    rollback(model.parent, small.MODEL, to=3)
    assert config.read((model / "config.pbtxt").read_text()).live == 3


def test_a_version_with_a_changed_byte_is_not_made_live(model):
    (model / "1" / "engine" / "model.onnx").write_bytes(b"other")
    with pytest.raises(InputError, match=r"version 1 is not made live: .*1/engine/model.onnx: SHA-256 is"):
        rollback(model.parent, small.MODEL, to=1)
    assert layout.live(model) == 3


@pytest.mark.parametrize(
    "name", ["../repository/classification_tiny", "..", "a/b", "/etc", "", ".lock", "classification_tiny/"]
)
@pytest.mark.parametrize("work", [rollback, lambda root, name: prune(root, name, 1)])
def test_a_name_that_leads_elsewhere_is_refused(name, work, repository):
    with pytest.raises(InputError, match=r"expected letters, digits, '_', '-' and '.'"):
        work(repository, name)


def test_what_is_not_there_is_named(repository, tmp_path):
    with pytest.raises(InputError, match=r"'tiny' is not in the repository .*, which has: classification_tiny"):
        rollback(repository, "tiny")
    with pytest.raises(InputError, match=r"found no version 9; it has 1, 2, 3"):
        rollback(repository, small.MODEL, to=9)
    with pytest.raises(InputError, match=r"nowhere: no such folder"):
        rollback(tmp_path / "nowhere", "tiny")
    assert not (tmp_path / "nowhere").exists()


def test_it_waits_for_a_publisher_and_then_says_who_it_is(repository):
    with locked(repository, "publishing something"), pytest.raises(MachineError, match=r"\(publishing something\)"):
        rollback(repository, small.MODEL, wait_s=0.2)


@pytest.mark.parametrize(("live", "keep", "left"), [(3, 1, (3,)), (1, 1, (1, 3)), (2, 2, (2, 3)), (3, 5, (1, 2, 3))])
def test_pruning_keeps_the_newest_and_the_live_one(live, keep, left, model):
    if live != 3:
        rollback(model.parent, small.MODEL, to=live)
    removed = prune(model.parent, small.MODEL, keep)
    assert sorted([*removed, *left]) == [1, 2, 3]
    assert repositories.versions(model) == left and layout.live(model) == live
    assert [event["version"] for event in history.read(model) if event["event"] == "prune"] == removed
    assert verify.verify(model.parent) == []


def test_keeping_none_is_refused(repository):
    with pytest.raises(InputError, match="--keep 0: expected 1 or more"):
        prune(repository, small.MODEL, 0)


def test_the_commands(repository, capsys):
    at = ["--repository", str(repository)]
    main_ok(["rollback", small.MODEL, "--to", "2", "--why", "a test", *at])
    main_ok(["prune", small.MODEL, "--keep", "1", *at])
    assert capsys.readouterr().out == "2\n1\n"
    main_ok(["list", *at])
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if small.MODEL in line]
    assert lines[0][1] == "3" and lines[1][1:3] == ["2", "live"]


def main_ok(arguments):
    """Run a command that is to end well."""
    try:
        main(arguments)
    except SystemExit as end:
        assert not end.code


@pytest.mark.parametrize("name", ["README.md", "config.pbtxt"])
def test_a_file_that_is_not_utf_8_keeps_nobody_from_going_back(name, model):
    (model / name).write_bytes(b"caf\xe9\n")
    assert rollback(model.parent, small.MODEL, to=2) == 2
    assert verify.verify(model.parent) == []
