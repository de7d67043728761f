"""Settings that contradict themselves, the graph or the card are refused, each with what was found and the fix."""

import pytest

from optkit.core.errors import InputError, MachineError
from optkit.core.gpu import Gpu
from optkit.engines.tensorrt.profiles import GIB, Options, Profile, Settings

CARD = Gpu("A100", (8, 0), 80 * GIB, 2 * GIB, "580.65.06", (13, 0))


@pytest.mark.parametrize("batch", [(8, 1, 64), (0, 1, 2), (1, 64, 8), (1, 2)])
def test_a_profile_that_contradicts_itself(batch):
    with pytest.raises(InputError, match=rf"batch {', '.join(map(str, batch))}: expected 1 <= smallest <= best <= largest"):
        Profile(batch)


def test_both_halves_of_a_profile_are_reported():
    with pytest.raises(InputError, match=r"batch 2, 1, 1: .*; sequence 9, 8, 7: "):
        Profile((2, 1, 1), (9, 8, 7))


def test_a_profile_takes_the_graphs_length_and_not_more():
    assert Profile().for_graph(384).sequence == (1, 128, 384)
    assert Profile().for_graph(32).shapes() == ((1, 1), (8, 32), (64, 32))
    with pytest.raises(InputError, match="up to 512 tokens, but the graph has positions for 384"):
        Profile(sequence=(1, 128, 512)).for_graph(384)


def test_all_wrong_settings_are_reported():
    with pytest.raises(InputError, match=r"profiles: none.*workspace_bytes: found 0.*hardware: found 'all'.*level: found 9"):
        Settings(profiles=(), workspace_bytes=0, hardware="all", optimization_level=9)


def test_a_workspace_beyond_the_cards_memory():
    Settings(workspace_bytes=GIB).check_memory(CARD)
    with pytest.raises(MachineError, match=r"A100 has 2\.0 GiB free of 80\.0, .* take 4\.0 GiB.*--workspace-mb"):
        Settings(workspace_bytes=4 * GIB).check_memory(CARD)


def test_options_of_the_command_line():
    given = {"batch": "1,1,1/1,8,64", "sequence": "1,64,128", "workspace_mb": "512", "sparse": "true"}
    found = Options.parse("tensorrt", given).settings()
    assert found.profiles == (Profile((1, 1, 1), (1, 64, 128)), Profile((1, 8, 64), (1, 64, 128)))
    assert (found.workspace_bytes, found.sparse, found.hardware) == (512 << 20, True, "none")
    assert Options.parse("tensorrt", {}).settings() == Settings()


@pytest.mark.parametrize("text", ["1,2", "a,b,c", "", "1,2,3/4"])
def test_shapes_that_are_no_three_numbers(text):
    with pytest.raises(InputError, match=r"--batch .*: expected three numbers, such as 1,8,64"):
        Options(batch=text)


def test_profiles_that_do_not_pair_up():
    with pytest.raises(InputError, match="--batch has 2 profiles, --sequence 3"):
        Options(batch="1,1,1/1,8,8", sequence="1,1,1/1,2,2/1,3,3")


def test_the_timing_cache_decides_nothing_about_the_result(tmp_path):
    assert Settings(timing_cache=tmp_path / "a").as_dict() == Settings().as_dict()
