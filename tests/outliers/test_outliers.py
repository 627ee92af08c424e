"""Made images: what each kind keeps of the known images, and what it does not."""

import numpy as np
import pytest

from helpers import toy
from knownot.errors import ImagesError, LabelsError, OptionError
from knownot.outliers import OUTLIERS, make

ALTERED = [name for name, kind in OUTLIERS.items() if kind.altered]
FREE = [name for name, kind in OUTLIERS.items() if not kind.altered]


def smooth(n: int = 12, h: int = 32, w: int = 40, seed: int = 0) -> np.ndarray:
    """Pictures with large and small parts, of middling contrast, all different."""
    images = make("fractal", n, size=(h, w), seed=seed).astype(np.float32)
    return np.clip(128 + 0.6 * (images - 128), 0, 255).astype(np.uint8)


IMAGES = smooth()
LABELS = np.repeat([0, 1, 2], 4)


def of(kind: str, n: int = 12, **options) -> np.ndarray:
    return make(kind, n, like=IMAGES, labels=LABELS, **options)


@pytest.mark.parametrize("kind", OUTLIERS)
def test_every_kind_is_deterministic_and_leaves_its_input_alone(kind):
    images = IMAGES.copy()
    images.flags.writeable = False
    made = make(kind, 7, like=images, labels=LABELS, seed=3)
    assert made.dtype == np.uint8
    assert made.shape == (7, 32, 40, 3)
    assert made.flags.writeable
    np.testing.assert_array_equal(made, make(kind, 7, like=images, labels=LABELS, seed=3))
    np.testing.assert_array_equal(images, IMAGES)
    assert not np.shares_memory(made, images)
    assert (made != make(kind, 7, like=images, labels=LABELS, seed=4)).any()
    assert make(kind, 0, like=images).shape == (0, 32, 40, 3)
    assert make(kind, 30, like=images, labels=LABELS).shape == (30, 32, 40, 3)
    assert OUTLIERS[kind].summary


@pytest.mark.parametrize("kind", OUTLIERS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (5, 7)])
def test_every_kind_works_on_tiny_and_odd_sizes_and_a_single_image(kind, shape):
    images = np.random.default_rng(0).integers(0, 256, (1, *shape, 3), dtype=np.uint8)
    assert make(kind, 3, like=images).shape == (3, *shape, 3)


@pytest.mark.parametrize("kind", FREE)
def test_images_differ_from_each_other(kind):
    made = make(kind, 8, size=24)
    assert len(np.unique(made.reshape(8, -1), axis=0)) == 8


def pixels_of(images: np.ndarray) -> list[bytes]:
    """The multiset of pixels of all images."""
    return sorted(bytes(p) for p in images.reshape(-1, 3))


@pytest.mark.parametrize("kind", ["patch-shuffle-4", "patch-shuffle-8", "pixel-shuffle"])
def test_shuffles_keep_every_pixel_and_move_most(kind):
    made = of(kind)
    by_sum = {bytes(np.sort(image.reshape(-1, 3), axis=0)): image for image in IMAGES}
    for image in made:
        source = by_sum[bytes(np.sort(image.reshape(-1, 3), axis=0))]  # each made of one known image
        assert pixels_of(image) == pixels_of(source)
        assert (image != source).any(axis=-1).mean() > 0.5


@pytest.mark.parametrize("grid", [4, 8])
def test_patches_stay_whole(grid):
    images = np.arange(32 * 40, dtype=np.uint16).reshape(1, 32, 40, 1)
    coded = np.concatenate([images >> 8, images & 255, images * 0], axis=-1).astype(np.uint8)  # each pixel says where
    made = make(f"patch-shuffle-{grid}", 1, like=coded).astype(int)
    number = made[0, :, :, 0] * 256 + made[0, :, :, 1]
    a, b = 32 // grid, 40 // grid
    corners = number[::a, ::b]
    expected = corners.repeat(a, axis=0).repeat(b, axis=1) + np.tile(
        np.arange(a)[:, None] * 40 + np.arange(b), (grid, grid)
    )
    np.testing.assert_array_equal(number, expected)
    assert len(np.unique(corners)) == grid * grid


def test_pixels_left_over_at_the_edge_stay():
    images = smooth(2, 33, 43)
    made = make("patch-shuffle-4", 2, like=images)
    keep = make("patch-shuffle-4", 2, like=images)[:, 32:]
    assert any((made[0, 32:] == image[32:]).all() and (made[0, :, 40:] == image[:, 40:]).all() for image in images)
    assert keep.shape[1] == 1


def test_inversion_and_the_known_image_sum_to_255_and_twice_is_itself():
    made = make("inversion", 12, like=IMAGES)
    assert made.astype(int).mean() + IMAGES.astype(int).mean() == pytest.approx(255)
    back = make("inversion", 12, like=made)
    assert pixels_of(back) == pixels_of(IMAGES)


