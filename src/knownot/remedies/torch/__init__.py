"""Trainings of PyTorch classifiers."""
