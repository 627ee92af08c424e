"""The open-set classifier: `fit`, predict, save, load, and what comes out."""
