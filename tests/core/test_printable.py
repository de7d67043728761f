"""Text from elsewhere as it is shown: nothing reaches a terminal that it would obey."""

import io
import logging
import sys

import pytest

from optkit.core import printable, progress
from optkit.core.plain_text import plain, table
from optkit.core.printable import Printable, cell, escaped, printing, say, seen, told_apart

OBEYED = "\x1b[2J\x1b]0;title\x07 \x9b31m \r over \x08 \u202egnp\ud800"
SHOWN = r"\x1b[2J\x1b]0;title\x07 \x9b31m \r over \x08 \u202egnp\ud800"


def test_control_characters_are_written_out_and_nothing_else() -> None:
    assert escaped(OBEYED) == SHOWN
    kept = "naïve 東京 🙂\tcell\nline — “quoted” \\x1b"
    assert escaped(kept) == kept
    every = "".join(map(chr, range(0x110000)))
    left = [character for character in escaped(every) if not character.isprintable() and character not in "\t\n"]
    assert not any(character < "\xa0" or "\ud800" <= character <= "\udfff" for character in left)


def test_what_is_seen_of_a_name() -> None:
    for name in ("neg", "neg\u200b", " n\u2060eg\u00a0", "ｎｅｇ", "ne\u00adg", "neg\ufe0f", "\ufeffneg"):
        assert seen(name) == "neg"
    assert seen("ne\u0301g") == seen("n\u00e9g") == "n\u00e9g" != seen("neg")
    shown = "".join(map(chr, range(0xA1, 0xAD)))
    assert len(seen(shown)) >= len(shown) - 1, "of Latin-1 alone blanks and the soft hyphen are not seen"
    assert told_apart(["a", "b", "a"]) == ["a", "b", "a"]
    assert told_apart(["n\u00e9g", "pos", "ne\u0301g"]) == [r"'n\xe9g'", "pos", r"'ne\u0301g'"]


def test_standard_output_and_messages_show_them(capsys: pytest.CaptureFixture[str]) -> None:
    with printing():
        print("a", OBEYED, file=sys.stdout)
        sys.stdout.writelines([OBEYED, "\n"])
        assert sys.stdout.isatty() is False
    assert not isinstance(sys.stdout, Printable)
    say(OBEYED)
    progress.log_to_stderr()
    logging.getLogger("optkit").warning("model %s", OBEYED)
    out, err = capsys.readouterr()
    assert out == f"a {SHOWN}\n{SHOWN}\n"
    assert err.splitlines()[0] == SHOWN
    assert err.splitlines()[1].endswith(f"model {SHOWN}")


def test_tables_show_them() -> None:
    made = table(["name"], left=("name",))
    made.add_row("label \x1b]0;x\x07")
    assert r"label \x1b]0;x" in plain(made, "and \x1b[2J")
    assert r"and \x1b[2J" in plain(made, "and \x1b[2J")


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", "\n", "＝"])
def test_no_cell_is_a_formula(begin: str) -> None:
    shown = cell(f'{begin}HYPERLINK("http://x","y")')
    assert isinstance(shown, str)
    assert shown.startswith(f"'{escaped(begin)}")


@pytest.mark.parametrize("value", [-1.5, 3, True, "a=b", "1-2", "", None])
def test_other_cells_stay(value: object) -> None:
    assert cell(value) is value


def test_a_stream_counts_what_it_was_given() -> None:
    below = io.StringIO()
    assert printable.Printable(below).write("\x1b") == 1
    assert below.getvalue() == r"\x1b"
