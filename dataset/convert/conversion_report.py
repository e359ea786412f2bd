# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""The conversion report: images and boxes that were written, changed or left out, by reason."""

import collections
import dataclasses
from collections.abc import Iterable
from typing import Any

NAMES_PRINTED = 5  # per reason
REASONS_PRINTED = 3  # in the error message of a failed conversion, with one name each
NAMES_STORED = 300  # per reason, in the JSON


@dataclasses.dataclass
class Reason:
    """Number of occurrences, and the names of the first ones."""

    count: int = 0
    first: list[str] = dataclasses.field(default_factory=list)

    def show(self, num_names: int = NAMES_PRINTED) -> str:
        """Returns the count and the first names, such as "3 (a.jpg and 2 more)"."""
        more = f" and {self.count - num_names} more" if self.count > num_names else ""
        return f"{self.count} ({'; '.join(self.first[:num_names])}{more})"


class ConversionReport:
    """Images and boxes of a conversion, or of one image in it, that are written or left out. Not thread-safe."""

    def __init__(self):
        self.reasons: dict[str, Reason] = collections.defaultdict(Reason)
        self.left_out = {"images": collections.Counter(), "boxes": collections.Counter()}  # those of `reasons`
        self.written = collections.Counter(images=0, boxes=0)
        self.boxes_per_class = collections.Counter()  # {class id: written boxes}
        self.without_boxes = 0  # of the written images

    def note(self, reason: str, name: str) -> None:
        """Adds an item that is kept, such as ("duplicate boxes, kept", "annotation 3 of 7.jpg")."""
        entry = self.reasons[reason]
        entry.count += 1
        name = " ".join(name.splitlines())  # file names and messages of libraries may have several
        entry.first = [*entry.first, name][:NAMES_STORED]

    def note_duplicates(self, reason: str, names: Iterable[str]) -> None:
        """Adds every name that occurs more than once."""
        for name, count in collections.Counter(names).items():
            if count > 1:
                self.note(reason, name)

    def leave_out(self, kind: str, reason: str, name: str) -> None:
        """Adds an item of "images" or "boxes" that is not written."""
        self.note(reason, name)
        self.left_out[kind][reason] += 1

    def extend(self, report: "ConversionReport") -> None:
        """Adds the entries of another report."""
        for reason, entry in report.reasons.items():
            total = self.reasons[reason]
            total.count += entry.count
            total.first = [*total.first, *entry.first][:NAMES_STORED]
        for kind, counts in report.left_out.items():
            self.left_out[kind] += counts
        self.written.update(report.written)
        self.boxes_per_class.update(report.boxes_per_class)
        self.without_boxes += report.without_boxes

    def show_main_reasons(self, kind: str) -> str:
        """Returns the most frequent reasons for which "images" or "boxes" are left out, each after a semicolon."""
        main = self.left_out[kind].most_common(REASONS_PRINTED)
        return "".join(f"; {reason}: {self.reasons[reason].show(num_names=1)}" for reason, _ in main)

    def to_json(self) -> dict[str, Any]:
        """Returns the content of the report file."""
        return {
            **self.written,
            "images_without_boxes": self.without_boxes,
            **{f"{kind}_left_out": reasons.total() for kind, reasons in self.left_out.items()},
            "reasons": {reason: dataclasses.asdict(entry) for reason, entry in self.reasons.items()},
        }

    def __str__(self) -> str:
        images, boxes = self.left_out["images"].total(), self.left_out["boxes"].total()
        left_out = f"; {images} images and {boxes} boxes left out" if images or boxes else ""
        without = f" ({self.without_boxes} without boxes)" if self.without_boxes else ""
        lines = [f"{self.written['images']} images{without}, {self.written['boxes']} boxes{left_out}"]
        return "\n".join([*lines, *(f"{reason}: {entry.show()}" for reason, entry in self.reasons.items())])
