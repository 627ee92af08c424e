"""The automatic choice: which detectors to combine on a classifier, from evidence without unknown images."""
