"""A study as the user writes it: every key, its range and its default.

Nothing here imports torch, so that a wrong study is refused at once.
"""

from __future__ import annotations

import json
import re
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from subclass_kd import passwords
from subclass_kd.arms import ARMS

MOST_SEEDS = 1000  # a slip of the finger must not fill the memory

ArmName = Literal["scratch", "subclass-labels", "soft-votes", "kd", "kd-collapsed", "skd", "skd-shuffled"]
HardTarget = Literal["subclass", "class"]
HARD_TARGETS: tuple[HardTarget, ...] = ("subclass", "class")
TrackerName = Literal["tensorboard", "mlflow", "wandb"]
ColumnName = Literal["path", "class", "subclass", "split", "group", "weight", "difficulty"]
PATTERN_GROUPS = ("class", "subclass", "split", "group")
VOTED = ("mhist", "lidc-votes")  # kinds of data that bring annotators' votes
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Url = Annotated[str, Field(pattern=r"^[a-z][a-z0-9+.-]*://")]  # of a store that fsspec knows


class Section(BaseModel):
    """A group of keys; unknown ones are refused, and nothing changes after reading.

    Strict: ``epochs: true`` is no 1 and ``epochs: "5"`` no 5.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Data(Section):
    """Which images, and how many of them."""

    kind: Literal["fashion-mnist", "lidc-votes", "folder", "table", "mhist", "webdataset"] = "fashion-mnist"
    root: Url | Annotated[Path, Field(strict=False)] | None = Field(None, description="folder of the images")
    unlabelled: Path | None = Field(None, strict=False, description="folder of images without labels, for a teacher")
    table: Path | None = Field(None, strict=False, description="CSV, TSV, Parquet or Excel file, for kind: table")
    columns: dict[ColumnName, str | None] = Field(
        default_factory=dict, description="what the table's columns are called; null of one not to be used"
    )
    pattern: list[str] = Field(
        default_factory=list, description="regular expressions on file names, with / on paths; first match wins"
    )
    size: int | None = Field(None, ge=8, le=1024, description="height and width in pixels; as stored if not given")
    channels: Literal[1, 3] | None = Field(None, description="1 grey, 3 colour; as stored if not given")
    white: int = Field(65535, ge=255, le=65535, description="grey value of 16-bit images that is white")
    store_limit: float = Field(50.0, ge=0, allow_inf_nan=False, description="largest store of decoded images, in GB")
    train_images: int | None = Field(None, ge=4, description="use so many training images, drawn by subclass")
    validation: float = Field(0.2, ge=0.02, le=0.5, description="share of the training images that chooses epochs")
    test: float = Field(0.2, ge=0.02, le=0.5, description="share of the images that tests, where no split is given")
    folds: int | None = Field(None, ge=2, le=20, description="split all images into so many parts that test in turn")
    fold: int | None = Field(None, ge=0, description="the one part that tests; each in turn if not given")

    @field_validator("root", "unlabelled", "table", mode="before")
    @classmethod
    def _without_a_password(cls, value: Any) -> Any:
        if passwords.holds_password(str(value)):
            raise PydanticCustomError("password", passwords.EXPECTED)
        return value

    @field_validator("pattern", mode="before")
    @classmethod
    def _one_to_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, value: list[str]) -> list[str]:
        for pattern in value:
            try:
                groups = set(re.compile(pattern).groupindex)
            except (re.error, OverflowError) as error:
                raise ValueError(f"a regular expression ({error})") from None
            if not groups or groups - set(PATTERN_GROUPS):
                raise ValueError(f"named groups, (?P<NAME>\u2026), of {', '.join(PATTERN_GROUPS)}")
        return value

    @field_validator("fold")
    @classmethod
    def _fold_is_there(cls, value: int | None, info: ValidationInfo) -> int | None:
        folds = info.data.get("folds") or 1
        if value is not None and value >= folds:
            expected = f"0 to {folds - 1}, one of {folds} folds" if folds > 1 else "0, or data.folds beside it"
            raise ValueError(expected)
        return value


class Votes(Section):
    """Where annotators' votes stand in the table, and how they become classes and subclasses."""

    column: str | None = Field(None, description="column with the count of positive votes")
    annotators: int | str | None = Field(None, description="how many annotators, or the column that says so")
    columns: list[str] = Field(default_factory=list, description="one column an annotator, instead of a count")
    positive: list[str] = Field(default_factory=list, description="labels in these columns that are positive votes")
    classes: list[str] = Field(
        default_factory=lambda: ["negative", "positive"],
        min_length=2,
        max_length=2,
        description="names of the two classes",
    )
    tie: Literal["drop", "positive", "negative"] = "drop"
    subclasses: Literal["each", "pairs"] | list[Annotated[float, Field(gt=0.5, le=1)]] = "each"


