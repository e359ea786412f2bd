# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""class_ids: names that two sources give to different ids, and the message about them."""

import pytest

from dataset.check import class_ids
from dataset.check.class_ids import NamedIds
from dataset.label_map import COCO, VOC, LabelMapError

BCCD = {1: "RBC", 2: "WBC", 3: "Platelets"}


@pytest.mark.parametrize(
    "given, reference, expected",
    [
        (BCCD.items(), BCCD, []),
        ({1: "Platelets", 2: "RBC", 3: "WBC"}.items(), BCCD, [("Platelets", 1, 3), ("RBC", 2, 1), ("WBC", 3, 2)]),
        ({2: "RBC"}.items(), BCCD, [("RBC", 2, 1)]),  # part of the classes
        ({3: "Platelets"}.items(), BCCD, []),
        ({1: "red", 2: "white", 3: "Platelets"}.items(), BCCD, []),  # renamed
        ({1: "red cell", 4: "dust"}.items(), BCCD, []),
        ({}.items(), BCCD, []),
        (BCCD.items(), {}, []),
        ({1: "traffic_light"}.items(), {2: "Traffic light"}, [("traffic_light", 1, 2)]),  # spelled otherwise
        ({1: "traffic_light"}.items(), {1: "Traffic-Light"}, []),
        ([(1, "RBC"), (2, "RBC"), (2, "WBC")], BCCD, [("RBC", 2, 1)]),  # records of two label maps
        ({1: "Orange", 2: "orange"}.items(), {1: "orange", 2: "Orange"}, []),  # fruit and color
        ({5: "bottle", 15: "person", 21: "tree"}.items(), VOC, []),
        ({15: "person"}.items(), COCO, [("person", 15, 1)]),
    ],
)
def test_names_under_other_ids(given, reference, expected):
    sources = NamedIds(given, "a.yaml"), NamedIds(reference.items(), "b.yaml")
    assert class_ids.moved(*sources) == expected
    assert bool(class_ids.describe_moved(*sources, "do this")) == bool(expected)


def test_the_message_has_names_both_ids_both_sources_and_a_remedy():
    given = class_ids.of_label_map({4: "a", 3: "b", 2: "c", 1: "d"})
    reference = class_ids.of_label_map({1: "a", 2: "b", 3: "c", 4: "d"}, "runs/x/config.yaml")
    with pytest.raises(LabelMapError) as error:
        class_ids.check_moved(given, reference, "use one")
    assert str(error.value) == (
        "class names have other ids in label_map than in runs/x/config.yaml: 'd' is 1 instead of 4, "
        "'c' is 2 instead of 3, 'b' is 3 instead of 2 and 1 more; use one"
    )
    class_ids.check_moved(given, given, "use one")
