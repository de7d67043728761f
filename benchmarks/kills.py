"""Ends `optkit publish` and `optkit run` at random instants, by all signals, and looks for what is left and what is lost.

    python benchmarks/kills.py publish --rounds 200
    python benchmarks/kills.py run --rounds 60

Runs as the first process of namespaces of its own (`unshare`: process ids, and an empty /tmp and /dev/shm), so that every
process, every region of shared memory and every folder that is left is the commands' own. In a quarter of the rounds with
SIGKILL the server's watcher is killed too.

After each round the next command runs (`verify` or `compare`), and then there must be no process, nothing in /dev/shm, and
nothing of optkit or Triton in /tmp; after TERM, INT and HUP not even before it. The repository must verify and have every
version that it has ever had; finished steps of a run must stay as they were, and nothing unfinished may lie beside them. In
the end the command runs undisturbed.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
ALONE = "OPTKIT_KILLS_ALONE"
RECIPES = ("baseline_fp32", "ptq_int8")
PROJECT = ["--task", "classification", "--name", "tiny"]
DATA = ["--data", "data", "--model", "model", "--seconds", "0.3"]
MOUNTED = 'mount -t tmpfs tmpfs /tmp && mount -t tmpfs tmpfs /dev/shm && exec "$0" "$@"'
OTHERS, BAD, GOOD = ("a", "the", "film", "plot", "cast"), ("awful", "dull"), ("bright", "lovely")
OURS = ("optkit-", "python_env_")


def main() -> None:
    """Run the rounds, and print a line for each that found something, and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("publish", "run"))
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if ALONE not in os.environ:
        namespaces = ["unshare", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc"]
        os.environ[ALONE] = "1"
        os.execvp("unshare", [*namespaces, "sh", "-c", MOUNTED, sys.executable, *sys.argv])
    with tempfile.TemporaryDirectory(prefix="kills-") as place:
        os.chdir(place)
        Kills(random.Random(given.seed), given.command).run(given.rounds)


class Kills:
    """The rounds of one command.

    Args:
        chance: draws signals and instants.
        command: "publish" or "run".
    """

    def __init__(self, chance: random.Random, command: str) -> None:
        self.chance = chance
        self.arguments = {
            "publish": ["publish", RECIPES[1], *PROJECT, "--force", "--why", "kills", "--seed", "0"],
            "run": ["run", *RECIPES, *PROJECT, *DATA],
        }[command]
        self.check: Callable[[], list[str]] = {"publish": self._published, "run": self._trained}[command]
        self.known: dict[str, object] = {}
        self.counts: Counter[str] = Counter()
        self.problems = 0

    def run(self, rounds: int) -> None:
        """Kill, check and count."""
        _make_model()
        if self.arguments[0] == "publish":
            _require(_optkit("run", *RECIPES, *PROJECT, *DATA, "--seed", "0", "--seed", "1"))
            _require(_optkit(*self.arguments))
            self._turn()
        started = time.monotonic()
        _require(_optkit(*self.arguments))
        whole = time.monotonic() - started
        self._turn()
        print(f"undisturbed: {whole:.1f} s", flush=True)
        for number in range(rounds):
            self._round(number, whole)
        self._ends_well()
        print(f"{rounds} rounds, {self.problems} with something left or lost: {dict(sorted(self.counts.items()))}")
        sys.exit(self.problems > 0)

    def _round(self, number: int, whole: float) -> None:
        chosen, instant = self.chance.choice(SIGNALS), self.chance.uniform(0, whole)
        with open("output", "wb") as output:
            process = _start(self.arguments, output)
            _wait(process, instant)
            watchers = _watchers() if chosen == signal.SIGKILL and self.chance.random() < 0.25 else []
            for each in (process.pid, *watchers):
                _kill(each, chosen)
            status = process.wait(120)
        if status in (0, 1):
            self._turn()
        kind = chosen.name + " with the watcher" * bool(watchers)
        asked = status in {128 + each for each in SIGNALS}  # it has unwound; else it was not yet or no longer at work
        self.counts["ended before" if status in (0, 1) else kind] += 1
        found = _left() if asked else []
        found = [f"before the next command: {each}" for each in found] + self.check() + _left()
        if found:
            self.problems += 1
            said = Path("output").read_text(errors="replace")[-2000:]
            print(
                f"round {number}, {kind} after {instant:.1f} of {whole:.1f} s, status {status}: {found}\n{said}", flush=True
            )
        if number % 10 == 9:
            print(f"{number + 1} rounds, {self.problems} problems, {dict(self.counts)}", flush=True)

    def _published(self) -> list[str]:
        """What is wrong with the repository, as the next command sees it."""
        done = _optkit("verify")
        found = [f"verify: {done.returncode} {done.stdout}{done.stderr}"] if done.returncode else []
        versions = {str(path) for path in Path("model_repository").glob("*/[1-9]*/provenance.json")}
        lost = self.known.keys() - versions
        self.known = dict.fromkeys(versions)
        return found + [f"lost: {sorted(lost)}"] * bool(lost)

    def _trained(self) -> list[str]:
        """What is wrong with the checkpoints, as the next command sees it."""
        done = _optkit("compare", *PROJECT)
        found = [f"compare: {done.returncode} {done.stderr}"] if "Traceback" in done.stderr else []
        if not Path("checkpoints").exists():
            return []
        now = {str(path): _written(path) for path in Path("checkpoints").rglob("record.json") if _is_step(path)}
        lost = [name for name, written in self.known.items() if now.get(name) != written]
        self.known, left = dict(now), _unfinished(Path("checkpoints"))
        return found + [f"lost: {lost}"] * bool(lost) + [f"unfinished: {left}"] * bool(left)

    def _turn(self) -> None:
        """After a command that has ended well: publish the engine of the other seed, or run from the training on."""
        if self.arguments[0] == "publish":
            self.arguments = [*self.arguments[:-2], "--seed", str(1 - int(self.arguments[-1]))]
        else:
            shutil.rmtree("checkpoints")
            self.known = {}

    def _ends_well(self) -> None:
        """Run the command to its end, and look once more."""
        done = _optkit(*self.arguments)
        left = _left() + sorted(_unfinished(Path("checkpoints")) | _unfinished(Path("model_repository")))
        if done.returncode not in (0, 1) or left:
            self.problems += 1
            print(f"at the end: status {done.returncode}, left {left}\n{done.stderr[-2000:]}")


def _is_step(record: Path) -> bool:
    return not any(part.startswith(".") for part in record.parts)


def _written(record: Path) -> dict[str, int]:
    """When each file of a finished step was written; the record itself is later told the seal of a result."""
    files = json.loads(record.read_text(encoding="utf-8"))["files"]
    return {name: (record.parent / name).stat().st_mtime_ns for name in files}


def _unfinished(top: Path) -> set[str]:
    kinds = (".*unfinished-*", ".scratch-*", ".staging-*", ".export-*", ".publishing-*")
    return {str(path) for kind in kinds for path in top.rglob(kind)}


def _start(arguments: list[str], output: object) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "optkit", *arguments]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)  # type: ignore[call-overload]