class Curriculum(Section):
    """Easy images first: cumulative stages, at the same number of steps."""

    by: Literal["agreement", "difficulty"] = "agreement"
    stages: int = Field(4, ge=2, le=100)
    teacher: bool = False
    student: bool = False

    @property
    def active(self) -> bool:
        """Whether anybody follows it."""
        return self.teacher or self.student


class Network(Section):
    """A network and how it is trained."""

    model: str
    pretrained: bool = False
    options: dict[str, Any] = Field(default_factory=dict, description="keyword arguments for the model")
    epochs: int = Field(ge=1, le=100_000)
    batch_size: int = Field(64, ge=4)
    learning_rate: Positive
    weight_decay: float = Field(0.01, ge=0, allow_inf_nan=False)
    compile: bool = Field(False, description="train what torch.compile makes of it")
    size: int | None = Field(None, ge=8, le=1024, description="height and width that it sees, if other than the data's")

    @field_validator("options")
    @classmethod
    def _plain(cls, value: dict[str, Any]) -> dict[str, Any]:
        """A date or a set would fit no study.json."""
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError):
            raise ValueError("text, finite numbers, true, false, null, and lists and keys of these") from None
        return value


class Teacher(Network):
    """What learns first; one for subclasses, one for classes, of the same form: a network, or the mean of several."""

    model: str = "small:resnet"
    epochs: int = Field(20, ge=1, le=100_000)
    learning_rate: Positive = 1e-2
    members: int = Field(1, ge=1, le=20, description="networks whose mean probability is the teacher's answer")
    cross_fit: bool = Field(False, description="targets of an image come from a member that did not train on it")
    shard: bool = Field(False, description="with --devices each holds a share of its weights; changes no result")

    @field_validator("cross_fit")
    @classmethod
    def _has_members_to_take_turns(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("members") == 1:
            raise ValueError("false, or teacher.members of at least 2 beside it")
        return value


class Student(Network):
    """The network to deploy."""

    model: str = "small:convnet"
    epochs: int = Field(40, ge=1, le=100_000)
    learning_rate: Positive = 1e-2


class Distillation(Section):
    """What passes from teacher to student."""

    temperature: float = Field(1.0, ge=0.05, le=100)
    alpha: float = Field(0.9, ge=0, le=1, description="weight of the teacher; 1 - alpha is the labels'")
    hard_target: Literal["subclass", "class"] = "subclass"
    views: Literal["online"] | Annotated[int, Field(ge=1, le=1000)] = Field(
        8, description="fixed augmentations of each training image, or fresh ones with the teacher in the loop"
    )
    within_class: float = Field(
        1.0, ge=0, le=10, description="weight, in the teacher's part, of what is said of the subclasses inside a class"
    )

    unlabelled: bool = Field(
        False, description="also show what data.train_images leaves out, with the teacher's word and no label"
    )

    @property
    def stored(self) -> int | None:
        """How many views have stored targets; None for views that are made and answered online."""
        return None if self.views == "online" else self.views


class Own(Section):
    """What an arm has of its own, in place of what all arms share."""

    learning_rate: Positive | None = Field(None, description="in place of student.learning_rate")
    temperature: float | None = Field(None, ge=0.05, le=100, description="in place of distillation.temperature")
    alpha: float | None = Field(None, ge=0, le=1, description="in place of distillation.alpha")
    hard_target: Literal["subclass", "class"] | None = None


class Range(Section):
    """From where to where a search may draw a number, or which numbers."""

    low: float | None = Field(None, allow_inf_nan=False)
    high: float | None = Field(None, allow_inf_nan=False)
    choices: list[Annotated[float, Field(allow_inf_nan=False)]] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_of_both(self) -> Range:
        given = [number for number in (self.low, self.high) if number is not None]
        if self.choices and given:
            raise ValueError("choices, or low and high")
        if not self.choices and (len(given) < 2 or given[0] >= given[1]):
            raise ValueError("choices, or low and a larger high")
        return self

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the largest number."""
        numbers = self.choices or [number for number in (self.low, self.high) if number is not None]
        return min(numbers), max(numbers)


class Tune(Section):
    """What ``skd tune`` searches, for each arm what concerns it, and how long."""

    trials: int = Field(30, ge=1, le=100_000, description="of each arm")
    seeds: int = Field(2, ge=1, le=MOST_SEEDS, description="the first so many of the study's judge a trial")
    temperature: Range = Range(low=1, high=8)
    alpha: Range = Range(low=0.3, high=1)
    learning_rate: Range = Range(low=0.003, high=0.03)
    hard_target: list[HardTarget] = Field(default_factory=lambda: list(HARD_TARGETS), min_length=1, max_length=2)

    @field_validator("temperature", "alpha", "learning_rate")
    @classmethod
    def _may_stand_in_a_study(cls, value: Range, info: ValidationInfo) -> Range:
        for number in value.ends:
            try:
                Own.model_validate({str(info.field_name): number})
            except ValidationError as error:
                raise ValueError(f"numbers {error.errors()[0]['msg'].removeprefix('Input should be ')}") from None
        return value


class Augment(Section):
    """How a view of an image may differ from the image."""

    flip: bool = Field(True, description="mirror left and right")
    shift: float = Field(0.08, ge=0, le=0.5, description="largest move, as a share of height and width")
    flip_vertical: bool = Field(False, description="mirror top and bottom")
    rotate90: bool = Field(False, description="turn by 0, 90, 180 or 270 degrees")
    crop: float = Field(0.0, ge=0, le=1, description="smallest share of area of a random resized crop; 0 for no crop")
    rotation: float = Field(0.0, ge=0, le=180, description="largest angle, in degrees, either way")
    scale: float = Field(0.0, ge=0, le=0.5, description="enlarge by 1 - scale to 1 + scale")
    shear: float = Field(
        0.0, ge=0, le=45, description="largest angle, in degrees, either way, of columns to the vertical"
    )
    brightness: float = Field(0.0, ge=0, le=1, description="multiply by 1 - brightness to 1 + brightness")
    contrast: float = Field(0.0, ge=0, le=1, description="stretch about the mean by 1 - contrast to 1 + contrast")
    saturation: float = Field(0.0, ge=0, le=1, description="stretch about grey by 1 - saturation to 1 + saturation")
    hue: float = Field(0.0, ge=0, le=0.5, description="largest turn of the hue either way, in turns")
    stain: float = Field(0.0, ge=0, le=0.5, description="haematoxylin, eosin and DAB, each times 1 ± stain and ± stain")
    erasing: float = Field(0.0, ge=0, le=1, description="chance that a rectangle is erased")


class Study(Section):
    """Data, teachers, arms, seeds: all that a run needs to know."""

    data: Data = Data()
    hierarchy: dict[str, list[str]] | None = Field(None, description="class: [subclasses]; found in the data if absent")
    positive: str | None = Field(None, description="the class that F1 speaks of; the last one if not given")
    votes: Votes | None = Field(None, description="annotators' votes; for a table, and to change those of a kind")
    teacher: Teacher = Teacher()
    student: Student = Student()
    distillation: Distillation = Distillation()
    augment: Augment = Augment()
    curriculum: Curriculum = Curriculum()
    per_arm: dict[ArmName, Own] = Field(default_factory=dict, description="what an arm has in place of the above")
    arms: list[ArmName] = Field("all", validate_default=True, min_length=1)
    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(
        default_factory=lambda: list(range(5)), min_length=1, max_length=MOST_SEEDS
    )
    workers: Literal["auto"] | Annotated[int, Field(ge=1)] = "auto"
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    track: list[TrackerName] = Field(default_factory=list, description="who is told of each training, epoch by epoch")
    tune: Tune = Tune()

    def of_arm(self, name: str) -> Study:
        """Give the study with what an arm has of its own in its place.

        >>> Study(per_arm={"skd": Own(temperature=4.0)}).of_arm("skd").distillation.temperature
        4.0
        """
        given = next((own.model_dump(exclude_none=True) for arm, own in self.per_arm.items() if arm == name), None)
        if given is None:
            return self
        student = {key: value for key, value in given.items() if key in Student.model_fields}
        distillation = {key: value for key, value in given.items() if key in Distillation.model_fields}
        return self.model_copy(
            update={
                "student": self.student.model_copy(update=student),
                "distillation": self.distillation.model_copy(update=distillation),
            }
        )

    @field_validator("per_arm")
    @classmethod
    def _concerns_the_arm(cls, value: dict[ArmName, Own]) -> dict[ArmName, Own]:
        for name, own in value.items():
            idle = sorted(own.model_dump(exclude_none=True).keys() - set(tuned_by(name)))
            if idle:
                raise ValueError(f"of {name} {', '.join(tuned_by(name))} alone, not {', '.join(idle)}")
        return value

    @field_validator("seeds", mode="before")
    @classmethod
    def _count_to_list(cls, value: Any) -> Any:
        """``seeds: 5`` means 0, 1, 2, 3, 4."""
        if isinstance(value, list):
            return value
        if type(value) is int and 1 <= value <= MOST_SEEDS:
            return list(range(value))
        raise ValueError(f"a number from 1 to {MOST_SEEDS}, or a list of seeds")

    @field_validator("arms", mode="before")
    @classmethod
    def _all_that_the_data_allow(cls, value: Any, info: ValidationInfo) -> Any:
        """``arms: all`` has soft-votes only where there are votes."""
        if value != "all":
            return value
        data = info.data.get("data")
        voted = info.data.get("votes") is not None or (data is not None and data.kind in VOTED)
        return [name for name in typing.get_args(ArmName) if voted or name != "soft-votes"]

    @field_validator("distillation")
    @classmethod
    def _cross_fitted_targets_are_stored(cls, value: Distillation, info: ValidationInfo) -> Distillation:
        teacher = info.data.get("teacher")
        if teacher is not None and teacher.cross_fit and value.stored is None:
            raise ValueError("views: a whole number from 1 to 1000 beside teacher.cross_fit, whose targets are stored")
        return value

    @field_validator("curriculum")
    @classmethod
    def _every_image_has_a_stage(cls, value: Curriculum, info: ValidationInfo) -> Curriculum:
        distillation = info.data.get("distillation")
        if value.student and distillation is not None and distillation.unlabelled:
            raise ValueError("student: false beside distillation.unlabelled, whose images have no stage")
        return value

    @field_validator("arms", "seeds", "track")
    @classmethod
    def _no_repeats(cls, value: list[Any]) -> list[Any]:
        repeated = sorted({item for item in value if value.count(item) > 1})
        if repeated:
            raise ValueError(f"each at most once, but {', '.join(map(str, repeated))} is repeated")
        return value

    @field_validator("arms")
    @classmethod
    def _in_table_order(cls, value: list[str]) -> list[str]:
        return [name for name in ARMS if name in value]


def tuned_by(arm: str) -> tuple[str, ...]:
    """Name the settings of :class:`Own` that concern an arm.

    >>> tuned_by("scratch"), tuned_by("kd")
    (('learning_rate',), ('learning_rate', 'temperature', 'alpha'))
    """
    if ARMS[arm].teacher is None:
        return ("learning_rate",)
    mixed = ("learning_rate", "temperature", "alpha")
    return (*mixed, "hard_target") if ARMS[arm].outputs == "subclass" else mixed
