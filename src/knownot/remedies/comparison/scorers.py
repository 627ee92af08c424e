"""What a remedy is measured with: detectors, by the names that a comparison gives them."""

NONE = "none"
SCORERS = ("default", "auto", "own", "default + own", "auto + own")
WORDS = {
    "default": "the default detectors",
    "auto": "the automatic choice",
    "own": "the remedy's scorer alone",
    "default + own": "default and the remedy's scorer",
    "auto + own": "auto and the remedy's scorer",
}
