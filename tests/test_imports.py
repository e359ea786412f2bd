# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Tests of imports: one direction through packages and files, one Keras, light modules."""

import ast
import fnmatch
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# Bottom up: a file imports only modules listed above it. The name of a package stands for its __init__.py.
ORDER = [
    "backbone.choices",
    "backbone.layers",
    "backbone.efficientnet_model",
    "backbone.efficientnet_builder",
    "backbone",
    "efficientdet.fpn_configs",
    "efficientdet.config_values",
    "efficientdet.hparams",
    "efficientdet.config",
    "efficientdet.boxes",
    "efficientdet.anchors",
    "efficientdet.targets",
    "efficientdet.preprocess",
    "efficientdet.losses",
    "efficientdet.nms",
    "efficientdet.postprocess",
    "efficientdet.bifpn",
    "efficientdet.heads",
    "efficientdet.tta",
    "efficientdet.model",
    "efficientdet",
    "dataset.file_access",
    "dataset.file_search",
    "dataset.files",
    "dataset.native_log",
    "dataset.command_line",
    "dataset.label_map",
    "dataset.tfrecord",
    "dataset.coco_json",
    "dataset.records",
    "dataset.record_count",
    "dataset.window",
    "dataset.augment.geometry",
    "dataset.augment.*",  # the operations
    "dataset.augment.autoaugment",  # policies of operations
    "dataset.augment",
    "dataset.dataloader",
    "dataset.visualize",
    "dataset.scenes",
    "dataset.convert.truncated",
    "dataset.convert.image_file",
    "dataset.convert.box_frame",
    "dataset.convert.conversion_report",
    "dataset.convert.split_names",
    "dataset.convert.image_folder",
    "dataset.convert.annotation",
    "dataset.convert.voc_set",
    "dataset.convert.shards",
    "dataset.convert.*",  # the source formats, and command
    "dataset.convert.sample_data",
    "dataset.convert",
    "dataset.prepare.archive",
    "dataset.prepare.folder_listing",
    "dataset.prepare.*",  # the layouts of each format, and split
    "dataset.prepare.layout",
    "dataset.prepare.prepared_data",
    "dataset.prepare.prepared",
    "dataset.prepare",
    "dataset.check.finding",
    "dataset.check.class_ids",
    "dataset.check.box_layouts",
    "dataset.check.swap_evidence",
    "dataset.check.record_facts",
    "dataset.check.object_use",
    "dataset.check.json_checks",
    "dataset.check.name_checks",
    "dataset.check.anchor_fit",
    "dataset.check.checks",
    "dataset.check.run_checks",
    "dataset.check.data_report",
    "dataset.check.inspection",
    "dataset.check",
    "dataset.create_*",
    "dataset.inspect_tfrecords",
    "dataset.check_tfrecords",
    "dataset",
    "tf2.weights.published",
    "tf2.weights.saved_config",
    "tf2.weights.class_names",
    "tf2.weights.object_keys",
    "tf2.weights.structure",
    "tf2.weights.checkpoint",
    "tf2.weights.base_config",
    "tf2.weights",
    "tf2.inference.metadata",
    "tf2.inference.constants",
    "tf2.inference.graph",
    "tf2.inference.encoded_image",
    "tf2.inference.signatures",
    "tf2.inference.functions",
    "tf2.inference.runtimes",
    "tf2.inference.drivers",
    "tf2.inference.provenance",
    "tf2.inference.detection_list",
    "tf2.inference.container",
    "tf2.inference.capture",
    "tf2.inference.video_file",
    "tf2.inference.*",  # images, video
    "tf2.inference",
    "tf2.training.cluster",
    "tf2.training.strategy",
    "tf2.training.exchange",
    "tf2.training.same_start",
    "tf2.training.optimizer",
    "tf2.training.model_dir",
    "tf2.training.skipped_steps",
    "tf2.training.trainer",
    "tf2.training.run_lock",
    "tf2.training.progress",
    "tf2.training.history",
    "tf2.training.interrupt",
    "tf2.training.workers",
    "tf2.training.best_result",
    "tf2.training.resume",
    "tf2.training.epoch",
    "tf2.training.train",
    "tf2.training.recipe",
    "tf2.training",
    "tf2.evaluation.coco_metric",
    "tf2.evaluation.voc_metric",
    "tf2.evaluation.replicas",
    "tf2.evaluation.evaluator",
    "tf2.evaluation.follow",
    "tf2.evaluation.report.error_analysis",
    "tf2.evaluation.report.gallery",
    "tf2.evaluation.report.p*",  # page, plots
    "tf2.evaluation.report.report",
    "tf2.evaluation.report",
    "tf2.evaluation.evaluate",
    "tf2.evaluation.training_report",
    "tf2.evaluation.train_and_eval",
    "tf2.evaluation.next_commands",
    "tf2.evaluation",
    "tf2.export.memory",
    "tf2.export.parity_report",
    "tf2.export.agreement",
    "tf2.export.rounding",
    "tf2.export.parity",
    "tf2.export.quiet",
    "tf2.export.saved_model",
    "tf2.export.tflite_*",  # metadata, and model
    "tf2.export.onnx_precision",
    "tf2.export.onnx_suppression",
    "tf2.export.*",  # a family of formats each
    "tf2.export.export",
    "tf2.export",
    "tf2.benchmarks.measure",
    "tf2.benchmarks.random_batch",
    "tf2.benchmarks.stablehlo",
    "tf2.benchmarks.openxla_*",  # export, and jax
    "tf2.benchmarks.*",  # latency, training, openxla
    "tf2.benchmarks",
    "tf2",
    "main_flags",
    "main",
    "model_inspect",
    "testdata.*",
]
PACKAGES = ["backbone", "efficientdet", "dataset", "tf2"]
PROGRAM = [path for package in [*PACKAGES, "testdata"] for path in sorted((ROOT / package).rglob("*.py"))]
PROGRAM += sorted(ROOT.glob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
SCRIPTS = [path for path in PROGRAM if "\n    command_line.run(main" in path.read_text()]


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def rank(module):
    """Returns the index of a module in ORDER, or None; exact names take precedence over patterns."""
    if module in ORDER:
        return ORDER.index(module)
    return next((i for i, pattern in enumerate(ORDER) if fnmatch.fnmatchcase(module, pattern)), None)


def imports(tree):
    """Yields (statement, dotted name) for all imports, including those in functions; `from a import b` yields a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node, f"{'.' * node.level}{node.module or ''}.{alias.name}") for alias in node.names)


def our_module(name):
    """Returns the longest prefix of a dotted name that is a file or package of this repository, or None."""
    parts = name.split(".")
    if parts[0] not in [*PACKAGES, "testdata", "tests", "main", "model_inspect"]:
        return None
    for end in range(len(parts), 0, -1):
        path = ROOT.joinpath(*parts[:end])
        if path.with_suffix(".py").exists() or path.is_dir():
            return ".".join(parts[:end])
    return name


@pytest.mark.parametrize("path", PROGRAM, ids=module_name)
def test_imports_point_one_way(path):
    own = rank(module_name(path))
    assert own is not None, f"{path} is not in ORDER: give it a line above everything that imports it"
    for node, name in imports(ast.parse(path.read_text())):
        assert not name.startswith("."), f"{path}:{node.lineno} imports {name}: spell the package out"
        module = our_module(name)
        if module is not None:
            position = rank(module)
            assert position is not None and position < own, (
                f"{path}:{node.lineno} imports {module}, which is not below it"
            )


@pytest.mark.parametrize("path", PROGRAM, ids=module_name)
def test_only_tests_import_scripts(path):
    scripts = {module_name(script) for script in SCRIPTS}
    assert {"main", "dataset.create_coco_tfrecord"} <= scripts
    for node, name in imports(ast.parse(path.read_text())):
        assert our_module(name) not in scripts, f"{path}:{node.lineno} imports the script {name}"


@pytest.mark.parametrize("path", PROGRAM + TESTS, ids=module_name)
def test_keras_is_tf_keras(path):
    tree = ast.parse(path.read_text())
    for node, name in imports(tree):
        where = f"{path}:{node.lineno}: {name}"
        assert name.split(".")[0] != "keras" and not name.startswith("tensorflow.keras"), where
        if name.split(".")[0] == "tf_keras":
            assert ast.unparse(node) == "import tf_keras as keras", where
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == "keras":
            assert ast.unparse(node.value) not in ("tf", "tensorflow", "tf.compat.v1"), f"{path}:{node.lineno}"


@pytest.mark.parametrize("path", PROGRAM, ids=module_name)
def test_optional_packages_are_not_imported(path):
    """TensorFlow Addons is a test reference; OpenCV needs libGL, which training servers often lack."""
    tree = ast.parse(path.read_text())
    in_functions = [f for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)]
    late = {id(node) for function in in_functions for node in ast.walk(function)}
    for node, name in imports(tree):
        assert name.split(".")[0] != "tensorflow_addons", f"{path}:{node.lineno}"
        assert name.split(".")[0] != "cv2" or id(node) in late, f"{path}:{node.lineno}: import cv2 where video is read"


@pytest.mark.parametrize("path", [p for p in PROGRAM if p.parent.name in PACKAGES[:2]], ids=module_name)
def test_the_detector_uses_no_files_flags_or_clocks(path):
    banned = {"argparse", "datetime", "glob", "io", "os", "pathlib", "shutil", "tempfile", "time"}
    if path.name == "hparams.py":  # reads the YAML file given by --hparams
        banned -= {"os"}
    for node, name in imports(ast.parse(path.read_text())):
        assert name.split(".")[0] not in banned and not name.startswith("absl.flags"), f"{path}:{node.lineno}: {name}"


def test_config_needs_only_the_standard_library_and_yaml():
    """So do the modules that it imports: invalid flags are reported before TensorFlow is imported."""
    modules = ["efficientdet.config"]
    for module in modules:
        for node, name in imports(ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text())):
            if our_module(name):
                modules.append(our_module(name))
            else:
                where = f"{module}:{node.lineno}: {name}"
                assert name.split(".")[0] in sys.stdlib_module_names | {"yaml"}, where
    assert {"backbone.choices", "efficientdet.hparams"} <= set(modules)


@pytest.mark.parametrize(
    "source, module, allowed",
    [
        ("from efficientdet import boxes", "efficientdet.anchors", True),
        ("from efficientdet.boxes import area", "efficientdet.anchors", True),
        ("from efficientdet import model", "efficientdet.anchors", False),  # a later file
        ("import tf2.training.trainer", "dataset.dataloader", False),  # a later package
        ("def late():\n    import tf2", "dataset.dataloader", False),  # in a function
        ("from tests import conftest", "main", False),
    ],
)
def test_order_detects_upward_imports(source, module, allowed):
    [(_, name)] = imports(ast.parse(source))
    position = rank(our_module(name))
    assert (position is not None and position < rank(module)) == allowed


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("script", ["main.py", "model_inspect.py", "dataset/check_tfrecords.py"])
def test_installed_packages_of_the_same_names_do_not_shadow_ours(tmp_path, script, before):
    """PyPI has a package `dataset`, which would take precedence over ours without __init__.py."""
    for package in PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise ImportError('another package of this name')\n")
    paths = [str(tmp_path), str(ROOT)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths if before else paths[::-1])}
    result = subprocess.run(
        [sys.executable, str(ROOT / script), "--help"], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert result.returncode == 0 and "--" in result.stdout, result.stderr


@pytest.mark.parametrize("path", [p for package in PACKAGES for p in sorted((ROOT / package).rglob("*.py"))], ids=str)
def test_every_folder_of_source_is_a_package(path):
    assert (path.parent / "__init__.py").exists()
