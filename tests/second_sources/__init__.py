"""A second implementation of every detector, in plain float64: loops, SciPy, scikit-learn, automatic differentiation.

REFERENCES: {name in the table: (function of a Sight, what it is computed with)}.
"""

from __future__ import annotations

from . import distances, heads, logits, looks, subspaces
from .sight import Sight

__all__ = ["REFERENCES", "Sight"]

REFERENCES = {
    "default": (looks.combined, "p-values counted by hand, of the members' own references"),
    "auto": (looks.combined, "as default, which it is until evidence speaks"),
    "msp": (logits.msp, "log-sum-exp over the other classes (SciPy)"),
    "maxlogit": (logits.maxlogit, "Python's max"),
    "energy": (logits.energy, "SciPy logsumexp"),
    "entropy": (logits.entropy, "SciPy log_softmax"),
    "gen": (logits.gen, "SciPy, log (1 - p) over the other classes"),
    "kl-matching": (logits.kl_matching, "scipy.stats.entropy"),
    "mahalanobis": (distances.mahalanobis, "SciPy pseudo-inverse, einsum"),
    "mahalanobis++": (distances.mahalanobis_pp, "SciPy pseudo-inverse, einsum"),
    "relative-mahalanobis": (distances.relative, "SciPy pseudo-inverse, einsum"),
    "knn": (distances.knn, "SciPy cdist, full sort"),
    "vim": (subspaces.vim, "SciPy lstsq and SVD of the rows"),
    "she": (distances.she, "class means by hand"),
    "fdbd": (heads.fdbd, "loops over images and classes"),
    "doctor": (logits.doctor, "SciPy, log (1 - p) over the other classes"),
    "temperature-msp": (logits.temperature_msp, "root of the likelihood's slope in 1/T (Brent)"),
    "openmax": (logits.openmax, "Weibull by Brent, scipy.stats cdf, loops"),
    "rmds++": (distances.relative_pp, "SciPy pseudo-inverse, einsum"),
    "ssd": (distances.ssd, "SciPy pseudo-inverse, einsum"),
    "gmm": (distances.gmm, "scipy.stats.multivariate_normal"),
    "kde": (distances.kde, "SciPy cdist, logsumexp"),
    "flow": (distances.flow, "the fitted maps, integrated piece by piece"),
    "residual": (subspaces.residual, "SciPy lstsq and SVD of the rows"),
    "pca": (subspaces.pca, "scikit-learn PCA"),
    "cop": (subspaces.cop, "scikit-learn PCA"),
    "corp": (subspaces.corp, "scikit-learn PCA of Fourier features drawn anew"),
    "neco": (subspaces.neco, "scikit-learn StandardScaler and PCA"),
    "ctm": (distances.ctm, "SciPy cosine distances"),
    "relation": (distances.relation, "SciPy cosine distances"),
    "pnml": (subspaces.pnml, "SciPy eigh, expit"),
    "wdiscood": (subspaces.wdiscood, "SciPy eigh of whitened class means"),
    "nnguide": (heads.nnguide, "SciPy cosine distances, full sort"),
    "gradnorm": (heads.gradnorm, "the gradient itself, torch autograd"),
    "nci": (heads.nci, "NumPy, by the formula"),
    "nac-ue": (heads.nac, "torch autograd, numpy.interp"),
    "weiper": (heads.weiper, "heads drawn anew, scipy.stats.entropy"),
    "core": (heads.core, "SciPy lstsq, image by image"),
    "d-knn": (distances.dknn, "scikit-learn PCA, SciPy cdist, full sort"),
    "ras": (heads.ras, "loops over images, a mapping from each place in the sorted list"),
    "actsub": (heads.actsub, "SciPy cosine distances; the fitted split, shown to be the singular one"),
    "gram": (looks.gram, "Gram matrices image by image"),
    "rankfeat": (looks.rankfeat, "NumPy SVD of each map"),
    "mahalanobis-layers": (distances.layers, "everything fitted anew without each known image"),
    "mahalanobis++-layers": (distances.layers_pp, "everything fitted anew without each known image"),
    "grad-uncertainty": (heads.grad_uncertainty, "the gradient itself, torch autograd"),
    "odin": (looks.odin, "torch autograd in float64"),
    "mahalanobis-odin": (looks.mahalanobis_odin, "torch autograd in float64"),
    "adascale": (looks.adascale, "torch autograd in float64, image by image"),
    "mc-dropout": (looks.mc_dropout, "the softmax of each pass"),
    "none-class": (logits.none_class, "SciPy logsumexp"),
    "react": (heads.react, "NumPy minimum at the fitted threshold"),
    "ash-s": (lambda s: heads.ash(s, "s", 90), "loops over images, sort"),
    "ash-p": (lambda s: heads.ash(s, "p", 60), "loops over images, sort"),
    "ash-b": (lambda s: heads.ash(s, "b", 90), "loops over images, sort"),
    "scale": (heads.scale, "loops over images, sort"),
    "lts": (heads.lts, "loops over images, sort"),
    "dice": (heads.dice, "numpy.percentile"),
    "vra": (heads.vra, "NumPy at the fitted thresholds"),
    "optfs": (heads.optfs, "numpy.searchsorted and add.at"),
}
