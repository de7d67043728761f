"""The text pipeline beside a model is the live version's, or is not there: also when a publisher is killed or fails."""

import dataclasses
import itertools
import shutil
import threading

import pytest

from optkit.cli.app import main
from optkit.core.errors import GateError, InputError, MachineError
from optkit.registry import disk, layout, listing, text_pipeline, verify
from optkit.registry.disk import locked
from optkit.registry.live_server import Running
from optkit.registry.release import place
from optkit.registry.rollback import prune, rollback
from optkit.serving import ensemble
from optkit.serving.server import Server
from optkit.serving.text_client import TextClient
from optkit.tasks.served import TextSettings

from . import killing, small
from .conftest import trusting
from .test_release import state

pytestmark = pytest.mark.slow

OTHER = ("boring", "fine", "unclear")
PIPELINE = ensemble.pipeline(small.MODEL)
NAMES = set(ensemble.names(small.MODEL))


@pytest.fixture(scope="module")
def releases(tmp_path_factory):
    """Two that share labels, one with other labels, one that takes no text."""
    folder = tmp_path_factory.mktemp("engines")
    labels = (small.LABELS, small.LABELS, OTHER, ())
    return [small.release(folder / str(seed), seed, labels=own) for seed, own in enumerate(labels)]


def publish(root, release, url=None, check=trusting):
    with locked(root, "test", wait_s=5):
        return place(root, release, check, Running(url) if url else None)


@pytest.fixture(scope="module")
def first(tmp_path_factory, releases):
    """A repository with a version that takes text."""
    root = tmp_path_factory.mktemp("first") / "repository"
    publish(root, releases[0])
    return root


@pytest.fixture
def root(first, tmp_path):
    return shutil.copytree(first, tmp_path / "repository")


def labels_of(root):
    """The labels that the pipeline on disk answers with; None where there is no pipeline."""
    folder = root / PIPELINE
    return TextSettings.read(folder / "1").labels if folder.exists() else None


def there(root):
    return {path.name for path in root.iterdir() if path.name[0] != "."}


def test_a_pipeline_comes_with_its_model_and_is_listed_and_verified(root):
    assert there(root) == {small.MODEL, *NAMES}
    assert labels_of(root) == small.LABELS and verify.verify(root) == []
    assert [each.model for each in listing.versions(root)] == [small.MODEL]
    assert layout.provenance(root / small.MODEL / "1")["text"]


def test_the_same_tokenizer_and_labels_are_not_touched(root, releases):
    files = [path for name in NAMES for path in (root / name).rglob("*")]
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}
    publish(root, releases[1])
    rollback(root, small.MODEL)
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in files} == before
    assert verify.verify(root) == []


def test_other_labels_go_and_come_with_their_version(root, releases):
    publish(root, releases[2])
    assert labels_of(root) == OTHER and verify.verify(root) == []
    rollback(root, small.MODEL)
    assert labels_of(root) == small.LABELS and verify.verify(root) == []
    publish(root, releases[3])
    assert there(root) == {small.MODEL} and verify.verify(root) == []
    rollback(root, small.MODEL, to=2)
    assert labels_of(root) == OTHER
    prune(root, small.MODEL, keep=1)
    assert verify.verify(root) == [] and not list(root.glob(".publishing*"))


@pytest.mark.parametrize("was", [None, "other labels"])
def test_killed_at_every_step(was, first, releases, tmp_path):
    """The pipeline is the live version's or is missing, and the next publisher puts it back."""
    for step in itertools.count():
        root = shutil.copytree(first, tmp_path / str(step)) if was else tmp_path / str(step)
        root.mkdir(exist_ok=True)
        killed = killing.killed_at(step, "file", killing.publish, root, releases[2])
        assert verify.verify(root) == [], step
        if (root / small.MODEL).exists():
            expected = {1: small.LABELS if was else OTHER, 2: OTHER}[layout.live(root / small.MODEL)]
            assert labels_of(root) in (None, expected), step
            prune(root, small.MODEL, keep=9)
            assert labels_of(root) == expected and verify.verify(root) == [], step
        else:
            assert not there(root), step
        shutil.rmtree(root)
        if not killed:
            break
    assert step > 10


def test_a_disk_that_is_full_in_mid_switch_leaves_what_was_there(root, releases, monkeypatch):
    before = state(root)

    def full(path, content):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(disk, "replace", full)
    with pytest.raises(MachineError, match="No space left on device"):
        publish(root, releases[2])
    assert state(root) == before and verify.verify(root) == [] and not list(root.glob(".publishing*"))


@pytest.mark.parametrize("name", ["1/text.json", "config.pbtxt"])
def test_a_changed_byte_is_named_and_can_be_put_right(name, root):
    path = root / PIPELINE / name
    path.write_text(path.read_text() + " ")
    (complaint,) = verify.verify(root)
    assert complaint == f"{path}: not as version 1 was published; put it right: optkit rollback {small.MODEL} --to 1"
    rollback(root, small.MODEL, to=1)
    assert verify.verify(root) == []


