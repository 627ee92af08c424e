"""Trainings of Keras classifiers, on any of its backends."""
