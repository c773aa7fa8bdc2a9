"""The database that the machines of a search share: SQLite for one machine, PostgreSQL or MySQL for several."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.event import listens_for
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from subclass_kd.errors import UserError
from subclass_kd.tune.space import make_pruner

GRACE = 60  # seconds without a word after which a process is believed dead; it speaks six times as often
ATTEMPTS = 3  # at a database in which another process may just make the tables
# What the extra [tune] brings for a database that is named without its driver.
DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
_PLAIN = re.compile(r"[\w./\\ -]*")  # a path or a word, and no URL with a password
WANTED = "a URL such as sqlite:////shared/tune.db or postgresql://user:password@host/name"
TAKEN = (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)

optuna.logging.set_verbosity(optuna.logging.ERROR)


def open_storage(url: str, grace: int = GRACE) -> optuna.storages.RDBStorage:
    """Connect to a database, and make Optuna's tables in it if they are not there.

    Args:
        url: of SQLite, PostgreSQL or MySQL; others that SQLAlchemy knows may do.
        grace: seconds without a word after which a process that has a trial is believed dead.

    Raises:
        UserError: it is no URL of a database, its driver is not installed, or nothing answers there.
    """
    parsed = _parse(url)
    # Without the password, which some drivers take from the query too.
    shown = f"--storage {parsed.set(query={}).render_as_string()}"
    is_file = parsed.get_backend_name() == "sqlite"
    options: dict[str, Any] = {"connect_args": {"timeout": 60}} if is_file else {"pool_pre_ping": True}
    for attempt in range(ATTEMPTS):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                opened = optuna.storages.RDBStorage(
                    parsed.render_as_string(hide_password=False),
                    engine_kwargs=options,
                    heartbeat_interval=max(1, grace // 6),
                    grace_period=grace,
                    heartbeat_stale_trial_callback=again,
                )
            if is_file:
                _take_turns(opened.engine)
            return opened
        except ImportError as error:
            found, remedy = f"no driver for it ({error.__cause__ or error})", "pip install 'subclass-kd[tune]'."
            raise UserError(shown, found, "SQLite, PostgreSQL or MySQL", remedy) from None
        except SQLAlchemyError as error:
            if attempt + 1 == ATTEMPTS:
                found = f"no database that answers ({str(error).splitlines()[0]})"
                raise UserError(shown, found, WANTED, "Is it running, and may this user write there?") from None
            time.sleep(1)
    raise AssertionError


def _parse(url: str) -> URL:
    """Read a database's URL, or refuse it and repeat only what can hold no password.

    Raises:
        UserError: it is none.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):  # the latter for a port that is no number
        found = (
            f'"{url}"' if _PLAIN.fullmatch(url) else "no such URL (not repeated here: there may be a password in it)"
        )
        raise UserError("--storage", found, WANTED) from None
    if "@" in (parsed.host or ""):
        found = "a password with an @ in it (not repeated here)"
        raise UserError("--storage", found, "%40 in its place", "Write / : and % there as %2F, %3A and %25 too.")
    return parsed.set(drivername=DRIVERS.get(parsed.drivername, parsed.drivername))


def _take_turns(engine: Engine) -> None:
    """Let a transaction lock SQLite's file from its beginning.

    Optuna reads that a trial waits and then writes that it is taken. SQLite knows no lock of a row, and Python's driver
    begins a transaction at the first write: two processes would read the same, and both take that trial.
    """
    listens_for(engine, "connect")(lambda connection, _: setattr(connection, "isolation_level", None))
    listens_for(engine, "begin")(lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    engine.dispose()  # connections that are open begin in the old way


def open_study(storage: optuna.storages.RDBStorage, mark: str, arm: str, epochs: int) -> optuna.Study:
    """Give an arm's trials, by whichever machine, in which larger is better; none at first.

    Args:
        storage: of :func:`open_storage`.
        mark: of the search.
        arm: whose trials.
        epochs: of a training.
    """
    return optuna.create_study(
        study_name=f"skd {mark} {arm}",
        storage=storage,
        direction="maximize",
        load_if_exists=True,
        pruner=make_pruner(epochs),
    )


def again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue a trial that ended in the middle, with what it had drawn; whoever takes it goes on from its checkpoint."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.storages.RetryHeartbeatStaleTrialCallback()(study, trial)


def queue_the_dead(studies: Sequence[optuna.Study], seen: set[int]) -> None:
    """Queue the trials of processes that have not been heard of.

    Args:
        studies: of all arms.
        seen: identities of the running trials that this process has met; those it meets for the first time are added.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for study in studies:
            optuna.storages.fail_stale_trials(study)
            # Optuna takes for dead only who has spoken once: a process that is killed between taking a trial and its
            # first word would be waited for without end. So whoever first meets a trial says that word for it.
            for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                if trial._trial_id not in seen:
                    seen.add(trial._trial_id)
                    study._storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]


def count(study: optuna.Study, *states: TrialState) -> int:
    """Count trials in these states."""
    return len(study.get_trials(deepcopy=False, states=states))


def is_surplus(study: optuna.Study, number: int, trials: int) -> bool:
    """Say whether a trial that began is one too many: several processes may have taken the last one at once.

    One before it that waits is an interrupted one, which will be taken too.
    """
    states = (*TAKEN, TrialState.WAITING)
    before = [each for each in study.get_trials(deepcopy=False, states=states) if each.number < number]
    return len(before) >= trials


def lost(call: Callable[[], Any]) -> Any:
    """Make a call, and tell of a database that is gone as the user's to mend.

    Raises:
        UserError: the database does not answer.
    """
    try:
        return call()
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, UnboundLocalError) as error:
        cause = _of_database(error)
        if isinstance(error, UnboundLocalError) and cause is None:
            raise
        found = f"a database that was there and does not answer ({str(cause or error).splitlines()[0]})"
        raise UserError("--storage", found, "one that stays", "Mend that and give the same command again.") from None


def _of_database(error: BaseException | None) -> SQLAlchemyError | None:
    """Give what the database itself said, behind what Optuna made of it: a guess at bad data, or an error of its own.

    Optuna 5 ends a trial that it cannot read any more by a variable that nothing was assigned to.
    """
    while error is not None and not isinstance(error, SQLAlchemyError):
        error = error.__cause__ or error.__context__
    return error
