"""A history whose entries were changed, removed, moved or cut off is named; one of before there was a chain goes on."""

import itertools
import json
import shutil

import pytest

from optkit.core.errors import InputError
from optkit.registry import chain, history, layout, verify
from optkit.registry.disk import locked
from optkit.registry.release import place
from optkit.registry.rollback import prune, rollback
from optkit.serving import repository as repositories

from . import killing, small
from .conftest import trusting


@pytest.fixture
def lines(model):
    """The history of three versions, a rollback to the first one and back to the second one."""
    rollback(model.parent, small.MODEL, to=1, why="a trial")
    rollback(model.parent, small.MODEL, to=2)
    return (model / "history.jsonl").read_text().splitlines(keepends=True)


def publish(root, release):
    with locked(root, "test"):
        return place(root, release, trusting)


def test_each_entry_holds_the_hash_of_the_one_before(model, lines):
    events = [json.loads(line) for line in lines]
    assert [event["previous"] for event in events[1:]] == [event["sha256"] for event in events[:-1]]
    assert [layout.provenance(model / name)["history"] for name in "123"] == [event["previous"] for event in events[:3]]
    assert events[-1]["sha256"] in (model / "config.pbtxt").read_text().splitlines()[0]
    assert verify.verify(model.parent) == []


TAMPERED = {
    "the first one removed": lambda lines: lines[1:],
    "one removed": lambda lines: [*lines[:2], *lines[3:]],
    "two moved": lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
    "one twice": lambda lines: [*lines[:4], lines[3], lines[4]],
    "a value changed": lambda lines: [*lines[:3], lines[3].replace("a trial", "no trial"), lines[4]],
    "a value of the last one changed": lambda lines: [*lines[:4], lines[4].replace('"version": 2', '"version": 3')],
    "the hash of one removed": lambda lines: [lines[0], json.dumps(without_hash(lines[1])) + "\n", *lines[2:]],
    "one without a hash at the end": lambda lines: [*lines, json.dumps(without_hash(lines[1])) + "\n"],
    "a line of something else": lambda lines: [*lines, '["sha256"]\n'],
}


def without_hash(line):
    return {name: value for name, value in json.loads(line).items() if name not in ("previous", "sha256")}


@pytest.mark.parametrize("how", TAMPERED)
def test_what_was_changed_in_it_is_named_and_nothing_goes_on(how, model, lines, releases):
    (model / "history.jsonl").write_text("".join(TAMPERED[how](lines)))
    (complaint,) = verify.verify(model.parent)
    assert complaint.startswith(f"{model}/history.jsonl") and "restore it from a backup" in complaint
    before = {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}
    for work in (
        lambda: publish(model.parent, releases[3]),
        lambda: rollback(model.parent, small.MODEL),
        lambda: rollback(model.parent, small.MODEL, to=1),
        lambda: prune(model.parent, small.MODEL, 1),
    ):
        with pytest.raises(InputError, match=r"history\.jsonl"):
            work()
    assert before == {path: path.read_bytes() for path in model.rglob("*") if path.is_file()}


@pytest.mark.parametrize("left", [0, 1, 2, 3, 4])
def test_an_end_that_was_cut_off_is_named(left, model, lines, releases):
    (model / "history.jsonl").write_text("".join(lines[:left]))
    (complaint,) = verify.verify(model.parent)
    assert complaint.startswith(f"{model}/history.jsonl: lacks ") and "its end was cut off" in complaint
    for work in (lambda: publish(model.parent, releases[3]), lambda: prune(model.parent, small.MODEL, 1)):
        with pytest.raises(InputError, match="its end was cut off; restore it from a backup"):
            work()
    assert repositories.versions(model) == (1, 2, 3)


def test_an_end_that_is_lost_is_gone_on_without_where_that_is_asked_for(model, lines):
    (model / "history.jsonl").write_text("".join(lines[:4]))
    (complaint,) = verify.verify(model.parent)
    assert complaint.endswith(f"or go on without it: optkit rollback {small.MODEL} --to 2")
    rollback(model.parent, small.MODEL, to=2)
    assert verify.verify(model.parent) == []


def test_one_that_was_written_anew_is_not_that_of_the_versions(model, lines):
    """The chain is whole, and not the one that the versions were published with."""
    events = [without_hash(line) for line in lines]
    text = chain.extended("", *({**event, "by": "somebody else"} for event in events))
    (model / "history.jsonl").write_text(text)
    entry = json.loads(text.splitlines()[-1])["sha256"]
    config = (model / "config.pbtxt").read_text().partition("\n")[2]
    (model / "config.pbtxt").write_text(f"# live by entry {entry} of history.jsonl\n{config}")
    found = verify.verify(model.parent)
    assert [line.partition(": ")[2].partition("/")[0] for line in found] == ["not the one that "] * 2
    assert str(model / "3" / "provenance.json") in found[1]


def test_one_without_any_hash_is_none_of_versions_that_have_them(model, lines):
    text = "".join(json.dumps(without_hash(line)) + "\n" for line in lines)
    (model / "history.jsonl").write_text(text)
    (model / "config.pbtxt").write_text((model / "config.pbtxt").read_text().partition("\n")[2])
    assert any("history.jsonl: not the one that" in complaint for complaint in verify.verify(model.parent))


def test_a_configuration_of_an_earlier_entry_is_named_and_written_again(model, lines):
    live = (model / "config.pbtxt").read_text()
    rollback(model.parent, small.MODEL, to=3)
    rollback(model.parent, small.MODEL, to=1)
    (model / "config.pbtxt").write_text(live)
    said = [f"{model}/config.pbtxt: not as it was published; write it again: optkit rollback {small.MODEL} --to 1"]
    assert verify.verify(model.parent) == said
    with pytest.raises(InputError, match="not as it was published"):
        prune(model.parent, small.MODEL, 1)
    rollback(model.parent, small.MODEL, to=1)
    assert verify.verify(model.parent) == []