def test_files_that_are_missing_foreign_or_linked_are_named(root, tmp_path):
    step, other = ensemble.steps(small.MODEL)
    (root / step / "1" / "tokenizer.json").unlink()
    (root / step / "1" / "more").touch()
    shutil.move(root / other, tmp_path / other)
    (root / other).symlink_to(tmp_path / other)
    found = "\n".join(verify.verify(root))
    for name in (f"{step}/1/tokenizer.json", f"{step}/1/more", f"{other}"):
        assert f"{root / name}: not as version 1 was published" in found
    rollback(root, small.MODEL, to=1)
    assert verify.verify(root) == [] and not (root / other).is_symlink()


def test_names_that_would_be_anothers(root, releases, tmp_path):
    with pytest.raises(InputError, match=r"'classification_tiny_text': would be the text pipeline of 'classification_tiny'"):
        publish(root, small.release(tmp_path / "engine", name=PIPELINE))
    other = tmp_path / "other"
    publish(other, small.release(tmp_path / "second", name=PIPELINE))
    with pytest.raises(InputError, match=r"its text pipeline would be 'classification_tiny_text', a model in"):
        publish(other, releases[0])


@pytest.fixture
def server(root, tmp_path):
    """A server of the repository's model and its pipeline."""
    with Server(root, tmp_path / "logs", [small.MODEL, PIPELINE]) as running:
        yield running


def answers(server, release):
    """Whether the pipeline answers as this release does."""
    with TextClient(server.url, small.MODEL) as client:
        return [answer.label for answer in client.ask(release.words.texts)] == list(release.words.answers)


@pytest.mark.server
def test_a_running_server_goes_over_in_text_too(server, root, releases):
    assert answers(server, releases[0])
    for release in (releases[1], releases[2]):
        publish(root, release, server.url)
        assert answers(server, release)
    rollback(root, small.MODEL, to=1, url=server.url)
    assert answers(server, releases[0])
    publish(root, releases[3], server.url)
    with pytest.raises(InputError, match="found no model"):
        answers(server, releases[0])
    rollback(root, small.MODEL, to=3, url=server.url)
    assert answers(server, releases[2]) and verify.verify(root) == []


@pytest.mark.server
def test_no_text_is_refused_while_versions_with_the_same_labels_change(server, root, releases):
    """Four clients ask all the time; every answer is that of one of the two versions."""
    asked, right = releases[0].words.texts, [list(release.words.answers) for release in releases[:2]]
    stop, failures, counts = threading.Event(), [], [0, 0]

    def ask():
        with TextClient(server.url, small.MODEL) as client:
            while not stop.is_set():
                try:
                    counts[right.index([str(answer) for answer in client.ask(asked)])] += 1
                except Exception as error:
                    failures.append(error)
                    return

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    publish(root, releases[1], server.url)
    rollback(root, small.MODEL, url=server.url)
    stop.set()
    for thread in threads:
        thread.join()
    assert not failures and min(counts) > 0, (failures, counts)


@pytest.mark.server
@pytest.mark.parametrize("labels", [small.LABELS, OTHER])
def test_a_pipeline_that_answers_wrongly_on_the_running_server(labels, server, root, releases, tmp_path):
    """Tensors are right and text is not: the old version answers both again."""
    release = small.release(tmp_path / "engine", 7, labels=labels)
    wrong = dataclasses.replace(release.words, answers=[labels[0]] * 4 + [labels[1]] * 4)
    before = state(root)
    with pytest.raises(GateError, match=r"texts are answered otherwise than when the engine was scored; the first is \['w"):
        publish(root, dataclasses.replace(release, words=wrong), server.url)
    assert answers(server, releases[0]) and state(root) == before and verify.verify(root) == []


@pytest.mark.server
def test_a_server_that_has_another_pipeline_than_the_disk(server, root, releases):
    """Somebody published other labels without telling the server: the next one does not rely on what lies on the disk."""
    publish(root, releases[2])
    assert answers(server, releases[0])
    publish(root, dataclasses.replace(releases[2]), server.url)
    assert answers(server, releases[2])


@pytest.mark.server
def test_a_scratch_server_finds_a_pipeline_that_answers_wrongly(checkpoints, tmp_path, monkeypatch, capsys):
    results = shutil.copytree(checkpoints, tmp_path / "checkpoints")
    target = tmp_path / "repository"
    stage = ensemble.stage

    def shuffled(root, source, model, config):
        stage(root, source, model, config)
        folder = root / ensemble.steps(model)[1] / "1"
        settings = TextSettings.read(folder)
        dataclasses.replace(settings, labels=settings.labels[1:] + settings.labels[:1]).write(folder)

    monkeypatch.setattr(text_pipeline.ensemble, "stage", shuffled)
    arguments = ["publish", "tiny", "--task", "classification", "--checkpoints", str(results), "--repository", str(target)]
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 1 and "asked in text: " in capsys.readouterr().err
    assert there(target) == set() and not list(target.glob(".publishing*"))
