"""The review desk: rejected images are kept, looked at, marked, and leave as training data."""
