"""The charts of the page, each from the numbers of the JSON."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup

from ..plots import Measured, bars, confusion, dots, percent, reliability, scatter

SHOWN = 20  # classes in a picture


def charts(d: dict[str, Any]) -> dict[str, Markup]:
    """{place on the page: chart}; a chart without numbers is left out."""
    made: dict[str, Markup] = {}
    made |= _inputs(d["inputs"])
    if d["probabilities"]["bins"]:
        made["reliability"] = reliability(
            [
                (b["low"], b["high"], b["images"], b["confidence"], measured(b["right"]))
                for b in d["probabilities"]["bins"]
            ],
            name="reliability",
            title="How often the classifier is right, for how sure it is: "
            + "; ".join(
                f"{percent(b['confidence'])} sure, {percent(b['right']['share'])} right"
                for b in d["probabilities"]["bins"]
            ),
        )
    made |= _classes(d["classes"])
    made |= _unknown(d["unknown"])
    made |= _help(d)
    for what in ("pca", "tsne"):
        if d["map"][what]:
            groups = {k: (d["map"]["roles"][k], np.array(v)) for k, v in d["map"][what].items()}
            made[what] = scatter(
                groups, name=what, title=f"Map of {', '.join(f'{len(v[1])} {k}' for k, v in groups.items())}."
            )
    return made


def measured(share: dict[str, Any]) -> Measured:
    value = share["share"] if "share" in share else share["value"]
    if value is None:
        return Measured(0.0, 0.0, 0.0)
    low, high = share["low"], share["high"]
    return Measured(value, value if low is None else low, value if high is None else high)


def _words(rows: dict[str, Measured]) -> str:
    return "; ".join(f"{name} {percent(m.value)}" for name, m in rows.items())


def _inputs(s: dict[str, Any]) -> dict[str, Markup]:
    if len(s["trials"]) < 2:
        return {}
    right = {t["name"]: measured(t["accuracy"]) for t in s["trials"]}
    sure = {t["name"]: measured(t["confidence"]) for t in s["trials"]}
    wrong = s["best"] != s["used"] and s["findings"][0]["severity"] != "ok"
    roles = {s["used"]: "unknown" if wrong else "known"}
    if wrong:
        roles[s["best"]] = "known"
    options: dict[str, Any] = {"role": "unreadable", "roles": roles, "wide": True}
    return {
        "right": bars(right, name="right", label="right", title=f"Accuracy: {_words(right)}.", **options),
        "sure": bars(
            sure,
            name="sure",
            label="mean softmax probability",
            title=f"Mean softmax probability: {_words(sure)}.",
            **options,
        ),
    }


def _classes(s: dict[str, Any]) -> dict[str, Markup]:
    lines = sorted((x for x in s["lines"] if x["images"]), key=lambda x: (x["recall"]["share"], x["name"]))
    if not lines:
        return {}
    rows = {x["name"]: measured(x["recall"]) for x in lines[:SHOWN]}
    made = {"recall": bars(rows, name="recall", role="known", label="recognised", title=f"Recall: {_words(rows)}.")}
    if s["counts"] and len(s["names"]) <= SHOWN:
        made["confusion"] = confusion(
            np.array(s["counts"]), s["names"], name="confusion",
            title="Confusions: " + "; ".join(
                f"{x['true']} taken for {x['said']} {percent(x['share']['share'])}" for x in s["confused"][:5]
            ),
        )  # fmt: skip
    return made


def _unknown(s: dict[str, Any]) -> dict[str, Markup]:
    lines = sorted(s["lines"], key=lambda x: -(x["sure"]["share"] or 0))
    roles = {x["kind"]: {"made": "incoming", "fooling": "fooling", "yours": "unknown"}[x["origin"]] for x in lines}
    rows = {x["kind"]: measured(x["sure"]) for x in lines}
    made = {
        "sureness": bars(
            rows, name="sureness", roles=roles, label="≥ 0.99",
            behind={at: [x[key]["share"] or 0 for x in lines] for at, key in (("≥ 0.5", "half"), ("≥ 0.9", "ninety"))},
            title=f"Share with a softmax probability of at least 0.99: {_words(rows)}.",
        )
    }  # fmt: skip
    if all(x["accepted"] is not None for x in lines):
        accepted = {x["kind"]: measured(x["accepted"]) for x in lines}
        made["accepted"] = bars(
            accepted, name="accepted", roles=roles, label="accepted by a threshold on softmax",
            title=f"Accepted by a threshold on softmax: {_words(accepted)}.",
        )  # fmt: skip
    return made


def _help(d: dict[str, Any]) -> dict[str, Markup]:
    lines = d["help"]["lines"]
    if not lines:
        return {}
    kinds = [x for x in d["unknown"]["lines"] if x["proper"]]
    rows = {r["detector"]: {x["kind"]: measured(x["caught"][r["detector"]]) for x in kinds} for r in lines}
    mean = {r["detector"]: Measured(*(r["caught"],) * 3) for r in lines if r["caught"] is not None}
    return {
        "detectors": dots(
            rows,
            name="detectors",
            mean=mean,
            low=0.0,
            label="called unknown",
            title=f"Share called unknown: {_words(mean)}.",
        )
    }
