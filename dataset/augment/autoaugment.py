# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""AutoAugment and RandAugment: tables of the published policies, and their operations."""

import functools
from collections.abc import Callable

import tensorflow as tf

from dataset.augment import color, geometry
from dataset.augment.cutout import cutout, object_cutout
from dataset.tfrecord import Sample

# (name of the operation, probability, level); levels are 0 to MAX_LEVEL, or RANDAUG_LEVEL.
Step = tuple[str, float, int]
# Sub-policies: one is drawn per image, and its steps run in order.
Policy = tuple[tuple[Step, ...], ...]

MAX_LEVEL = 10
RANDAUG_LEVEL = 15

V0: Policy = (
    (("TranslateX_BBox", 0.6, 4), ("Equalize", 0.8, 10)),
    (("TranslateY_Only_BBoxes", 0.2, 2), ("Cutout", 0.8, 8)),
    (("Sharpness", 0.0, 8), ("ShearX_BBox", 0.4, 0)),
    (("ShearY_BBox", 1.0, 2), ("TranslateY_Only_BBoxes", 0.6, 6)),
    (("Rotate_BBox", 0.6, 10), ("Color", 1.0, 6)),
)
V1: Policy = (
    *V0,
    (("Color", 0.0, 0), ("ShearX_Only_BBoxes", 0.8, 4)),
    (("ShearY_Only_BBoxes", 0.8, 2), ("Flip_Only_BBoxes", 0.0, 10)),
    (("Equalize", 0.6, 10), ("TranslateX_BBox", 0.2, 2)),
    (("Color", 1.0, 10), ("TranslateY_Only_BBoxes", 0.4, 6)),
    (("Rotate_BBox", 0.8, 10), ("Contrast", 0.0, 10)),
    (("Cutout", 0.2, 2), ("Brightness", 0.8, 10)),
    (("Color", 1.0, 6), ("Equalize", 1.0, 2)),
    (("Cutout_Only_BBoxes", 0.4, 6), ("TranslateY_Only_BBoxes", 0.8, 2)),
    (("Color", 0.2, 8), ("Rotate_BBox", 0.8, 10)),
    (("Sharpness", 0.4, 4), ("TranslateY_Only_BBoxes", 0.0, 4)),
    (("Sharpness", 1.0, 4), ("SolarizeAdd", 0.4, 4)),
    (("Rotate_BBox", 1.0, 8), ("Sharpness", 0.2, 8)),
    (("ShearY_BBox", 0.6, 10), ("Equalize_Only_BBoxes", 0.6, 8)),
    (("ShearX_BBox", 0.2, 6), ("TranslateY_Only_BBoxes", 0.2, 10)),
    (("SolarizeAdd", 0.6, 8), ("Brightness", 0.8, 10)),
)
V2: Policy = (
    (("Color", 0.0, 6), ("Cutout", 0.6, 8), ("Sharpness", 0.4, 8)),
    (("Rotate_BBox", 0.4, 8), ("Sharpness", 0.4, 2), ("Rotate_BBox", 0.8, 10)),
    (("TranslateY_BBox", 1.0, 8), ("AutoContrast", 0.8, 2)),
    (("AutoContrast", 0.4, 6), ("ShearX_BBox", 0.8, 8), ("Brightness", 0.0, 10)),
    (("SolarizeAdd", 0.2, 6), ("Contrast", 0.0, 10), ("AutoContrast", 0.6, 0)),
    (("Cutout", 0.2, 0), ("Solarize", 0.8, 8), ("Color", 1.0, 4)),
    (("TranslateY_BBox", 0.0, 4), ("Equalize", 0.6, 8), ("Solarize", 0.0, 10)),
    (("TranslateY_BBox", 0.2, 2), ("ShearY_BBox", 0.8, 8), ("Rotate_BBox", 0.8, 8)),
    (("Cutout", 0.8, 8), ("Brightness", 0.8, 8), ("Cutout", 0.2, 2)),
    (("Color", 0.8, 4), ("TranslateY_BBox", 1.0, 6), ("Rotate_BBox", 0.6, 6)),
    (("Rotate_BBox", 0.6, 10), ("BBox_Cutout", 1.0, 4), ("Cutout", 0.2, 8)),
    (("Rotate_BBox", 0.0, 0), ("Equalize", 0.6, 6), ("ShearY_BBox", 0.6, 8)),
    (("Brightness", 0.8, 8), ("AutoContrast", 0.4, 2), ("Brightness", 0.2, 2)),
    (("TranslateY_BBox", 0.4, 8), ("Solarize", 0.4, 6), ("SolarizeAdd", 0.2, 10)),
    (("Contrast", 1.0, 10), ("SolarizeAdd", 0.2, 8), ("Equalize", 0.2, 4)),
)
V3: Policy = (
    (("Posterize", 0.8, 2), ("TranslateX_BBox", 1.0, 8)),
    (("BBox_Cutout", 0.2, 10), ("Sharpness", 1.0, 8)),
    (("Rotate_BBox", 0.6, 8), ("Rotate_BBox", 0.8, 10)),
    (("Equalize", 0.8, 10), ("AutoContrast", 0.2, 10)),
    (("SolarizeAdd", 0.2, 2), ("TranslateY_BBox", 0.2, 8)),
    (("Sharpness", 0.0, 2), ("Color", 0.4, 8)),
    (("Equalize", 1.0, 8), ("TranslateY_BBox", 1.0, 8)),
    (("Posterize", 0.6, 2), ("Rotate_BBox", 0.0, 10)),
    (("AutoContrast", 0.6, 0), ("Rotate_BBox", 1.0, 6)),
    (("Equalize", 0.0, 4), ("Cutout", 0.8, 10)),
    (("Brightness", 1.0, 2), ("TranslateY_BBox", 1.0, 6)),
    (("Contrast", 0.0, 2), ("ShearY_BBox", 0.8, 0)),
    (("AutoContrast", 0.8, 10), ("Contrast", 0.2, 10)),
    (("Rotate_BBox", 1.0, 10), ("Cutout", 1.0, 10)),
    (("SolarizeAdd", 0.8, 6), ("Equalize", 0.8, 8)),
)
RANDAUG_NAMES = (
    "Equalize Solarize Color Cutout SolarizeAdd TranslateX_BBox TranslateY_BBox ShearX_BBox ShearY_BBox Rotate_BBox"
).split()
POLICIES: dict[str, Policy] = {
    "v0": V0,
    "v1": V1,
    "v2": V2,
    "v3": V3,
    "test": ((("TranslateX_BBox", 1.0, 4), ("Equalize", 1.0, 10)),),
    "randaug": tuple(((name, 1.0, RANDAUG_LEVEL),) for name in RANDAUG_NAMES),
}


