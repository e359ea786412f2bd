# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of dataset/label_map.py."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataset import label_map
from dataset.label_map import LabelMapError, check, name_of, resolve


@pytest.mark.parametrize(
    "name, count, expected",
    [
        (
            "coco",
            80,
            {1: "person", 11: "fire hydrant", 13: "stop sign", 17: "cat", 27: "backpack", 31: "handbag", 44: "bottle"}
            | {46: "wine glass", 62: "chair", 67: "dining table", 70: "toilet", 72: "tv", 84: "book"}
            | {90: "toothbrush"},
        ),
        ("voc", 20, {1: "aeroplane", 11: "diningtable", 15: "person", 20: "tvmonitor"}),
        ("waymo", 3, {1: "vehicle", 2: "pedestrian", 3: "cyclist"}),
    ],
)
def test_built_in_golden(name, count, expected):
    names = resolve(name)
    assert len(names) == len(set(names.values())) == count
    assert {class_id: names[class_id] for class_id in expected} == expected


def test_coco_gaps():
    assert set(range(1, 91)) - set(resolve("coco")) == {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}


def test_result_is_a_copy():
    resolve("waymo").clear()
    assert len(label_map.WAYMO) == 3


@pytest.mark.parametrize(
    "given_map, expected",
    [
        (None, {}),
        ({}, {}),
        ({2: "b", 1: "a"}, {1: "a", 2: "b"}),
        ({"RBC": 1, "WBC": 2, "Platelets": 3}, {1: "RBC", 2: "WBC", 3: "Platelets"}),
        ({0: "background", 1: "a"}, {1: "a"}),
        ({"__background__": 0, "a": 7}, {7: "a"}),
    ],
)
def test_mappings(given_map, expected):
    assert resolve(given_map) == expected
    assert list(resolve(given_map)) == sorted(expected)


@given(st.dictionaries(st.integers(1, 10**6), st.text(min_size=1).filter(str.strip)))
def test_both_directions_are_equivalent(names):
    names = {class_id: name for name, class_id in {name: class_id for class_id, name in names.items()}.items()}
    assert resolve(names) == resolve({name: class_id for class_id, name in names.items()}) == names


def test_json_file(tmp_path):
    path = tmp_path / "labels.json"
    path.write_text('{"RBC": 1,\n "große Zelle": 2}', "utf-8")
    assert resolve(str(path)) == {1: "RBC", 2: "große Zelle"}
    path.write_text("{")
    with pytest.raises(LabelMapError, match=r"^label_map: .*labels\.json is not valid JSON: .*line 1"):
        resolve(str(path))


@pytest.mark.parametrize("suffix", [".yaml", ".yml"])
def test_yaml_file(tmp_path, suffix):
    path = tmp_path / f"map{suffix}"
    path.write_text("0: background\n2: white cell\n1: red cell\n")
    assert resolve(str(path)) == {1: "red cell", 2: "white cell"}


@pytest.mark.parametrize(
    "given_map, message",
    [
        ("COCCO", "label_map 'COCCO' is not coco, voc, waymo or a .yaml, .json or .pbtxt file; did you mean 'coco'?"),
        ("names.txt", "label_map 'names.txt' is not coco, voc, waymo or a .yaml, .json or .pbtxt file"),
        ("no_such.yaml", "label_map: cannot read no_such.yaml: No such file or directory"),
        ({1: "a", 2: "a"}, "label_map gives the name 'a' to both id 1 and id 2"),
        ({"a": 1, "b": 1}, "label_map gives id 1 to both 'a' and 'b'"),
        ({0: "cat", 1: "dog"}, "label_map gives id 0, the background, to 'cat'; class ids start at 1"),
        ({"one": "cat"}, "label_map must pair ids from 1 with names in quotes, got 'one': 'cat'"),
        ({1.0: "cat"}, "label_map must pair ids from 1 with names in quotes, got 1.0: 'cat'"),
        (
            {True: "cat"},
            "label_map must pair ids from 1 with names in quotes, got True: 'cat'; without quotes, "
            "yes, no, on and off are booleans",
        ),
        ({-1: "cat"}, "label_map must pair ids from 1 with names in quotes, got -1: 'cat'"),
        (
            {1: False},
            "label_map must pair ids from 1 with names in quotes, got 1: False; without quotes, "
            "yes, no, on and off are booleans",
        ),
        ({1: " "}, "label_map must pair ids from 1 with names in quotes, got 1: ' '"),
    ],
)
def test_messages_for_invalid_maps(given_map, message):
    with pytest.raises(LabelMapError) as error:
        resolve(given_map)
    assert str(error.value) == message


@pytest.mark.parametrize("text", ["1: cat\n1: dog\n", '{"cat": 1,\n"cat": 2}'])
def test_duplicate_keys_in_a_file_are_rejected(tmp_path, text):
    path = tmp_path / "map.yaml"
    path.write_text(text)
    with pytest.raises(LabelMapError, match=r"map\.yaml, line 2 is not valid YAML: '\w+' is given twice$"):
        resolve(str(path))


