# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""A validation split held out of the training images, and images that two splits share."""

import collections
import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from absl import logging

from dataset.convert.annotation import Source
from dataset.convert.conversion_report import ConversionReport, Reason
from dataset.convert.image_file import ImageError
from dataset.tfrecord import DataError

FRACTION = 0.1  # of the images that are held out
MIN_IMAGES, MAX_IMAGES = 20, 5000  # held out, but at most half of the images
FEW_IMAGES = 4  # fewer cannot be judged by those held out


class _Image(NamedTuple):
    """An image of a source that can be read."""

    index: int  # of its item
    name: str
    path: Path
    classes: frozenset[int]


def hold_out(source: Source, *, seed: int) -> tuple[Source, Source, list[str]]:
    """Divides a source into training and validation images.

    FRACTION of the images are held out, within MIN_IMAGES and MAX_IMAGES, but at most half. The choice depends on the
    seed and the names of the images, not on their order. Identical files stay together, and every class that has
    several images is in both parts if the number of images allows it. Images that cannot be read stay in the training
    part, so that the conversion counts them.

    Returns:
        (training source, validation source, names of its images as records store them); items keep their order and
        source ids.

    Raises:
        DataError: if there are less than two different images.
    """
    images = list(_read_images(source))
    if source.items and not images:
        return source, dataclasses.replace(source, items=[]), []  # the conversion says why
    groups = _group_identical(images, seed)
    if len(groups) < 2:
        identical = f", all of them identical to {images[0].name}," if len(images) > 1 else ""
        raise DataError(
            f"found {len(images)} images{identical} and no validation split: expected at least 2 different images, one "
            "for training and one for validation; add images"
        )
    number = num_held_out(len(images))
    if len(images) < FEW_IMAGES:
        logging.warning("only %d images, of which %d are held out: AP will mean nothing", len(images), number)
    held_out = {image.index: image.name for group in _choose(groups, number) for image in group}
    train = [item for index, item in enumerate(source.items) if index not in held_out]
    val = [source.items[index] for index in sorted(held_out)]
    return (
        dataclasses.replace(source, items=train),
        dataclasses.replace(source, items=val, report=ConversionReport(), write_groundtruth=True),
        [held_out[index] for index in sorted(held_out)],
    )


def num_held_out(num_images: int) -> int:
    """Returns the number of images that `hold_out` holds out.

    >>> num_held_out(1000)
    100
    """
    return min(max(round(FRACTION * num_images), MIN_IMAGES), MAX_IMAGES, num_images // 2)


def show_shared(sources: Mapping[str, Source]) -> list[str]:
    """Returns a message for every two splits that share images: the number of identical files, and examples."""
    images = {split: list(_find_images(source)) for split, source in sources.items()}
    by_content = collections.defaultdict(lambda: collections.defaultdict(list))  # {content: {split: names}}
    contents = _contents([path for found in images.values() for _, path in found])
    for split, found in images.items():
        for name, path in found:
            by_content[contents[path]][split].append(name)
    shared = collections.defaultdict(Reason)
    for splits in by_content.values():
        names = list(splits)
        for i, other in enumerate(names):
            for split in names[:i]:
                entry = shared[split, other]
                entry.count += len(splits[other])
                entry.first += [f"{name} is {splits[split][0]}" for name in splits[other]]
    return [
        f"images of {other} that are also in {split}: {entry.show()}; AP on them says nothing about new images"
        for (split, other), entry in shared.items()
    ]


def _find_images(source: Source) -> Iterator[tuple[str, Path]]:
    """Yields (name, path) of the images of a source that exist."""
    for item in source.items:
        with contextlib.suppress(ImageError):  # is counted by the conversion
            yield source.find_image(item)


def _read_images(source: Source) -> Iterator[_Image]:
    """Yields the images of a source whose annotation can be read."""
    for index, item in enumerate(source.items):
        with contextlib.suppress(ImageError):
            annotation = source.read(item, ConversionReport())
            classes = frozenset(row.class_id for row in annotation.objects)
            yield _Image(index, annotation.filename, annotation.image_path, classes)


def _contents(paths: Sequence[Path]) -> dict[Path, object]:
    """Returns a value per file that is equal for identical files: SHA-256, or the size where no other has that size."""
    sizes = {path: os.path.getsize(path) for path in paths}
    num_of_size = collections.Counter(sizes.values())
    return {path: _sha256(path) if num_of_size[size] > 1 else size for path, size in sizes.items()}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _group_identical(images: Sequence[_Image], seed: int) -> list[list[_Image]]:
    """Groups identical files, in an order that depends on the seed and the names only."""
    contents = _contents([image.path for image in images])
    groups = collections.defaultdict(list)
    for image in images:
        groups[contents[image.path]].append(image)

    def rank(group: list[_Image]) -> str:
        return min(hashlib.sha256(f"{seed}:{image.name}".encode()).hexdigest() for image in group)

    return sorted(groups.values(), key=rank)


def _choose(groups: Sequence[list[_Image]], number: int) -> list[list[_Image]]:
    """Chooses groups of `number` images or slightly less, in their order, but one of every class first.

    A group is not chosen if it has the last objects of a class, as long as there are others.
    """
    classes = [frozenset().union(*(image.classes for image in group)) for group in groups]
    of_class = collections.defaultdict(list)
    for index, found in enumerate(classes):
        for class_id in found:
            of_class[class_id].append(index)
    left = {class_id: len(indices) for class_id, indices in of_class.items()}  # groups that are not chosen
    chosen, size = set(), 0

    def choose_first(candidates: Iterable[int], limit: int, *, keep_classes: bool) -> None:
        nonlocal size
        for index in candidates:
            fits = index not in chosen and size + len(groups[index]) <= number
            if fits and not (keep_classes and any(left[class_id] == 1 for class_id in classes[index])):
                chosen.add(index)
                size += len(groups[index])
                left.update((class_id, left[class_id] - 1) for class_id in classes[index])
                limit -= 1
            if not limit or size == number:
                return

    for class_id in sorted(of_class, key=lambda class_id: (left[class_id], class_id)):  # the rarest first
        if chosen.isdisjoint(of_class[class_id]):
            choose_first(of_class[class_id], 1, keep_classes=True)
    for keep_classes in (True, False):
        choose_first(range(len(groups)), len(groups), keep_classes=keep_classes)
    return [groups[index] for index in sorted(chosen)]
