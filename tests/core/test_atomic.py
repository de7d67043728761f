"""What a disk refuses is met by the remedy for that refusal."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from optkit.core.atomic import disk_error, refusal_behind, remedy, write_text
from optkit.core.errors import InputError, MachineError

REMEDIES = {
    errno.ENOSPC: "Free some space or give another folder",
    errno.EDQUOT: "Free some space or give another folder",
    errno.EROFS: "Its disk is mounted to be read only: mount it otherwise, or give another folder",
    errno.EACCES: "Change the rights of the folder, or give another one",
    errno.ENOTDIR: "Make the folder first, or give another one",
    errno.EIO: "Give another folder",
}


@pytest.mark.parametrize("code", REMEDIES)
def test_only_a_full_disk_is_asked_for_space(code: int, tmp_path: Path) -> None:
    message = str(disk_error(tmp_path / "a", OSError(code, os.strerror(code))))
    assert message.startswith(f"{tmp_path / 'a'}: cannot be written: {os.strerror(code)}")
    assert message.endswith(REMEDIES[code])
    assert ("MB free" in message) == (REMEDIES[code].startswith("Free"))


def test_the_reason_is_found_where_shutil_reports_several() -> None:
    error = shutil.Error([("a", "b", "[Errno 30] Read-only file system: 'b'")])
    assert remedy(refusal_behind(error) or error) == REMEDIES[errno.EROFS]


def test_a_folder_or_a_folder_that_is_missing_is_no_place_for_a_file(tmp_path: Path) -> None:
    for place in (tmp_path, Path(".")):
        with pytest.raises(InputError, match=r"cannot be written: found a folder\. Give the name of a file"):
            write_text(place, "text")
    with pytest.raises(MachineError, match="Make the folder first"):
        write_text(tmp_path / "none" / "a.txt", "text")
