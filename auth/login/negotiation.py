"""Which representation a client would rather have (RFC 9110 section 12.5.1)."""

from typing import Literal

Representation = Literal["page", "json"]

_MEDIA_TYPE: dict[Representation, str] = {"page": "text/html", "json": "application/json"}
_MOST_RANGES = 64  # browsers send fewer than ten; a longer list is not worth the time


def preferred(accept: str, *, unless_told: Representation) -> Representation:
    """Return what *accept* (the value of the field `Accept`) asks for.

    *unless_told* wins a tie, so it is what a client gets that says nothing or `*/*`.
    """
    weights = _weights(accept)
    page, json = _weight(weights, _MEDIA_TYPE["page"]), _weight(weights, _MEDIA_TYPE["json"])
    json = max(json, weights.get("application/problem+json", 0.0))  # what errors are sent as
    if page == json:
        return unless_told
    return "page" if page > json else "json"


def _weights(accept: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for item in accept.split(",", _MOST_RANGES)[:_MOST_RANGES]:
        media_range, *parameters = (part.strip().lower() for part in item.split(";"))
        weight = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                weight = _quality(parameter[2:])
        weights[media_range] = weight
    return weights


def _quality(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return weight if 0.0 <= weight <= 1.0 else 0.0  # also when it is not a number


def _weight(weights: dict[str, float], media_type: str) -> float:
    """Return the weight of the most specific range that takes *media_type*."""
    for media_range in (media_type, media_type.partition("/")[0] + "/*", "*/*"):
        if media_range in weights:
            return weights[media_range]
    return 0.0
