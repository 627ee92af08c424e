"""Verdicts from an exported file by onnxruntime alone: python decide.py osc.onnx images/*.png"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession(sys.argv[1])
names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
_, h, w, _ = session.get_inputs()[0].shape  # names instead of numbers in a file that resizes by itself
for path in sys.argv[2:]:
    image = Image.open(path).convert("RGB")
    x = np.asarray(image if isinstance(h, str) else image.resize((w, h)), np.uint8)[None]
    label, p = session.run(["label", "p_value"], {"images": x})
    print(path, "unknown" if label[0] < 0 else names[label[0]], f"p = {p[0]:.4f}", sep="\t")
