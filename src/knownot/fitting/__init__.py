"""From labelled known images to fitted, calibrated detectors."""