def _optkit(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "optkit", *arguments], check=False, capture_output=True, text=True)


def _require(done: "subprocess.CompletedProcess[str]") -> None:
    if done.returncode not in (0, 1):  # 1: the gate is not what is looked at here
        sys.exit(done.stderr)


def _wait(process: "subprocess.Popen[bytes]", seconds: float) -> None:
    with suppress(subprocess.TimeoutExpired):
        process.wait(seconds)


def _kill(process: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, number)


def _watchers() -> list[int]:
    return [process for process, command in _processes().items() if "supervisor.py" in command.partition(" env ")[0]]


def _processes() -> dict[int, str]:
    """{process id: command line} of all but this one; ended ones, which this process has inherited, are waited for."""
    while True:
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                break
        except ChildProcessError:
            break
    found = {}
    for path in Path("/proc").iterdir():
        if path.name.isdecimal() and path.name != str(os.getpid()):
            with suppress(OSError):
                found[int(path.name)] = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return found


def _left(seconds: float = 2.0) -> list[str]:
    """Processes, shared memory and temporary folders; what ends by itself gets a moment."""
    deadline = time.monotonic() + seconds
    while True:
        processes = [f"process {process}: {command[:150]}" for process, command in _processes().items()]
        found = processes + [f"/dev/shm/{name}" for name in os.listdir("/dev/shm")]
        found += [f"/tmp/{name}" for name in os.listdir("/tmp") if name.startswith(OURS)]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def _make_model() -> None:
    """A BERT of two layers of width 32 without a head, so that it is trained, and sentences of two classes."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *OTHERS, *BAD, *GOOD]
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    config = BertConfig(vocab_size=len(words), max_position_embeddings=16, **sizes)
    BertModel(config).save_pretrained("model")
    vocabulary = {word: number for number, word in enumerate(words)}
    BertTokenizerFast(vocab=vocabulary, model_max_length=16).save_pretrained("model")
    chance, folder = random.Random(0), Path("data")
    folder.mkdir()
    for split, size in {"train": 512, "dev": 64}.items():
        rows = ["sentence\tlabel"]
        for number in range(size):
            label, opinions = (("bad", BAD), ("good", GOOD))[number % 2]
            rows.append(f"{' '.join([*chance.choices(OTHERS, k=5), chance.choice(opinions)])}\t{label}")
        (folder / f"{split}.tsv").write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
