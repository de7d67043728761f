"""What is said about a model needs one."""

import pytest

from optkit.core.errors import InputError
from optkit.models.model_settings import ModelSettings


@pytest.mark.parametrize(("option", "given"), [("--revision", {"revision": "v1"}), ("--labels", {"labels": ("a", "b")})])
def test_what_is_said_about_no_model(
    option: str,
    given: dict,
) -> None:
    assert ModelSettings("m", **given).source == "m"
    with pytest.raises(InputError, match=rf"^{option}: is about a model, and none is given\. Fix: --model MODEL$"):
        ModelSettings(**given)
