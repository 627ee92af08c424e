"""Small networks on what the classifier computes."""

from __future__ import annotations

from knownot import remedies


def torch_of(net):
    import torch

    parts = []
    for w, b in zip(net.weights, net.biases, strict=True):
        linear = torch.nn.Linear(*w.shape, dtype=torch.float64)
        linear.weight.data, linear.bias.data = torch.tensor(w.T.copy()), torch.tensor(b)
        parts += [linear, torch.nn.LeakyReLU(net.slope)]
    return torch.nn.Sequential(*parts[:-1])


def of(model, images, folder=None, outliers="made:noise", **settings):
    from knownot.images import open_images
    from knownot.remedies.retraining import prepared

    settings = remedies.Settings(mode="head", progress=False, folder=folder, **settings)
    held = open_images(*images["validation"])
    return prepared(model, open_images(*images["known"]), held, outliers, None, None, settings)
