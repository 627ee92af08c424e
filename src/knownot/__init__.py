"""knownot: which of the images that reach a trained classifier belong to none of its classes."""
