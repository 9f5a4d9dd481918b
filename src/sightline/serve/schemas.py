"""Types of the HTTP service's JSON, from which its OpenAPI description is made. Answers are written without them, for speed."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class ClassProbability(BaseModel):
    """Probability of one class."""

    model_config = {"populate_by_name": True}
    name: str = Field(alias="class")
    probability: float


class SimilarImage(BaseModel):
    """Training image that is similar to an upload."""

    path: str
    label: str | None
    distance: float = Field(description="Cosine distance of features, 0 to 2.")
    thumbnail: str = Field(description="A data: URL.")


class Prediction(BaseModel):
    """Prediction of one image, with the fields of `sightline predict --json`; or the error of an image without one."""

    path: str = Field(description="File name in the request.")
    label: str | None = Field(None, description="Predicted class.")
    probability: float | None = Field(None, description="Its probability.")
    probabilities: dict[str, float] | None = None
    top: list[ClassProbability] | None = None
    unsure: bool | None = None
    set: list[str] | None = Field(None, description="Prediction set.")
    coverage: float | None = Field(None, description="Probability with which the set contains the true class.")
    ood_score: float | None = Field(None, description="Cosine distance from the nearest training images, 0 to 2.")
    ood_threshold: float | None = Field(None, description="An image with a larger score is out-of-distribution.")
    heatmap: str | None = Field(None, description="A data: URL of a PNG image; null if this classifier has no heatmaps.")
    heatmap_method: str | None = Field(None, description="Method of the heatmap; its strongest colour is its own maximum.")
    heatmap_error: str | None = Field(None, description="Why there is no heatmap.")
    covered: dict[str, Any] | None = Field(None, description="Prediction with the region covered, as in `explain --json`.")
    similar: list[SimilarImage] | None = None
    error: str | None = None
    kind: str | None = Field(None, description="Kind of the error, such as `not an image`, `too large` or `truncated`.")


class Predictions(BaseModel):
    """Predictions of all images of a request, in their order."""

    model: str
    predictions: list[Prediction]


class Error(BaseModel):
    """Reason why a request failed."""

    error: str
    hint: str | None = None


class Health(BaseModel):
    """State of the service."""

    status: str
    models: list[str]


class ModelCard(BaseModel):
    """Served classifier."""

    model: str
    models: list[str] = Field(description="Names of all served classifiers.")
    classes: list[str]
    methods: dict[str, str] = Field(description="Methods of heatmaps: name and title.")
    card: dict[str, Any] = Field(description="Card of the classifier, as stored in its file.")
