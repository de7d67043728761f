"""Settings that nothing reads unless others have some value: said once for each, for who makes a stage and who draws one."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ReadWhere:
    """What has to hold for a setting of a stage to be read."""

    others: tuple[str, ...]
    """Names of the settings that it depends on."""
    holds: Callable[[Any], bool]
    """Whether it holds for a stage."""
    otherwise: str
    """What is the case if it does not."""


ANSWERED = ReadWhere(("epochs", "steps"), lambda stage: stage.answers, "no answers are trained, for want of epochs or steps")
FOLLOWED = ReadWhere(
    ("representation_epochs", "representation_steps"), lambda stage: stage.follows, "there is no representation phase"
)
TRAINED = ReadWhere(
    ANSWERED.others + FOLLOWED.others,
    lambda stage: stage.trains,
    "nothing is trained, for want of epochs or steps",
)
TAUGHT = ReadWhere(
    (*ANSWERED.others, "teacher", "label_weight"),
    lambda stage: stage.answers and stage.teacher is not None and stage.label_weight < 1,
    "no answers are trained beside a teacher",
)
TRAINING: Mapping[str, ReadWhere] = {
    "learning_rate": ReadWhere(
        (*ANSWERED.others, "learning_rates"),
        lambda stage: stage.answers and not stage.learning_rates,
        "no answers are trained by it: epochs or steps are 0, or learning_rates go in its place",
    ),
    "learning_rates": ANSWERED,
    "warmup_ratio": TRAINED,
    "schedule": TRAINED,
    "ema": TRAINED,
    "dropout": TRAINED,
    "teacher": ReadWhere(
        (*TRAINED.others, "label_weight"),
        lambda stage: stage.heeds_teacher,
        "nothing is trained beside it: there are no epochs or steps, or the labels have all the weight",
    ),
    "temperature": TAUGHT,
    "label_weight": ReadWhere(
        ANSWERED.others,
        lambda stage: stage.answers and (stage.teacher is not None or stage.label_weight == 1),
        TAUGHT.otherwise,
    ),
    "representation_learning_rate": FOLLOWED,
    "hidden_weight": FOLLOWED,
    "relation_weight": FOLLOWED,
    "relation_heads": ReadWhere(
        (*FOLLOWED.others, "relation_weight"),
        lambda stage: stage.follows and stage.relation_weight > 0,
        "no relations are followed",
    ),
    "augment": TRAINED,
}
"""Settings of a stage that trains."""


def depth(conditions: Mapping[str, ReadWhere], setting: str) -> int:
    """Return how many settings have to be known, one after the other, before it is known whether one is read."""
    own = conditions.get(setting)
    return 1 + max(depth(conditions, other) for other in own.others) if own else 0
