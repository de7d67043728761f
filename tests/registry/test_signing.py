"""What is served with --trust was signed, as it is, by a trusted key; without keys everything is as it was."""

import dataclasses
import json
import logging
import os
import re
import shutil
import subprocess
import sys

import pytest

from optkit.core.atomic import file_hash, hashes
from optkit.core.errors import InputError, MachineError
from optkit.registry import chain, listing, signing, verify
from optkit.registry.disk import locked
from optkit.registry.live_server import Running
from optkit.registry.release import place
from optkit.registry.rollback import prune, rollback
from optkit.registry.signing import Signer, Trust
from tests.conftest import main_ends

from . import small
from .conftest import trusting

pytest.importorskip("model_signing", reason="signatures need model-signing: pip install -e '.[signing,test]'")

SECRET = "a passphrase that nobody else sees"


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """A folder with the keys `ours` and `theirs`."""
    folder = tmp_path_factory.mktemp("keys")
    small.key(folder, "ours")
    small.key(folder, "theirs", "SECP384R1")
    return folder


@pytest.fixture(scope="module")
def ours(keys):
    return Trust([keys / "ours.pub"])


def publish(root, release, private=None):
    signer = None if private is None else Signer(private)
    with locked(root, "test"):
        return place(root, dataclasses.replace(release, signer=signer), trusting)


@pytest.fixture(scope="module")
def signed_once(published, releases, keys, tmp_path_factory):
    """Three unsigned versions, one signed by `theirs`, one by `ours`."""
    root = shutil.copytree(published, tmp_path_factory.mktemp("signed") / "repository")
    publish(root, releases[0], keys / "theirs.pem")
    publish(root, releases[3], keys / "ours.pem")
    return root


@pytest.fixture
def signed(signed_once, tmp_path):
    return shutil.copytree(signed_once, tmp_path / "repository") / small.MODEL


def test_a_signed_version_is_listed_verified_and_trusted(signed, keys, ours):
    root = signed.parent
    found = {each.version: each.signature for each in listing.versions(root)}
    ids = {name: Signer(keys / f"{name}.pem").key_id[:16] for name in ("ours", "theirs")}
    assert found == {
        **dict.fromkeys((1, 2, 3), "unsigned"),
        4: f"signed by {ids['theirs']}",
        5: f"signed by {ids['ours']}",
    }
    assert "unsigned" in listing.render(listing.versions(root), "table")
    assert verify.verify(root) == []
    verify.require(root, ours)
    assert ours.complaints(signed / "5") == []


def test_every_version_has_to_be_signed_to_be_verified_with_a_key(signed, keys, ours):
    found = verify.verify(signed.parent, ours)
    assert [line.partition(":")[0] for line in found] == [
        *(f"{signed}/{number}" for number in (1, 2, 3)),
        f"{signed}/4/model.sig",
    ]
    assert "unsigned; publish it again with --sign KEY" in found[0] and "which is not trusted" in found[3]
    prune(signed.parent, small.MODEL, 2)
    assert verify.verify(signed.parent, Trust([keys / "ours.pub", keys / "theirs.pub"])) == []


def test_going_back_and_pruning_need_no_key(signed, ours):
    assert rollback(signed.parent, small.MODEL) == 4
    with pytest.raises(InputError, match=r"4/model\.sig: signed by \w{16}, which is not trusted; trusted: \w{16}"):
        verify.require(signed.parent, ours)
    assert rollback(signed.parent, small.MODEL, to=3) == 3
    with pytest.raises(InputError, match="/3: unsigned"):
        verify.require(signed.parent, ours)
    assert rollback(signed.parent, small.MODEL, to=5) == 5
    assert prune(signed.parent, small.MODEL, 1) == [1, 2, 3, 4]
    verify.require(signed.parent, ours)
    assert verify.verify(signed.parent) == []


def seal_again(version):
    """Have provenance and history fit what is in a version, as somebody who may write all files can."""
    path, model = version / "provenance.json", version.parent
    origin = json.loads(path.read_text())
    files = {name: digest for name, digest in hashes(version).items() if name not in ("provenance.json", "model.sig")}
    path.write_text(json.dumps({**origin, "files": files}))
    text = ""
    for line in (model / "history.jsonl").read_text().splitlines():
        event = {name: value for name, value in json.loads(line).items() if name not in ("previous", "sha256")}
        if event["version"] == int(version.name):
            event |= {"provenance": file_hash(path), "signature": file_hash(version / "model.sig")}
        text = chain.extended(text, event)
    (model / "history.jsonl").write_text(text)
    entry, own = json.loads(text.splitlines()[-1])["sha256"], (version / "config.pbtxt").read_text()
    (model / "config.pbtxt").write_text(f"# live by entry {entry} of history.jsonl\n{own}")
    shutil.copy(version / "README.md", model / "README.md")


