"""What is published is listed with what is live, its delta and its size."""

import json

import pytest

from optkit.core.errors import InputError
from optkit.registry import listing
from optkit.registry.rollback import rollback

from . import small


def test_versions_the_newest_first(repository):
    rollback(repository, small.MODEL, to=2)
    found = listing.versions(repository)
    assert [(each.version, each.live) for each in found] == [(3, False), (2, True), (1, False)]
    folder = repository / small.MODEL / "2"
    assert found[1].size_bytes == sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert found[1].delta_ci95 == (-0.8, -0.2)


def test_the_table_and_the_json_say_the_same(repository):
    found = listing.versions(repository)
    lines = [line.split() for line in listing.render(found, "table").splitlines() if small.MODEL in line]
    assert lines[0][:3] == [small.MODEL, "3", "live"] and lines[1][:2] == [small.MODEL, "2"]
    assert "-0.50 [-0.80, -0.20]" in " ".join(lines[0])
    assert [(each["version"], each["live"]) for each in json.loads(listing.render(found, "json"))] == [
        (3, True), (2, False), (1, False),
    ]  # fmt: skip


def test_what_cannot_be_listed_is_named(repository, tmp_path):
    with pytest.raises(InputError, match=r"--format xml: expected one of table, json"):
        listing.render([], "xml")
    with pytest.raises(InputError, match=r"no such folder"):
        listing.versions(tmp_path / "nowhere")
    (repository / small.MODEL / "9").mkdir()
    with pytest.raises(InputError, match=r"9: made by hand"):
        listing.versions(repository)