def sources(made_half: np.ndarray, half: tuple) -> set[int]:
    return {i for i, image in enumerate(IMAGES) if (image[half] == made_half).all()}


def test_cutmix_is_halves_of_two_classes():
    made = of("cutmix", 24)
    upright = 0
    for image in made:
        found = []
        for halves in (
            ((slice(None), slice(0, 20)), (slice(None), slice(20, None))),
            ((slice(0, 16),), (slice(16, None),)),
        ):
            pair = [sources(image[h], h) for h in halves]
            if all(pair):
                found.append((pair, len(halves[0])))
        assert len(found) == 1
        (((one,), (other,)), axes) = (tuple(map(tuple, found[0][0])), found[0][1])
        assert LABELS[one] != LABELS[other]
        upright += axes == 2
    assert 4 < upright < 20


def test_mixup_is_the_mean_of_two_classes():
    means = {}
    for i in range(12):
        for j in range(12):
            mean = np.clip(np.rint((IMAGES[i].astype(np.float32) + IMAGES[j]) / 2), 0, 255).astype(np.uint8)
            means[mean.tobytes()] = (i, j)
    for image in of("mixup", 24):
        i, j = means[image.tobytes()]
        assert LABELS[i] != LABELS[j]


def test_partners_without_labels_are_other_images_and_unknown_labels_are_other_classes():
    two = np.stack([np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 200, np.uint8)])
    assert (make("mixup", 6, like=two) == 100).all()
    assert (make("mixup", 6, like=two, labels=[-1, -1]) == 100).all()
    assert (make("mixup", 6, like=two, labels=[3, 3]) == 100).all()  # one class only: another image at least
    assert set(np.unique(make("mixup", 6, like=two[:1]))) == {0}


def test_collage_has_quarters_of_several_images():
    many = 0
    for image in of("collage", 24):
        quarters = [(slice(a, a + 16), slice(b, b + 20)) for a in (0, 16) for b in (0, 20)]
        found = [sources(image[q], q) for q in quarters]
        assert all(len(f) == 1 for f in found)
        many += len(set.union(*found)) >= 3
    assert many > 12


def test_each_known_image_is_used_once_before_any_is_used_twice():
    made = 255 - make("inversion", 12, like=IMAGES)
    assert len(np.unique(made.reshape(12, -1), axis=0)) == 12


def test_blur_keeps_the_mean_and_takes_the_detail():
    made = make("blur", 12, like=IMAGES)
    flat = np.full((1, 17, 30, 3), 77, np.uint8)
    np.testing.assert_array_equal(make("blur", 1, like=flat), flat)
    for image in made:
        gaps = np.abs(IMAGES.mean(axis=(1, 2)) - image.mean(axis=(0, 1))).max(axis=1)
        source = IMAGES[gaps.argmin()]
        assert (
            np.abs(np.diff(image.astype(int), axis=1)).mean() < 0.3 * np.abs(np.diff(source.astype(int), axis=1)).mean()
        )


def test_blur_is_the_gaussian_of_another_library():
    from scipy.ndimage import gaussian_filter

    image = np.zeros((1, 49, 49, 3), np.uint8)
    image[0, 20:29, 20:29] = 250
    made = make("blur", 1, like=image)[0, :, :, 0].astype(float)
    other = gaussian_filter(image[0, :, :, 0].astype(float), 49 / 8, mode="constant", truncate=8)
    np.testing.assert_allclose(made[12:37, 12:37], other[12:37, 12:37], atol=1)


def amplitudes(images: np.ndarray) -> np.ndarray:
    """[n, ...] of each image's spectrum, the mean left out."""
    return np.abs(np.fft.fft2(images.astype(float), axes=(1, 2))).reshape(len(images), -1)[:, 3:]


def test_phase_keeps_the_spectrum_and_loses_the_content():
    images = smooth(6, 32, 32, seed=5)
    made = make("phase", 6, like=images)
    mine, theirs = amplitudes(made), amplitudes(images)
    gap = np.linalg.norm(mine[:, None] - theirs, axis=2) / np.linalg.norm(theirs, axis=1)
    source = gap.argmin(axis=1)
    assert sorted(source) == list(range(6))
    assert (gap.min(axis=1) < 0.1).all()  # rounding and clipping
    np.testing.assert_allclose(made.mean(axis=(1, 2)), images[source].mean(axis=(1, 2)), atol=1)
    alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(made, images[source], strict=True)]
    assert np.mean(np.abs(alike)) < 0.7
    colours = [[np.corrcoef(x[..., 0].ravel(), x[..., 1].ravel())[0, 1] for x in xs] for xs in (made, images[source])]
    np.testing.assert_allclose(*colours, atol=0.1)  # the same phases in every channel


def test_noise_has_the_strength_it_says():
    flat = np.full((1, 64, 64, 3), 128, np.uint8)
    made = make("noise", 4, like=flat).astype(float) - 128
    inside = np.abs(made) < 80  # within one standard deviation, where nothing is clipped
    assert inside.mean() == pytest.approx(0.683, abs=0.01)
    assert made.mean() == pytest.approx(0, abs=2)