@pytest.mark.parametrize(
    "name", ["engine/model.onnx", "engine/engine.json", "model.py", "config.pbtxt", "README.md", "probe.npz", ".gitignore"]
)
def test_what_was_changed_by_somebody_who_may_write_everything_is_not_trusted(name, signed, ours):
    """SHA-256 alone does not show it."""
    path = signed / "5" / name
    if path.exists():
        path.write_bytes(path.read_bytes().replace(b"max_batch_size: 8", b"max_batch_size: 7") + b"\n")
    else:
        path.write_text("added")
    seal_again(signed / "5")
    assert verify.verify(signed.parent) == []
    with pytest.raises(InputError, match=r"5/model\.sig: not the signature of what is there"):
        verify.require(signed.parent, ours)


def test_a_version_that_lost_its_signature_or_has_anothers(signed, keys, releases, ours):
    publish(signed.parent, releases[1], keys / "ours.pem")
    stored = (signed / "6" / "model.sig").read_bytes()
    (signed / "6" / "model.sig").write_bytes((signed / "5" / "model.sig").read_bytes())
    assert (
        verify.verify(signed.parent)
        == [line for line in verify.verify(signed.parent) if line.startswith(f"{signed}/6/model.sig: SHA-256 is")]
        != []
    )
    assert ours.complaints(signed / "6") == [
        f"{signed}/6/model.sig: not the signature of what is there: the version was changed, or its signature"
    ]
    (signed / "6" / "model.sig").unlink()
    assert verify.verify(signed.parent) == [f"{signed}/6/model.sig: missing"]
    (signed / "6" / "model.sig").write_bytes(stored)
    verify.require(signed.parent, ours)
    shutil.copy(signed / "5" / "model.sig", signed / "3" / "model.sig")
    assert verify.verify(signed.parent) == [f"{signed}/3/model.sig: not among the files that were published; remove it"]


def test_a_whole_version_under_another_number_is_not_trusted(signed):
    shutil.rmtree(signed / "4")
    shutil.copytree(signed / "5", signed / "4")
    assert verify.verify(signed.parent) != []


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "null", '{"verificationMaterial": {"publicKey": {"hint": 5}}}', "[" * 100_000, "\0"]
)
def test_a_signature_that_is_none(content, signed, ours):
    (signed / "5" / "model.sig").write_text(content)
    (complaint,) = ours.complaints(signed / "5")
    assert "signed by nobody, which is not trusted" in complaint
    assert listing.versions(signed.parent)[0].signature == "signed by nobody"


@pytest.mark.parametrize("part", ["payload", "signatures", "hint"])
def test_a_signature_in_which_something_was_changed(part, signed, keys, ours):
    path = signed / "5" / "model.sig"
    bundle = json.loads(path.read_text())
    if part == "payload":
        bundle["dsseEnvelope"]["payload"] = "e30="
    elif part == "signatures":
        bundle["dsseEnvelope"]["signatures"] = []
    else:
        bundle["verificationMaterial"]["publicKey"]["hint"] = Signer(keys / "theirs.pem").key_id
    path.write_text(json.dumps(bundle))
    assert ours.complaints(signed / "5") != []
    assert Trust([keys / "theirs.pub", keys / "ours.pub"]).complaints(signed / "5") != []


@pytest.mark.parametrize("curve", ["SECP256R1", "SECP384R1", "SECP521R1"])
def test_a_key_with_a_passphrase_is_read_once_and_left_nowhere(curve, model, releases, tmp_path, monkeypatch, caplog):
    private = small.key(tmp_path, "locked", curve, SECRET)
    with pytest.raises(InputError, match=r"not given .*The passphrase is taken from OPTKIT_SIGN_PASSPHRASE"):
        Signer(private)
    monkeypatch.setenv(signing.PASSPHRASE, "wrong")
    with pytest.raises(InputError, match="cannot be read as a private key"):
        Signer(private)
    monkeypatch.setenv(signing.PASSPHRASE, SECRET)
    with caplog.at_level(logging.DEBUG):
        signer = Signer(private)
        assert signing.PASSPHRASE not in os.environ, "servers that are started do not inherit it"
        with locked(model.parent, "test"):
            place(model.parent, dataclasses.replace(releases[3], signer=signer), trusting)
    verify.require(model.parent, Trust([private.with_suffix(".pub")]))
    secrets = [SECRET.encode(), private.read_bytes().splitlines()[2]]
    left = [path for path in model.parent.rglob("*") if path.is_file() and any(one in path.read_bytes() for one in secrets)]
    assert left == [] and SECRET not in caplog.text


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_private_key_that_others_can_reach_is_refused(mode, tmp_path):
    private = small.key(tmp_path, "open")
    private.chmod(mode)
    with pytest.raises(InputError, match=rf"--sign {private}: mode {mode:04o} lets others .*: chmod 600 {private}"):
        Signer(private)


