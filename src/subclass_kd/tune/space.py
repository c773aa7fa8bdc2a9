"""What a trial may draw, and who draws it: the same for every arm, as far as it concerns the arm."""

from __future__ import annotations

from typing import Any

import optuna

from subclass_kd.build import derived_seed
from subclass_kd.config import Own, Range, Tune, tuned_by

BY_FACTORS = ("learning_rate", "temperature")  # drawn evenly on a logarithmic scale
DIGITS = 3  # that count: what a person reads in best.yaml is what was tried


def suggest(trial: optuna.Trial, arm: str, space: Tune) -> Own:
    """Draw the settings that concern an arm, or give those that the trial has already."""
    drawn: dict[str, Any] = {}
    for name in tuned_by(arm):
        allowed = getattr(space, name)
        if not isinstance(allowed, Range):
            drawn[name] = trial.suggest_categorical(name, allowed)
        elif allowed.choices:
            drawn[name] = trial.suggest_categorical(name, allowed.choices)
        else:
            low, high = allowed.ends
            drawn[name] = float(f"{trial.suggest_float(name, low, high, log=name in BY_FACTORS):.{DIGITS}g}")
    return Own(**drawn)


def make_sampler(mark: str, arm: str, number: int, trials: int) -> optuna.samplers.BaseSampler:
    """Give what draws for one trial: random at first, then a tree-structured Parzen estimator.

    Bergstra et al. 2011, Algorithms for hyper-parameter optimization,
    https://papers.nips.cc/paper/4443-algorithms-for-hyper-parameter-optimization. Its seed is the trial's: a search by
    one process is repeatable, and no two processes draw the same.

    Args:
        mark: of the search.
        arm: whose trial.
        number: of the trial in its arm.
        trials: that the arm will have.
    """
    startup = min(10, max(3, trials // 3))
    seed = derived_seed("tune", mark, arm, number)
    return optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup, constant_liar=True)


def make_pruner(epochs: int) -> optuna.pruners.BasePruner:
    """Give what ends a trial whose best so far is below the median of others at the same epoch of the same seed."""
    return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=max(1, epochs // 3))