@pytest.mark.parametrize("place", [0, 10, -2, -1])
def test_any_byte_of_the_configuration_counts(place, model):
    path = model / "config.pbtxt"
    content = bytearray(path.read_bytes())
    content[place] ^= 0x80 if place else 1
    path.write_bytes(content)
    (complaint,) = verify.verify(model.parent)
    assert complaint.startswith(f"{path}: ")
    rollback(model.parent, small.MODEL, to=3)
    assert verify.verify(model.parent) == []


@pytest.mark.parametrize("text", ["\n", "# harmless\n", "# live by entry " + "0" * 64 + " of history.jsonl\n"])
def test_what_triton_does_not_read_counts_too(text, model):
    path = model / "config.pbtxt"
    path.write_text(text + path.read_text())
    assert verify.verify(model.parent) != []
    rollback(model.parent, small.MODEL, to=3)
    assert verify.verify(model.parent) == []


def test_a_history_of_before_there_was_a_chain_goes_on_and_is_sealed_by_what_follows(model, releases):
    small.as_of_0_1(model)
    assert verify.verify(model.parent) == []
    publish(model.parent, releases[3])
    rollback(model.parent, small.MODEL, to=2)
    assert verify.verify(model.parent) == []
    path = model / "history.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    assert [chain.OWN in json.loads(line) for line in lines] == [False, False, False, True, True]
    path.write_text("".join([lines[1], lines[0], *lines[2:]]))
    (complaint,) = verify.verify(model.parent)
    assert "line 4 does not follow what is before it" in complaint


@pytest.mark.slow
def test_killed_at_every_step_over_what_an_older_optkit_left(published, releases, tmp_path):
    first = shutil.copytree(published, tmp_path / "first")
    small.as_of_0_1(first / small.MODEL)
    for step in itertools.count():
        root = shutil.copytree(first, tmp_path / str(step))
        killed = killing.killed_at(step, "file", killing.publish, root, releases[3])
        assert verify.verify(root) == [], step
        again = publish(root, releases[2])
        assert int(again.name) in (4, 5) and verify.verify(root) == [], step
        shutil.rmtree(root)
        if not killed:
            break
    assert step > 10


def test_what_an_older_publisher_was_killed_in_is_put_right(model, releases):
    """It wrote its entry after the switch, and left a version that never went live."""
    small.as_of_0_1(model)
    text = (model / "history.jsonl").read_text()
    rollback(model.parent, small.MODEL, to=1)
    (model / "config.pbtxt").write_text((model / "config.pbtxt").read_text().partition("\n")[2])
    (model / "history.jsonl").write_text("".join(text.splitlines(keepends=True)[:2]))
    assert verify.verify(model.parent) == []
    prune(model.parent, small.MODEL, 5)
    assert repositories.versions(model) == (1, 2)
    assert history.went_live(model) == [1, 2, 1] and history.read(model)[-1]["event"] == "completed"
    assert verify.verify(model.parent) == []
    publish(model.parent, releases[3])
    assert verify.verify(model.parent) == []


def test_a_switch_that_an_older_publisher_had_not_written_down(model, releases):
    small.as_of_0_1(model)
    path = model / "history.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
    assert verify.verify(model.parent) == []
    prune(model.parent, small.MODEL, 5)
    assert [event["event"] for event in history.read(model)] == ["publish", "publish", "completed"]
    assert verify.verify(model.parent) == []
    rollback(model.parent, small.MODEL)
    publish(model.parent, releases[3])
    assert verify.verify(model.parent) == []


def test_a_versions_own_configuration_counts(model):
    path = model / "3" / "config.pbtxt"
    path.write_bytes(path.read_bytes() + b"\xff")
    assert verify.verify(model.parent)[0].startswith(f"{path}: SHA-256 is")
    with pytest.raises(InputError, match=r"version 3 is not made live: .*3/config\.pbtxt: SHA-256 is"):
        rollback(model.parent, small.MODEL, to=3)


def test_an_old_configuration_put_back_is_no_interruption(model, releases):
    """The version that it takes the place of is not removed."""
    config = (model / "config.pbtxt").read_text()
    publish(model.parent, releases[3])
    (model / "config.pbtxt").write_text(config)
    said = [f"{model}/config.pbtxt: not as it was published; write it again: optkit rollback {small.MODEL} --to 4"]
    assert verify.verify(model.parent) == said
    for work in (lambda: publish(model.parent, releases[0]), lambda: rollback(model.parent, small.MODEL)):
        with pytest.raises(InputError, match="not as it was published"):
            work()
    rollback(model.parent, small.MODEL, to=4)
    assert repositories.versions(model) == (1, 2, 3, 4) and verify.verify(model.parent) == []


def test_an_interrupted_entry_is_taken_back_with_its_version(model, releases):
    text, *files = ((model / name).read_text() for name in ("history.jsonl", "config.pbtxt", "README.md"))
    publish(model.parent, releases[3])
    for name, content in zip(("config.pbtxt", "README.md"), files, strict=True):  # as if it had been killed before these
        (model / name).write_text(content)
    assert verify.verify(model.parent) == []
    prune(model.parent, small.MODEL, 5)
    assert (model / "history.jsonl").read_text() == text and repositories.versions(model) == (1, 2, 3)
    assert (model / "README.md").read_text().startswith(f"# {small.MODEL}, version 3\n")