def autoaugment(sample: Sample, seed: tf.Tensor, policy: str) -> Sample:
    """Applies a random sub-policy of a policy; deterministic for a given seed. Other sub-policies are not computed.

    An object that leaves the image keeps its row with an empty box, all zeros. (The published code widens such a box by
    0.05 at the border, which labels pixels without an object.) Translations are in pixels of the stored image: an image
    smaller than the translation becomes entirely grey.

    Args:
        sample: with image [H, W, 3] uint8 and boxes_norm [K, 4] in [0, 1].
        seed: [2] integer.
        policy: a key of POLICIES.

    Returns:
        The sample with the augmented image, of the same size, and its boxes, in the same order.

    Raises:
        ValueError: if policy is unknown.

    Reference: Zoph et al., ECCV 2020 (https://arxiv.org/abs/1906.11172); randaug: Cubuk et al., 2019
    (https://arxiv.org/abs/1909.13719).
    """
    if policy not in POLICIES:
        raise ValueError(f"unknown autoaugment policy {policy!r}; expected one of {', '.join(POLICIES)}")
    draw_seed, seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    sub_policies = POLICIES[policy]
    drawn = tf.random.stateless_uniform([], draw_seed, maxval=len(sub_policies), dtype=tf.int32)
    return tf.switch_case(drawn, [functools.partial(_apply_steps, sample, seed, steps) for steps in sub_policies])


def _apply_steps(sample: Sample, seed: tf.Tensor, steps: tuple[Step, ...]) -> Sample:
    for step_seed, step in zip(tf.unstack(tf.random.experimental.stateless_split(seed, len(steps))), steps):
        sample = apply(sample, step_seed, step)
    return sample


def apply(sample: Sample, seed: tf.Tensor, step: Step) -> Sample:
    """Applies a step with its probability; an `_Only_BBoxes` step is applied per object, with a third of it.

    Args:
        sample: with image [H, W, 3] uint8 and boxes_norm [K, 4] in [0, 1].
        seed: [2] integer.
        step: (name, probability, level); name is a key of OPERATIONS or OBJECT_OPERATIONS.
    """
    name, probability, level = step
    strength = level / MAX_LEVEL
    if name in OBJECT_OPERATIONS:
        return _change_objects(sample, seed, probability / 3, functools.partial(OBJECT_OPERATIONS[name], strength))
    draw_seed, seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    return tf.cond(
        tf.random.stateless_uniform([], draw_seed) < probability,
        lambda: OPERATIONS[name](strength, sample, seed),
        lambda: dict(sample),
    )


