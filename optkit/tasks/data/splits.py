"""Finds the files of the two splits in a folder: by their names, in one piece or in shards."""

import logging
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from optkit.tasks.base import SPLITS, Split
from optkit.tasks.data.tables import listed, problem

log = logging.getLogger(__name__)
_NAMES: Mapping[Split, Sequence[Sequence[str]]] = {
    "train": (("train", "training"),),
    "dev": (("dev", "validation", "valid", "val"), ("eval",), ("test",)),
}
"""Names of each split, those that go first before the others."""
_KNOWN = {name for ranks in _NAMES.values() for rank in ranks for name in rank}
_SHARD = re.compile(r"(?P<name>.+?)[-_.]?(?P<number>\d+)(?:-of-(?P<all>\d+)(?:-[0-9a-f]{16})?)?")
"""A shard's name: `train-1`, `train_02`, `train-00000-of-00003`, `train-00000-of-00001-8a3c5c4ff3d27a30`."""
_PARTS = ("data", "default")
"""Folders that hold the files of a data set of the hub."""


def find(
    folder: Path, endings: Sequence[str], wanted: Sequence[Split] = SPLITS, required: bool = True
) -> dict[Split, list[Path]]:
    """Find the files of splits: `train.csv`, `train-00000-of-00003.parquet`, or all files in a folder `train/`.

    Args:
        folder: holds the files, or has them in a folder `data/`.
        endings: of the files that can be read, such as `.csv`.
        wanted: splits to find.
        required: whether each of them must be there.

    Raises:
        InputError: no file for a split, several that could be it, or a shard that is missing.
    """
    named = _named(folder, endings)
    below = next((folder / name for name in _PARTS if name in named), None)
    if below is not None and not _has_splits(named):
        named = _named(below, endings)
    chosen = {split: choose(split, {name: paths[0].name for name, paths in named.items()}, folder) for split in wanted}
    found = {split: _of_split(folder, split, name, named, endings) for split, name in chosen.items() if name or required}
    if others := [path.name for name, paths in named.items() if name.lower() not in _KNOWN for path in paths]:
        log.warning(
            "%s: %s is not read; rows to be trained on belong into train.*, or into a folder train/", folder, listed(others)
        )
    return found


def named(folder: Path, name: str, endings: Sequence[str]) -> list[Path]:
    """Return the files of one name, such as `corpus.jsonl`, or `corpus-00000-of-00002.parquet` and its like; none if empty.

    Raises:
        InputError: several that could be it, or a shard that is missing.
    """
    found = _named(folder, endings).get(name, [])
    _check_shards(folder, name, found)
    return found


def choose(split: Split, names: Mapping[str, str], source: object) -> str | None:
    """Return the name of a source's split that is `train` or `dev`; None if there is none. Says which of several it is.

    Args:
        split: split to find.
        names: names of the source's splits, each with what messages call it.
        source: source for messages.

    Raises:
        InputError: several names mean the same.
    """
    for rank in _NAMES[split]:
        found = [name for name in names if name.lower() in rank]
        if len(found) > 1:
            fix = "move all but one to another folder"
            raise problem(source, f"{len(found)} {split} files ({listed(names[name] for name in found)})", "one", fix)
        if found:
            others = [name for name in names if name != found[0] and any(name.lower() in rank for rank in _NAMES[split])]
            if found[0].lower() in ("eval", "test") or others:
                unread = f"; {listed(others)} is not read" if others else ""
                log.warning("%s: scores are of %r%s", source, found[0], unread)
            return found[0]
    return None


def _has_splits(named: Collection[str]) -> bool:
    return any(name.lower() in _KNOWN for name in named)


def _named(folder: Path, endings: Sequence[str]) -> dict[str, list[Path]]:
    """Return a folder's files by the name that they have without the number of a shard; a folder counts as its files."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.is_dir() and (inside := _readable(path, endings)):
            found.setdefault(path.name, []).extend(inside)
        elif path.is_file() and (stem := _stem(path, endings)):
            shard = _SHARD.fullmatch(stem)
            found.setdefault(shard["name"] if shard else stem, []).append(path)
    return found


def _readable(folder: Path, endings: Sequence[str]) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file() and _stem(path, endings))
    except OSError as error:
        raise problem(
            folder, f"a folder that cannot be read ({error.strerror})", "files that can", "change its rights"
        ) from None


def _stem(path: Path, endings: Sequence[str]) -> str | None:
    """Return a file's name without its ending, `.gz` included; None if no reader knows the ending."""
    name = path.name[: -len(".gz")] if path.name.lower().endswith(".gz") else path.name
    ending = next((ending for ending in endings if name.lower().endswith(ending)), None)
    return name[: -len(ending)] if ending else None


def _of_split(
    folder: Path, split: Split, name: str | None, named: Mapping[str, list[Path]], endings: Sequence[str]
) -> list[Path]:
    if name is None:
        kinds = ",".join(ending[1:] for ending in endings)
        expected = " or ".join(f"{stem}.{{{kinds}}}" for stem in _NAMES[split][0][:2])
        there = listed(sorted(path.name for path in folder.iterdir()))
        inner = [path for path in sorted(folder.iterdir()) if path.is_dir() and _has_splits(_named(path, endings))]
        fix = f"give a folder with the files: --data {inner[0]}" if inner else f"add the {split} file"
        raise problem(folder, f"no {split} file (the folder holds: {there})", expected, fix)
    _check_shards(folder, split, named[name])
    return named[name]


def _check_shards(folder: Path, name: str, paths: Sequence[Path]) -> None:
    """Raise `InputError` where a file stands beside shards, a shard comes twice, or those of `-of-N` are not all there."""
    shards = [_SHARD.fullmatch(path.name.partition(".")[0]) for path in paths]
    numbers = [int(shard["number"]) for shard in shards if shard]
    whole = len(numbers) < len(paths) and paths[0].parent == folder
    if len(paths) > 1 and (len({path.parent for path in paths}) > 1 or whole or len(set(numbers)) < len(numbers)):
        found = f"{len(paths)} {name} files ({listed(path.name for path in paths)})"
        raise problem(folder, found, "one, or shards with different numbers", "move what is not meant to another folder")
    said = {int(shard["all"]) for shard in shards if shard and shard["all"]}
    if said and said != {len(paths)}:
        found = f"{len(paths)} of {' or '.join(map(str, sorted(said)))} shards ({listed(path.name for path in paths)})"
        raise problem(folder, found, "all of them", "add the missing files")
