"""What a user says of a cluster: where it is, and how much of a node a training takes."""

import re
from dataclasses import dataclass
from pathlib import Path

from optkit.core.errors import InputError

AUTO, LOCAL = "auto", "local"
_CLIENT = re.compile(r"ray://[^\s/:]+:\d{1,5}")


@dataclass(frozen=True)
class ClusterSettings:
    """A cluster of Ray's, and the share of a node that each training gets.

    Raises:
        InputError: an address of another form, a share that no node can give, or a share without a cluster.
    """

    address: str | None = None
    """`auto`: the cluster of this machine or of `$RAY_ADDRESS`; `local`: one on this machine for this run; or
    `ray://HOST:PORT`; None for this process alone."""
    train_cores: int | None = None
    """Cores of a training; None for a node's, or its share of them beside others' GPUs, 4 at most."""
    train_gpus: float | None = None
    """GPUs of a training, or a part of one; None for one where the cluster has GPUs."""

    def __post_init__(self) -> None:
        if self.address is None and (self.train_cores, self.train_gpus) != (None, None):
            raise InputError("--train-cores and --train-gpus say what a training takes of a node: give --cluster too")
        if self.address not in (None, AUTO, LOCAL) and not _CLIENT.fullmatch(str(self.address)):
            raise InputError(
                f"--cluster {self.address}: expected {AUTO}, {LOCAL} or ray://HOST:PORT, as ray://10.0.0.1:10001"
            )
        if self.train_cores is not None and self.train_cores < 1:
            raise InputError(f"--train-cores {self.train_cores}: expected 1 or more")
        gpus = self.train_gpus
        if gpus is not None and not (0 <= gpus <= 1 or (gpus > 0 and gpus % 1 == 0)):
            raise InputError(f"--train-gpus {gpus:g}: expected a part of one, as 0.25, or a whole number")

    def seen(self, folder: Path) -> Path:
        """Return a folder as it is to be said to whoever takes the steps: with its whole path where that is another node."""
        return folder if self.address is None else folder.absolute()
