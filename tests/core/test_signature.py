"""What is written down of who did something, and when."""

import getpass

import pytest

from optkit.core.signature import now, who


def test_times_are_utc() -> None:
    assert now().endswith("+00:00") and len(now()) == 25


def test_a_user_without_a_name_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert who().partition("@")[0].isdecimal()
