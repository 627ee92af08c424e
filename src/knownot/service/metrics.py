"""Counts and histograms in the text format of Prometheus; in seconds, and `_total` where only ever more."""

from __future__ import annotations

from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

MEDIA = "text/plain; version=0.0.4; charset=utf-8"
P_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Of one service. No label has more values than there are routes, models, or classes of a model."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "knownot_requests_total", "Requests answered.", ("method", "route", "status"), registry=registry
        )
        self.seconds = Histogram(
            "knownot_request_seconds", "From a request's head to its answer's end.", ("route",), buckets=SECONDS,
            registry=registry,
        )  # fmt: skip
        self.under_way = Gauge("knownot_requests_under_way", "Requests not answered yet.", registry=registry)
        self.batches = Histogram(
            "knownot_batch_images", "Images of a forward pass.", ("model",), buckets=BATCHES, registry=registry
        )
        self.verdicts = Counter(
            "knownot_verdicts_total", "Images by verdict; class: of the classifier, for known and unknown ones alike.",
            ("model", "status", "class"), registry=registry,
        )  # fmt: skip
        self.p_values = Histogram(
            "knownot_p_value", "p-values of readable images; known ones alone are spread evenly.", ("model",),
            buckets=P_BUCKETS, registry=registry,
        )  # fmt: skip
        self.queue = Gauge("knownot_queue_images", "Images that wait.", ("model",), registry=registry)
        self.reloads = Counter(
            "knownot_reloads_total", "Changed files: taken or refused.", ("model", "outcome"), registry=registry
        )
        self.model = Gauge(
            "knownot_model_info", "1 for the classifier in service.", ("model", "digest", "alpha"), registry=registry
        )

    def batch(self, model: str, images: int) -> None:
        self.batches.labels(model).observe(images)

    def answered(self, model: str, row: dict[str, Any]) -> None:
        """One verdict."""
        self.verdicts.labels(model, row["status"], row["closed_class"]).inc()
        if row["p_value"] is not None:
            self.p_values.labels(model).observe(row["p_value"])

    def in_service(self, model: str, digest: str, alpha: float, before: str | None = None) -> None:
        """A model's classifier is this one now. before: the digest of the one that it takes the place of."""
        if before is not None:
            self.model.remove(model, before[:16], f"{alpha:g}") if before == digest else self._forget(model)
        self.model.labels(model, digest[:16], f"{alpha:g}").set(1)

    def _forget(self, model: str) -> None:
        for metric in list(self.model.collect()):
            for sample in metric.samples:
                if sample.labels["model"] == model:
                    self.model.remove(model, sample.labels["digest"], sample.labels["alpha"])

    def text(self) -> bytes:
        return generate_latest(self.registry)