def test_what_is_no_key_of_the_right_kind(keys, tmp_path):
    subprocess.run(["openssl", "genrsa", "-out", tmp_path / "rsa.pem"], check=True, capture_output=True)
    small.key(tmp_path, "bitcoin", "SECP256K1")
    (tmp_path / "text.pem").touch(mode=0o600)
    for path, said in (
        (tmp_path / "nowhere", "no such file"),
        (tmp_path, "no such file"),
        (tmp_path / "text.pem", "cannot be read as a private key"),
        (tmp_path / "rsa.pem", "a key of no curve"),
        (tmp_path / "bitcoin.pem", "a key of secp256k1"),
    ):
        with pytest.raises(InputError, match=f"--sign {path}: {said}"):
            Signer(path)
    for path, said in (
        (tmp_path / "nowhere", "no such file"),
        (keys / "ours.pem", "cannot be read as a public key"),
        (tmp_path / "bitcoin.pub", "a key of secp256k1"),
    ):
        with pytest.raises(InputError, match=f"--trust {path}: {said}"):
            Trust([path])


def test_the_id_of_a_key_is_the_hash_of_its_public_file(keys):
    done = subprocess.run(["sha256sum", keys / "ours.pub"], check=True, capture_output=True, text=True)
    assert Signer(keys / "ours.pem").key_id == done.stdout.split()[0]


@pytest.mark.slow
def test_model_signings_own_command_says_the_same(signed, keys):
    command = [
        sys.executable,
        "-m",
        "model_signing",
        "verify",
        "key",
        signed / "5",
        "--signature",
        signed / "5" / "model.sig",
    ]
    done = subprocess.run([*command, "--public_key", keys / "ours.pub"], capture_output=True, text=True)
    assert done.returncode == 0 and "succeeded" in done.stdout, done.stderr
    assert subprocess.run([*command, "--public_key", keys / "theirs.pub"], capture_output=True).returncode != 0


def serve(root, *more):
    command = [sys.executable, "-m", "optkit", "serve", "--repository", str(root), "--port", "0", *map(str, more)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_serve_refuses_what_is_not_trusted_before_anything_is_loaded(signed, keys):
    link = signed.parent / "link"
    for make, said in (
        (lambda: rollback(signed.parent, small.MODEL, to=3), f"{signed}/3: unsigned"),
        (lambda: rollback(signed.parent, small.MODEL, to=4), f"{signed}/4/model.sig: signed by"),
        (lambda: (signed / "1" / "model.py").write_text("changed"), f"{signed}/1/model.py: SHA-256 is"),
        (lambda: link.symlink_to(signed), f"{link}: a symbolic link to"),
    ):
        make()
        process = serve(signed.parent, "--trust", keys / "ours.pub")
        _, error = process.communicate(timeout=60)
        assert process.returncode == 2 and said in error and "serving" not in error and "Traceback" not in error, error
    main_ends(["serve", "--repository", str(signed.parent), "--unpublished", "--trust", str(keys / "ours.pub")], 2)


@pytest.mark.server
def test_what_is_served_with_trust_is_what_was_checked(signed, keys, releases, tmp_path, monkeypatch):
    """A change after the start reaches no server, and a publisher with --url is refused by it."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    process = serve(signed.parent, "--trust", keys / "ours.pub")
    try:
        (url,) = re.findall(r"serving classification_tiny on http://(\S+)", process.stderr.readline())
        (copy,) = tmp_path.glob("optkit-repository-*")
        assert copy.stat().st_mode & 0o077 == 0
        (signed / "5" / "model.py").write_text("raise SystemExit")
        running = Running(url)
        running.load(small.MODEL)
        assert running.live(small.MODEL) == [5]
        running.check(small.MODEL, releases[3].probes)
        shutil.rmtree(signed)
        said = r"cannot load model '\.publishing-\w+'.*one with --trust serves a copy"
        with pytest.raises(MachineError, match=said), locked(signed.parent, "test"):
            place(signed.parent, releases[0], trusting, running)
    finally:
        process.send_signal(2)
        process.communicate(timeout=60)
    assert not copy.exists()


@pytest.mark.slow
def test_the_commands(checkpoints, keys, tmp_path, capsys):
    root = tmp_path / "repository"
    at = ["--task", "classification", "--checkpoints", str(checkpoints), "--repository", str(root)]
    for more, version in (
        ([], 1),
        (["--sign", str(keys / "ours.pem")], 2),
        (["--sign", str(keys / "ours.pem")], 2),
        ([], 2),
    ):
        main_ends(["publish", "tiny", *at, *more], 0)
        assert capsys.readouterr().out == f"{root / small.MODEL / str(version)}\n", "the same engine is not published twice"
    main_ends(["list", "--repository", str(root)], 0)
    table = capsys.readouterr().out
    assert f"signed by {Signer(keys / 'ours.pem').key_id[:16]}" in table and "unsigned" in table
    trust = ["verify", "--repository", str(root), "--trust", str(keys / "ours.pub")]
    main_ends(trust, 1)
    assert capsys.readouterr().out == f"{root / small.MODEL / '1'}: unsigned; publish it again with --sign KEY\n"
    main_ends(["prune", small.MODEL, "--keep", "1", "--repository", str(root)], 0)
    main_ends(trust, 0)
    assert capsys.readouterr().out.endswith("every file is as it was published, and signed\n")
    (root / small.MODEL / "2" / "engine" / "model.onnx").write_bytes(b"changed")
    main_ends(trust, 1)
    assert "2/engine/model.onnx: SHA-256 is" in capsys.readouterr().out
