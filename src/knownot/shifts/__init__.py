"""Known images that have changed: which kind of change a batch went through, and what the classifier makes of it.

`fit` learns it from copies of calibration images (`learn`); `base` tells the kind of a batch, `seen` says it, `windows`
decides by it where that is asked for.
"""
