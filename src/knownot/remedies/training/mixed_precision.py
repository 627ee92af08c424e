"""Mixed precision: where it is used, and what is said of it.

bfloat16 has the range of float32, so no loss has to be scaled, as it has to be for float16. What is computed of images
is computed in it; weights, the head's logits, the loss and the optimiser stay float32, and so does what is saved.
"""

from __future__ import annotations

USED = "Trained in mixed precision: what is computed of images in bfloat16; weights, head and loss in float32."
LACKS = "half=True: this device has no bfloat16, so all was computed in float32."
FAILS = "A layer of this classifier cannot be computed in bfloat16, so all was computed in float32."
HEAD = "half=True: in mode='head' a linear layer alone is trained, in float32."


def mixed(half: bool | None, device: bool | None) -> tuple[bool, tuple[str, ...]]:
    """(whether to compute in bfloat16, notes). half: as in `Settings`. device: whether it is made for bfloat16; None
    for a CPU, which can compute in it, though most are slower then."""
    if half is False or (half is None and not device):
        return False, ()
    return (False, (LACKS,)) if device is False else (True, (USED,))
