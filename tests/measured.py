"""Label maps and fields of which measures are known, or compared."""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

SHAPE = (11, 13, 9)


def blobs(seed, sigma=1.5):
    """Labels 1 to 3 as contiguous bands of smooth noise, reaching the border of the image."""
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), sigma)
    return torch.from_numpy(np.digitize(noise, np.quantile(noise, [0.4, 0.6, 0.8]))).view(1, 1, *SHAPE)


def boxed(start, size, label=1, shape=(12, 10, 14)):
    """Draw one box."""
    image = torch.zeros(shape)
    image[tuple(slice(a, a + n) for a, n in zip(start, size))] = label
    return image


def random_field(seed, shape=(9, 12, 7), amplitude=1.0):
    noise = np.random.default_rng(seed).standard_normal((3, *shape))
    smooth = np.stack([gaussian_filter(c, 1.2) for c in noise])
    return torch.from_numpy(smooth / smooth.std() * amplitude).unsqueeze(0)
