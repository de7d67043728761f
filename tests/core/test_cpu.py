"""What the flags of a CPU mean."""

import pytest

from optkit.core import cpu


@pytest.mark.parametrize(
    ("flags", "saturates"),
    [
        (("avx2",), True),
        (("avx2", "avx512f", "avx512_bf16"), True),
        (("avx2", "avx_vnni"), False),
        (("avx2", "avx512f", "avx512_vnni"), False),
        (("asimddp", "i8mm"), False),
        (("asimddp",), False),
        ((), False),
    ],
)
def test_int8_saturates_on_x86_without_vnni(flags, saturates, monkeypatch):
    monkeypatch.setattr(cpu, "cpu_features", lambda: flags)
    assert cpu.int8_saturates() == saturates
