"""The process of one peer, as `peers.py` sees it."""

import json
import os
import select
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PATIENCE_S = 900
"""Time for one answer, such as that the peer is made."""


class Failed(Exception):
    """Why a peer is out."""


class PeerProcess:
    """A peer for as long as a `with` block lasts.

    Args:
        name: of the peer.
        python: of its environment.
        settings: file that says what all peers are told.
    """

    def __init__(self, name: str, python: Path, settings: Path) -> None:
        self._log = settings.parent / "logs" / f"{name}.log"  # what its libraries print
        self._log.parent.mkdir(exist_ok=True)
        command = [python, Path(__file__).with_name("peer_worker.py"), name, settings]
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=os.environ | offline
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """End the process: it goes when nobody can ask it any more."""
        try:
            self._process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def ask(self, **request: Any) -> dict[str, Any]:
        """Ask for something, and wait for the answer.

        Raises:
            Failed: there is none, or it is an error.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Failed(self._end()) from None
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """Wait for an answer; the first says that the peer is ready.

        Raises:
            Failed: as `ask`.
        """
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], PATIENCE_S)[0]:
            self._process.kill()
            raise Failed(f"no answer in {PATIENCE_S} s")
        line = self._process.stdout.readline()
        if not line:
            raise Failed(self._end())
        found: dict[str, Any] = json.loads(line)
        if "failed" in found:
            raise Failed(found["failed"])
        return found

    def _end(self) -> str:
        status = self._process.wait()
        said = [line.strip() for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return f"ended with status {status}: {''.join(said[-1:])}"