def _change_objects(sample: Sample, seed: tf.Tensor, probability: float, change: Callable) -> Sample:
    """Applies `change`, (crop, seed) -> crop, to the pixels in each box with a probability, one box after the other."""
    draw_seed, seed = tf.unstack(tf.random.experimental.stateless_split(seed, 2))
    windows = geometry.pixel_windows(sample["boxes_norm"], tf.shape(sample["image"])[:2])
    drawn = tf.random.stateless_uniform([tf.shape(windows)[0]], draw_seed) < probability
    windows = tf.boolean_mask(windows, drawn & tf.reduce_all(windows[:, 2:] > windows[:, :2], axis=-1))

    def change_one(image: tf.Tensor, i: tf.Tensor) -> tf.Tensor:
        top, left, bottom, right = tf.unstack(windows[i])
        patch = change(image[top:bottom, left:right], tf.random.experimental.stateless_fold_in(seed, i))
        return geometry.paste(image, patch, top, left)

    return {**sample, "image": tf.foldl(change_one, tf.range(tf.shape(windows)[0]), sample["image"])}


def _on_image(change: Callable) -> Callable:
    """Converts an operation (strength, image, seed) -> image to one of samples."""
    return lambda strength, sample, seed: {**sample, "image": change(strength, sample["image"], seed)}


def _on_image_and_boxes(matrix: Callable) -> Callable:
    """Converts a transform (strength, image_hw) -> matrix to an operation of samples with a random sign of strength."""
    return lambda strength, sample, seed: geometry.warp(
        sample, matrix(_random_sign(strength, seed), tf.shape(sample["image"])[:2])
    )


def _on_crop(matrix: Callable) -> Callable:
    """Converts a transform strength -> matrix to an operation of crops with a random sign of strength."""
    return lambda strength, crop, seed: geometry.warp_image(crop, matrix(_random_sign(strength, seed)))


def _random_sign(strength: float, seed: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.random.stateless_uniform([], seed) < 0.5, -strength, strength)


# (strength, sample, seed) -> sample, with strength = level / MAX_LEVEL, so 1.5 in randaug. Lengths are in pixels.
# The Solarize threshold of randaug, 384, is above every value: it changes nothing.
OPERATIONS: dict[str, Callable[[float, Sample, tf.Tensor], Sample]] = {
    "AutoContrast": _on_image(lambda strength, image, seed: color.autocontrast(image)),
    "Equalize": _on_image(lambda strength, image, seed: color.equalize(image)),
    "Posterize": _on_image(lambda strength, image, seed: color.posterize(image, int(4 * strength))),
    "Solarize": _on_image(lambda strength, image, seed: color.solarize(image, int(256 * strength))),
    "SolarizeAdd": _on_image(lambda strength, image, seed: color.solarize_add(image, int(110 * strength))),
    "Color": _on_image(lambda strength, image, seed: color.color(image, 1.8 * strength + 0.1)),
    "Contrast": _on_image(lambda strength, image, seed: color.contrast(image, 1.8 * strength + 0.1)),
    "Brightness": _on_image(lambda strength, image, seed: color.brightness(image, 1.8 * strength + 0.1)),
    "Sharpness": _on_image(lambda strength, image, seed: color.sharpness(image, 1.8 * strength + 0.1)),
    "Cutout": _on_image(lambda strength, image, seed: cutout(image, seed, int(100 * strength))),
    "BBox_Cutout": lambda strength, sample, seed: {
        **sample,
        "image": object_cutout(sample["image"], sample["boxes_norm"], seed, 0.75 * strength),
    },
    "TranslateX_BBox": _on_image_and_boxes(lambda side, image_hw: geometry.translation(x=250 * side)),
    "TranslateY_BBox": _on_image_and_boxes(lambda side, image_hw: geometry.translation(y=250 * side)),
    "ShearX_BBox": _on_image_and_boxes(lambda side, image_hw: geometry.shear(x=0.3 * side)),
    "ShearY_BBox": _on_image_and_boxes(lambda side, image_hw: geometry.shear(y=0.3 * side)),
    "Rotate_BBox": _on_image_and_boxes(lambda side, image_hw: geometry.rotation(30 * side, image_hw)),
}

# Operations on the pixels in a box; the box does not change: (strength, crop, seed) -> crop.
OBJECT_OPERATIONS: dict[str, Callable[[float, tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "Cutout_Only_BBoxes": lambda strength, crop, seed: cutout(crop, seed, int(50 * strength)),
    "Equalize_Only_BBoxes": lambda strength, crop, seed: color.equalize(crop),
    "Flip_Only_BBoxes": lambda strength, crop, seed: crop[:, ::-1],
    "TranslateY_Only_BBoxes": _on_crop(lambda side: geometry.translation(y=120 * side)),
    "ShearX_Only_BBoxes": _on_crop(lambda side: geometry.shear(x=0.3 * side)),
    "ShearY_Only_BBoxes": _on_crop(lambda side: geometry.shear(y=0.3 * side)),
}
