"""Signals that ask a command to end: once is enough, and more do no harm."""

import subprocess
import sys

import pytest

CODE = """
import os, signal, sys, time
from optkit.cli import ending
from optkit.cli.app import app, main

def send(number=signal.SIGINT):
    os.kill(os.getpid(), number)
    time.sleep(0.01)

@app.command()
def one():
BODY

main(["one"])
"""
UNWINDS = """
    try:
        send(signal.NUMBER)
    finally:
        ending.ONCE_S = 0.0
        send(), send(signal.SIGTERM)
        print("cleaned up", flush=True)
        import atexit, threading
        atexit.register(send)
        atexit.register(print, "at exit")
        threading.Thread(target=time.sleep, args=[0.3]).start()
"""
SWALLOWED = """
    ending.ONCE_S = 0.0
    try:
        send()
    except KeyboardInterrupt:
        print("swallowed", flush=True)
    send()
    print("goes on")
"""
STUCK = """
    ending.ONCE_S = ending.PATIENCE_S = 0.0
    try:
        send()
    finally:
        send()
        print("goes on")
"""


def ended(body: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, "-c", CODE.replace("BODY", body)], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_one_signal_unwinds_and_others_are_ignored_to_the_end(name: str, status: int) -> None:
    said = f"optkit: interrupted ({name}); finished steps are kept, and the same command goes on from them\n"
    assert ended(UNWINDS.replace("NUMBER", name)) == (status, "cleaned up\nat exit\n", said)


def test_a_signal_that_a_callback_swallowed_may_be_sent_again() -> None:
    status, out, said = ended(SWALLOWED)
    assert (status, out) == (130, "swallowed\n") and "Traceback" not in said


def test_what_hangs_while_it_ends_is_ended_by_another_signal() -> None:
    said = "optkit: ended at once; what is left behind is removed by the next command\n"
    assert ended(STUCK) == (130, "", said)
