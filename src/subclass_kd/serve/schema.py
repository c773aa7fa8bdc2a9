"""What goes over the wire, as OpenAPI describes it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from subclass_kd.errors import UserError

NOTICE = "For research; not a medical device."


class Fault(BaseModel):
    """What is wrong, as every message of this project says it."""

    where: str = Field(description="The file, header or part of the request.")
    found: str
    expected: str
    remedy: str = Field(description="What to do; empty where `expected` says it all.")

    @classmethod
    def of(cls, error: UserError) -> Fault:
        """Give an error's four parts."""
        return cls(where=error.where, found=error.found, expected=error.expected, remedy=error.remedy)


class Probability(BaseModel):
    """Of a class, or of a subclass."""

    name: str
    probability: float = Field(
        description="Calibrated, by answers in 32 bits even where 8 bits answer; 0 to 1, but for rounding."
    )


class SubclassProbability(Probability):
    """Of a subclass; those of a class add up to the class's."""

    model_config = ConfigDict(populate_by_name=True)
    of_class: str = Field(alias="class")


class Prediction(BaseModel):
    """What the student says of one file: an answer, or an error."""

    name: str = Field(description="Of the file, as it came: text of anybody's, to be shown as text.")
    decision: str | None = Field(description="A class; null if there is an error.")
    confidence: float | None = Field(description="The probability of the decision.")
    classes: list[Probability]
    subclasses: list[SubclassProbability] = Field(description="None of a student of classes alone.")
    error: Fault | None


class Predictions(BaseModel):
    """Of all files of a request, in their order. At least one could be read."""

    notice: str = NOTICE
    model_sha256: str
    positive: str
    threshold: float | None = Field(description="Of the positive class; null: the most probable class is decided.")
    predictions: list[Prediction]


class Failure(BaseModel):
    """Why there is no answer."""

    error: Fault
    predictions: list[Prediction] = Field(description="Of status 422: every file, each with its error; else none.")


class Subclass(BaseModel):
    """A subclass and its class."""

    model_config = ConfigDict(populate_by_name=True)
    name: str
    of_class: str = Field(alias="class")


class File(BaseModel):
    """A file of the bundle, as it was made."""

    sha256: str
    bytes: int


class Taken(BaseModel):
    """What the server takes at most."""

    file_bytes: int
    request_bytes: int
    files: int
    pixels: int


class Model(BaseModel):
    """What is stated of the student; see docs/bundle.md. What a bundle does not state is null."""

    notice: str = NOTICE
    version: str = Field(description="Of subclass-kd, which serves.")
    classes: list[str]
    subclasses: list[Subclass] = Field(description="None of a student of classes alone.")
    positive: str
    threshold: float | None
    rule: str | None = Field(description="By which the threshold was chosen.")
    int8: bool = Field(description="Whether the student of 8 bits answers.")
    advice: str | None = Field(
        description="Of the student of 8 bits, by validation images: whether to use it. Null where 32 bits answer."
    )
    model_sha256: str = Field(description="Of the model file that answers.")
    arm: str | None
    seed: int | None
    temperature: float | None = Field(description="Of the calibration, fitted on answers in 32 bits.")
    preprocessing: dict[str, Any]
    files: dict[str, File]
    versions: dict[str, str]
    card: str | None = Field(description="The model card, Markdown.")
    limits: Taken


class Health(BaseModel):
    """The server lives."""

    status: str = "ok"
