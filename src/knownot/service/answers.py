"""What the service says, for the OpenAPI document: the words of `Verdict` and of `knownot info`."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field


class TopClass(BaseModel):
    class_name: str
    probability: float


class NearestKnown(BaseModel):
    class_name: str
    likeness: float = Field(description="Cosine of the two images' features.")
    image: str = Field(description="A thumbnail, as a data: URI.")


class Why(BaseModel):
    top: list[TopClass] = Field(description="The classifier's classes, most probable first.")
    members: dict[str, float] = Field(description="The p-value of each detector that takes part.")
    nearest: list[NearestKnown] = Field(description="The known images that are most alike to the classifier.")


class VerdictOut(BaseModel):
    """For one image."""

    id: str = Field(description="The file's name, the id that was given, or # and the number in the request.")
    status: Literal["known", "unknown", "unreadable"]
    label: int = Field(description="The classifier's class, -1 for unknown and unreadable.")
    class_name: str = Field(description='Its name; "unknown" for unknown, "" for unreadable.')
    p_value: float | None = Field(description="Share of known images that look at least as unknown.")
    score: float | None = Field(description="The detector's; larger is more unknown.")
    closed_label: int = Field(description="What the classifier alone says.")
    closed_class: str
    confidence: float | None = Field(description="Its softmax probability.")
    error: str | None = Field(description="Why the image could not be read.")
    explanation: Why | None = Field(None, description="With ?explain=1, of readable images.")


class PredictOut(BaseModel):
    model: str
    digest: str = Field(description="Of all that decided these verdicts: the same for all of them.")
    alpha: float = Field(description="The share of known images that may be rejected.")
    p_threshold: float = Field(description="An image is unknown when its p-value is at most this.")
    promise: str
    verdicts: list[VerdictOut] = Field(description="One for each image, in the order of the request.")


class RuleOut(BaseModel):
    alpha: float
    p_threshold: float
    promise: str


class ModelOut(BaseModel):
    name: str
    digest: str
    kind: str
    classes: list[str]
    added_classes: list[str] = Field(description="Those of them that were added from a handful of images.")
    alpha: float
    guarantee: str
    delta: float
    p_threshold: float
    promise: str
    calibration_images: int
    rules: list[RuleOut] = Field(description="Thresholds under other alphas, from the same calibration images.")
    detector: str
    members: list[str]
    accuracy: float | None
    accuracy_images: int | None
    preprocessing: dict[str, Any] | None
    classifier: str | None
    fingerprint: str | None
    notes: list[str]
    loaded: str
    modified: str
    refused: str | None = Field(description="Why a newer version of its files was refused.")


class LimitsOut(BaseModel):
    max_body: int = Field(description="Bytes of a request.")
    max_images: int = Field(description="Images of a request.")
    max_pixels: int = Field(description="Pixels of an image.")


class ModelsOut(BaseModel):
    default: str = Field(description="The model that answers when none is named.")
    models: list[ModelOut]
    limits: LimitsOut
    examples: int = Field(description="Images at /v1/examples, to try.")
    streams: int = Field(description="Streams at /v1/streams, that are watched.")


class ExamplesOut(BaseModel):
    examples: list[str]


class StateOut(BaseModel):
    status: str
    version: str


class StreamsOut(BaseModel):
    streams: list[str]


class StreamOut(BaseModel):
    name: str
    model: str = Field(description="The classifier in service that the stream is of.")
    images: int
    unknown: int
    unreadable: int
    alarms: list[dict[str, Any]]
    html: str