def test_jpeg_is_near_but_not_the_image():
    made = make("jpeg", 12, like=IMAGES)
    gaps = np.abs(made[:, None].astype(int) - IMAGES).mean(axis=(2, 3, 4))
    assert (gaps.min(axis=1) > 2).all()
    assert (gaps.min(axis=1) < 40).all()


def test_crop_is_a_piece_enlarged():
    ramp = np.broadcast_to((np.arange(60) * 4).astype(np.uint8)[None, None, :, None], (1, 60, 60, 3))
    for image in make("crop", 5, like=ramp):
        assert image[0, -1, 0] - image[0, 0, 0] == 36  # ten pixels of sixty: nine steps of four
        assert (np.diff(image[0, :, 0].astype(int)) >= 0).all()


def test_uniform_and_gaussian_have_their_moments():
    uniform, gaussian = (make(kind, 20, size=40).astype(float) for kind in ("uniform", "gaussian"))
    assert uniform.mean() == pytest.approx(127.5, abs=1)
    assert uniform.std() == pytest.approx(256 / np.sqrt(12), abs=1)
    assert gaussian.mean() == pytest.approx(128, abs=1)
    assert np.mean(np.abs(gaussian - 128) < 64) == pytest.approx(0.683, abs=0.01)


def test_plain_kinds_are_as_plain_as_they_say():
    assert (make("solid", 9, size=(5, 8)).std(axis=(1, 2)) == 0).all()
    assert set(np.unique(make("salt-and-pepper", 9, size=16))) == {0, 255}
    for kind in ("checkerboard", "stripes"):
        for image in make(kind, 9, size=48):
            assert len(np.unique(image.reshape(-1, 3), axis=0)) == 2
    for image in make("gradient", 9, size=48).astype(float):
        y, x = np.mgrid[:48, :48]
        plane = np.stack([x.ravel(), y.ravel(), np.ones(48 * 48)], axis=1)
        residual = np.linalg.lstsq(plane, image.reshape(-1, 3), rcond=None)[1]
        assert (residual < 48 * 48).all()  # flat to within the rounding
        assert np.ptp(image, axis=(0, 1)).min() > 60


def test_fractal_spectrum_falls_as_one_over_f():
    made = make("fractal", 60, size=64).astype(float)
    power = (np.abs(np.fft.fft2(made, axes=(1, 2))) ** 2).mean(axis=(0, 3))
    f = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)[None])
    band = (f > 0.03) & (f < 0.3)
    slope = np.polyfit(np.log(f[band]), np.log(power[band]), 1)[0]
    assert slope == pytest.approx(-2, abs=0.15)  # amplitude 1/f is power 1/f^2


def test_dead_leaves_are_flat_parts_with_edges():
    made = make("dead-leaves", 10, size=64).astype(int)
    same = (np.diff(made, axis=2) == 0).all(axis=-1).mean()
    assert 0.5 < same < 0.98
    assert all(len(np.unique(image.reshape(-1, 3), axis=0)) > 10 for image in made)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (("unifrom", 3), OptionError, "Did you mean 'uniform'"),
        (("uniform", -1), OptionError, "whole number"),
        (("uniform", 2.5), OptionError, "whole number"),
        (("uniform", 3), OptionError, "Neither size= nor like="),
        (("uniform", 3, {"size": (0, 4)}), OptionError, "size="),
        (("uniform", 3, {"size": (4, 4, 3)}), OptionError, "size="),
        (("blur", 3, {"size": 8}), OptionError, "made from known images"),
        (("blur", 3, {"like": IMAGES, "size": 8}), OptionError, "has the size of the known images"),
        (("blur", 3, {"like": IMAGES / 255.0}), ImagesError, "float64"),
        (("blur", 3, {"like": IMAGES[0]}), ImagesError, "shape"),
        (("blur", 3, {"like": IMAGES[:0]}), ImagesError, "at least one"),
        (("mixup", 3, {"like": IMAGES, "labels": [1, 2]}), LabelsError, "each of 12"),
        (("mixup", 3, {"like": IMAGES, "labels": np.ones(12)}), LabelsError, "whole number"),
    ],
)
def test_what_is_given_is_checked(arguments, error, said):
    kind, n, *options = arguments
    with pytest.raises(error, match=said):
        make(kind, n, **(options[0] if options else {}))


def test_the_toy_classifier_is_sure_of_some_of_them():
    """What they are for: a closed-set classifier answers all of them."""
    images, labels = toy.known(60, 3)
    made = np.concatenate([make(kind, 20, like=images, labels=labels) for kind in ("fractal", "blur", "uniform")])
    logits = toy.reference(made / 255, toy.weights())["logits"]
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    assert (e.max(axis=1) / e.sum(axis=1) > 0.9).any()