@pytest.mark.parametrize(
    "text, expected",
    [
        ('{"1": "cat", "2": "dog"}', {1: "cat", 2: "dog"}),
        ('{"1": 2, "2": 1}', {1: "2", 2: "1"}),  # names that are numbers
        (r'{"\ud842\udfb7": 1}', {1: "\U00020bb7"}),
    ],
)
def test_json_pairs_ids_and_names_either_way(tmp_path, text, expected):
    path = tmp_path / "map.json"
    path.write_text(text)
    assert resolve(str(path)) == expected


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"cat": 1, "cat": 2}', r"map\.json is not valid JSON: 'cat' is given twice$"),
        ('{"cat": 1', r"map\.json is not valid JSON: Expecting ',' delimiter: line 1"),
        ("[" * 100_000, r"map\.json: its brackets are nested too deep$"),
    ],
)
def test_messages_for_invalid_json(tmp_path, text, message):
    path = tmp_path / "map.json"
    path.write_text(text)
    with pytest.raises(LabelMapError, match=message):
        resolve(str(path))


def test_json_may_be_indented_with_tabs(tmp_path):
    path = tmp_path / "map.json"
    path.write_text('{\n\t"cat": 1,\n\t"dog":\t2\n}')
    assert resolve(str(path)) == {1: "cat", 2: "dog"}


def test_message_names_the_file(tmp_path):
    path = tmp_path / "map.yaml"
    path.write_text("1: cat\n2: no\n")
    with pytest.raises(LabelMapError) as error:
        resolve(str(path))
    hint = "; without quotes, yes, no, on and off are booleans"
    assert str(error.value) == f"{path} must pair ids from 1 with names in quotes, got 2: False{hint}"


@pytest.mark.parametrize(
    "text, expected",
    [
        (
            "item {\n id: 1\n name: 'Dog'\n}\n\nitem {\n id: 2\n name: 'traffic light'\n}\n",
            {1: "Dog", 2: "traffic light"},
        ),
        ('item{name:"driver\'s {seat}" id:3 display_name:"x"}', {3: "driver's {seat}"}),
        ("item { id: 1 name: 'driver\\'s \\\"seat\\\"' }", {1: 'driver\'s "seat"'}),
        ('item { id: 1 name: "caf\\303\\251, \\\\" } item { id: 2 name: "thé" }', {1: "café, \\", 2: "thé"}),
        ("# classes\nitem { id: 0 name: 'background' }\nitem: { id: 2, name: 'b' }", {2: "b"}),
    ],
)
def test_pbtxt_file(tmp_path, text, expected):
    path = tmp_path / "map.pbtxt"
    path.write_text(text)
    assert resolve(str(path)) == expected


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "expected nothing but items such as item { id: 1 name: 'cat' }"),
        ("item { id: 1 name: 'a' } item { id: 2", "expected nothing but items such as"),
        ("item { id: 1 name: 'caf\\351' }", "name 'caf\\351' has invalid escape sequences; write it in UTF-8"),
        ("item { id: 1 name: '\\u2014' }", "has invalid escape sequences"),
        ("item { id: 1 }", "expected an id of its own and a name in every item, got { id: 1 }"),
        ("item { id: 1 name: 'a' } item { id: 1 name: 'b' }", "expected an id of its own and a name in every item"),
        ("item { id: 1 name: 'a' } item { id: 2 name: 'a' }", "gives the name 'a' to both id 1 and id 2"),
    ],
)
def test_messages_for_invalid_pbtxt_files(tmp_path, text, message):
    path = tmp_path / "map.pbtxt"
    path.write_text(text)
    with pytest.raises(LabelMapError) as error:
        resolve(str(path))
    assert message in str(error.value)
    with pytest.raises(LabelMapError, match=r"^label_map: cannot read .*none\.pbtxt: No such file or directory$"):
        resolve(str(tmp_path / "none.pbtxt"))


@pytest.mark.parametrize(
    "one, other, is_similar",
    [
        ("Dog", "dog", True),
        ("dog", "DOG", True),
        ("dog", " dog ", True),
        ("traffic light", "traffic_light", True),
        ("traffic-light", "Traffic  Light", True),
        ("caf\u00e9", "cafe\u0301", True),  # two encodings of one text
        ("STRASSE", "straße", True),
        ("dog", "dogs", False),
        ("A-", "A", False),
        ("A-", "A+", False),
        ("class 1 1", "class 11", False),
    ],
)
def test_similar_names(one, other, is_similar):
    assert (label_map.spelling_key(one) == label_map.spelling_key(other)) == is_similar
    similar = label_map.show_similar({1: one, 2: "cat", 4: other}, {1: 5, 2: 3})
    assert similar == ([f"1 {one!r} on 5 boxes, 4 {other!r} on 0 boxes"] if is_similar else [])


@pytest.mark.parametrize(
    "class_id, expected", [(1, "vehicle"), (np.int32(3), "cyclist"), (3.0, "cyclist"), (7.0, "class 7")]
)
def test_name_of(class_id, expected):
    assert name_of(resolve("waymo"), class_id) == expected


def test_check_requires_num_classes_for_every_id():
    check(resolve("coco"), 90)
    check(resolve("voc"), 21)
    check({}, 1)
    with pytest.raises(LabelMapError) as error:
        check(resolve("coco"), 80)
    assert str(error.value) == "label_map has id 90 ('toothbrush') but num_classes is 80; set num_classes to 90 or more"
    with pytest.raises(
        LabelMapError, match=r"num_classes is 80; class ids, .* at most 10000: .* --consecutive_ids does$"
    ):
        check({9210045: "dog"}, 80)
