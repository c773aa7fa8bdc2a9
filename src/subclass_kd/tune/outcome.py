"""What a search leaves: tune.json, all trials; best.yaml, a study of the best values; tune.svg, what mattered."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.trial import FrozenTrial, TrialState

from subclass_kd.config import Own, Study, tuned_by
from subclass_kd.errors import UserError
from subclass_kd.files import whole, write_json
from subclass_kd.tune.plot import draw
from subclass_kd.tune.storage import ENDED
from subclass_kd.tune.trial import judged_seeds

BEST, OUTCOME, PLOT = "best.yaml", "tune.json", "tune.svg"
FEWEST = 4  # trials that tell what mattered


def write_outcome(study: Study, studies: Mapping[str, optuna.Study], data: dict[str, Any], out: Path) -> dict[str, Any]:
    """Write what was found, and give what tune.json holds.

    Args:
        study: what was tuned.
        studies: each arm's trials.
        data: classes, subclasses and counts.
        out: the folder.

    Raises:
        UserError: no trial of an arm came to its end.
    """
    idle: Any = {"workers": True, "track": True, "data": {"store_limit"}, "teacher": {"shard"}}
    outcome: dict[str, Any] = {
        "schema": 1,
        "study": study.model_dump(mode="json", exclude=idle),
        "data": data,
        "seeds": judged_seeds(study),
        "arms": {arm: _arm(arm, each, study.tune.trials) for arm, each in studies.items()},
    }
    write_json(out / OUTCOME, outcome)
    _write_best(study, outcome, out / BEST)
    with whole(out / PLOT) as temporary:
        temporary.write_text(draw(outcome), "utf-8")
    return outcome


def _arm(arm: str, study: optuna.Study, most: int) -> dict[str, Any]:
    """Give what an arm's first trials found.

    Of more trials than another arm has, as where tune.trials was lowered, the best would be better by number alone.
    """
    ended = study.get_trials(deepcopy=False, states=ENDED)
    trials = ended[:most]  # they are in order of their numbers
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if not ended:  # the processes end when every arm has its trials: they had another database
        found = f"no trial of {arm}, though every process of the search has ended"
        remedy = "Give PostgreSQL or MySQL: a file of SQLite is for processes of one machine."
        raise UserError("--storage", found, "a database that every machine reaches", remedy)
    if not complete:
        remedy = "Lower tune.learning_rate.high, or give more trials."
        raise UserError(f'key "tune", arm {arm}', f"{len(trials)} trials, all given up", "one that ends", remedy)
    best = max(complete, key=lambda trial: (trial.value or 0.0, -trial.number))
    return {
        "trials": len(trials),
        "left_out": len(ended) - len(trials),
        "pruned": len(trials) - len(complete),
        "best": _trial(best),
        "importance": _importance(arm, complete),
        "all": [_trial(trial) for trial in trials],
    }


def _trial(trial: FrozenTrial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "pruned": trial.state == TrialState.PRUNED,
        "epochs": max(trial.intermediate_values, default=0),
        "validation_f1": trial.value,
        "settings": trial.user_attrs.get("settings", {}),
        "by": trial.user_attrs.get("by"),
        "went_on_from": trial.system_attrs.get("retry_history", []),
        "seconds": trial.duration.total_seconds() if trial.duration else None,
    }


def _importance(arm: str, complete: list[FrozenTrial]) -> dict[str, float] | None:
    """Share out over the settings what made trials better; None where too few trials tell.

    Watanabe, Bansal, Hutter 2023, PED-ANOVA, https://arxiv.org/abs/2304.10255.
    """
    drawn = [name for name in tuned_by(arm) if len({trial.params.get(name) for trial in complete}) > 1]
    if len(complete) < FEWEST or not drawn or len({trial.value for trial in complete}) == 1:
        return None
    if len(drawn) == 1:
        return {drawn[0]: 1.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(direction="maximize")  # of these alone
        study.add_trials(complete)
        found = optuna.importance.get_param_importances(study, params=drawn)
    return {name: float(found[name]) for name in drawn}


def _write_best(study: Study, outcome: dict[str, Any], path: Path) -> None:
    """Write the study with each arm's best values in ``per_arm``; what is as by default is left out."""
    best = {arm: row["best"] for arm, row in outcome["arms"].items()}
    found = study.model_copy(update={"per_arm": {arm: Own(**each["settings"]) for arm, each in best.items()}})
    content = found.model_dump(mode="json", exclude_defaults=True, exclude={"tune", "workers", "track"})
    content["per_arm"] = {arm: own.model_dump(mode="json", exclude_none=True) for arm, own in found.per_arm.items()}
    rows = [
        f"#   {arm}: {100 * each['validation_f1']:.1f} %, the best of {outcome['arms'][arm]['trials']} trials"
        for arm, each in best.items()
    ]
    seeds = len(outcome["seeds"])
    head = [
        "# Written by skd tune: of each arm the trial with the best F1 on the validation split,",
        f"# the mean over {seeds} seed{'s' * (seeds > 1)}:",
        *rows,
        "# The best of many flatters itself. What the arms are worth, on the test split: skd run this file.",
        "",
    ]
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    with whole(path) as temporary:
        temporary.write_text("\n".join(head) + text, "utf-8")
