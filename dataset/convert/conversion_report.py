# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""What a conversion changed and left out, by reason and by name."""

import collections
import dataclasses
from typing import Any

from dataset.convert.image_file import ImageError

NAMES_SHOWN = 5  # of a reason, on the screen
REASONS_SHOWN = 3  # in the sentence with which a conversion fails, each with one name
NAMES_KEPT = 300  # of a reason, in the JSON
# Objects at the border stick out a little. Where many boxes stick out far, they mean something else than was read.
FAR_OUT = 1 / 3  # of the area of a box, outside of its image
MANY, AT_LEAST = 0.2, 10  # boxes, as a share and as a number
CLIPPED_BY_MUCH = "boxes that lost more than a third of their area as they were clipped"
CORNERS = "are these corners x1, y1, x2, y2 instead of x, y, width, height, or pixels of other images?"


@dataclasses.dataclass
class Reason:
    """How often something happened, and to what first."""

    count: int = 0
    first: list[str] = dataclasses.field(default_factory=list)

    def show(self, num_names: int = NAMES_SHOWN) -> str:
        """The count and the first names, such as "3 (a.jpg and 2 more)"."""
        more = f" and {self.count - num_names} more" if self.count > num_names else ""
        return f"{self.count} ({'; '.join(self.first[:num_names])}{more})"


class Notes:
    """What was changed or left out of one image, or before any is read. Not to be shared between threads."""

    def __init__(self):
        self.reasons: dict[str, Reason] = collections.defaultdict(Reason)
        self.left_out = {"images": collections.Counter(), "boxes": collections.Counter()}  # the same, by reason

    def note(self, what: str, where: str) -> None:
        """Adds one thing that was changed but kept, such as ("boxes clipped", "annotation 3 of 7.jpg")."""
        reason = self.reasons[_one_line(what)]
        reason.count += 1
        reason.first = [*reason.first, _one_line(where)][:NAMES_KEPT]

    def leave_out_box(self, why: str, where: str) -> None:
        """Adds one box that is not written."""
        self.note(why, where)
        self.left_out["boxes"][_one_line(why)] += 1

    def leave_out_image(self, error: ImageError) -> None:
        """Adds one image that is not written."""
        self.note(error.reason, str(error))
        self.left_out["images"][_one_line(error.reason)] += 1

    def add(self, notes: "Notes") -> None:
        """Adds what others noted after this."""
        for what, reason in notes.reasons.items():
            own = self.reasons[what]
            own.count += reason.count
            own.first = [*own.first, *reason.first][:NAMES_KEPT]
        for kind, counts in notes.left_out.items():
            self.left_out[kind] += counts


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())  # file names and messages of libraries may have several


class Report(Notes):
    """What a conversion wrote, and all that it changed or left out."""

    def __init__(self):
        super().__init__()
        self.written = {"images": 0, "boxes": 0}

    def num_left_out(self, kind: str) -> int:
        """How many "images" or "boxes" are not written."""
        return sum(self.left_out[kind].values())

    def find_excess(self, max_bad_fraction: float) -> str | None:
        """A sentence where the data should not be used as they are converted, else None.

        That is, where no image is written, more than this share of images or of boxes left out, or where more than a
        fifth of the boxes (or than this share, if it is larger) lose much of their area by clipping.
        """
        if not self.written["images"]:
            return f"there is no image that can be written{self._main_reasons('images')}"
        for kind, written in self.written.items():
            bad = self.num_left_out(kind)
            if bad > max_bad_fraction * (bad + written):
                share = f"{bad} of {bad + written} {kind}, above max_bad_fraction={max_bad_fraction}"
                return f"too much is left out: {share}{self._main_reasons(kind)}"
        clipped, boxes = self.reasons.get(CLIPPED_BY_MUCH, Reason()), self.written["boxes"]
        if clipped.count >= AT_LEAST and clipped.count > max(MANY, max_bad_fraction) * boxes:
            share = f"{clipped.count} of {boxes} boxes lose more than a third of their area ({clipped.first[0]}, ...)"
            return f"too much is clipped: {share}: {CORNERS} If they are right, raise max_bad_fraction"
        return None

    def _main_reasons(self, kind: str) -> str:
        main = self.left_out[kind].most_common(REASONS_SHOWN)
        return "".join(f"; {what}: {self.reasons[what].show(num_names=1)}" for what, _ in main)

    def to_json(self) -> dict[str, Any]:
        """The report as it is written: counts, and the first names of every reason."""
        return {
            **self.written,
            **{f"{kind}_left_out": self.num_left_out(kind) for kind in self.left_out},
            "reasons": {what: dataclasses.asdict(reason) for what, reason in self.reasons.items()},
        }

    def __str__(self) -> str:
        images, boxes = self.num_left_out("images"), self.num_left_out("boxes")
        left_out = f"; {images} images and {boxes} boxes left out" if images or boxes else ""
        lines = [f"{self.written['images']} images, {self.written['boxes']} boxes{left_out}"]
        return "\n".join([*lines, *(f"{what}: {reason.show()}" for what, reason in self.reasons.items())])
