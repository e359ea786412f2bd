# Copyright 2026 The EfficientDet TensorFlow 2 Authors.
# SPDX-License-Identifier: Apache-2.0
"""Non-maximum suppression of a batch in ONNX without a loop, which OpenVINO cannot read.

Needs the packages of requirements-onnx.txt, which are imported where they are used.
"""

from typing import Any

import numpy as np


def unroll(proto) -> None:
    """Replaces the loop that suppresses boxes image by image, if there is one, by one NonMaxSuppression.

    tf2onnx makes the loop from `tf.map_fn` over `nms.nms`, for any number of images. A loop inside it, over classes,
    is kept, and so is the loop of fewer boxes than detections.

    Args:
        proto: onnx.ModelProto, changed in place.
    """
    import onnx

    shapes = {v.name: v.type.tensor_type.shape.dim for v in onnx.shape_inference.infer_shapes(proto).graph.value_info}
    for loop in [node for node in proto.graph.node if node.op_type == "Loop"]:
        body = next(attribute.g for attribute in loop.attribute if attribute.name == "body")
        producers = {name: node for node in body.node for name in node.output}
        constants = {tensor.name: tensor for tensor in body.initializer}
        for nms in [node for node in body.node if node.op_type == "NonMaxSuppression"]:
            boxes, scores = (_outer(name, producers) for name in nms.input[:2])
            limits = [constants.get(name) for name in nms.input[2:]]
            if None in (boxes, scores, *limits):
                continue
            size = int(onnx.numpy_helper.to_array(limits[0]).item())
            if scores in shapes and len(shapes[scores]) == 2 and shapes[scores][1].dim_value >= size:
                _replace(proto.graph, loop, _outputs(loop, body), boxes=boxes, scores=scores, limits=limits)


def _outer(name: str, producers: dict[str, Any]) -> str | None:
    """Returns the tensor outside a loop whose part for one image reaches NonMaxSuppression; None if there is none."""
    while name in producers and producers[name].op_type == "Unsqueeze":
        name = producers[name].input[0]
    node = producers.get(name)
    is_part = node is not None and node.op_type == "Gather" and node.input[0] not in producers
    return node.input[0] if is_part else None


def _outputs(loop, body) -> dict[str, str]:
    """Returns the stacked outputs of a loop by meaning, from their types: {"scores" | "indices" | "count": name}."""
    from onnx import TensorProto

    num_carried = len(loop.input) - 2
    names = {}
    for name, value in zip(loop.output[num_carried:], body.output[1 + num_carried :], strict=True):
        tensor = value.type.tensor_type
        is_float = tensor.elem_type == TensorProto.FLOAT
        names["scores" if is_float else "indices" if tensor.shape.dim else "count"] = name
    return names


def _replace(graph, loop, outputs: dict[str, str], *, boxes: str, scores: str, limits: list) -> None:
    """Replaces the loop in a graph; removes the nodes that computed only its condition."""
    from onnx import TensorProto, helper, numpy_helper

    prefix = f"{loop.name}/batch"
    constants = [*map(numpy_helper.to_array, limits), np.int64([1]), np.int64([0, 2]), np.float32(0)]
    names = size, iou, score, one, columns, zero = [
        f"{prefix}/{name}" for name in ("size", "iou", "score", "one", "columns", "zero")
    ]
    graph.initializer.extend(map(numpy_helper.from_array, constants, names))
    nodes = []

    def add(op_type: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        name = output or f"{prefix}/{len(nodes)}"
        more = [f"{name}_indices"] if op_type == "TopK" else []
        nodes.append(helper.make_node(op_type, inputs, [name, *more], f"{prefix}/{len(nodes)}", **attributes))
        return name

    kept = add("NonMaxSuppression", boxes, add("Unsqueeze", scores, one), size, iou, score)  # [n, 3] of image, 0, box
    pairs = add("Gather", kept, columns, axis=1)  # [n, 2] of image, box
    nothing = numpy_helper.from_array(np.float32([-1]), "value")
    none = add("ConstantOfShape", add("Shape", scores), value=nothing)
    marked = add("ScatterND", none, pairs, add("GatherND", scores, pairs))  # [B, K], -1 for suppressed boxes
    best = add("TopK", marked, add("Reshape", size, one))  # in the order of NonMaxSuppression, also for equal scores
    add("Cast", f"{best}_indices", output=outputs["indices"], to=TensorProto.INT32)
    add("Max", best, zero, output=outputs["scores"])
    is_kept = add("Cast", add("GreaterOrEqual", best, zero), to=TensorProto.INT32)
    add("ReduceSum", is_kept, one, output=outputs["count"], keepdims=0)
    place = next(i for i, node in enumerate(graph.node) if node.name == loop.name)
    _set_nodes(graph, [*graph.node[:place], *nodes, *graph.node[place + 1 :]])


def _set_nodes(graph, nodes: list) -> None:
    """Makes those nodes the graph's on which its outputs depend; nodes with subgraphs are kept."""
    used, live = {output.name for output in graph.output}, []
    for node in reversed(nodes):
        if used.intersection(node.output) or any(attribute.HasField("g") for attribute in node.attribute):
            live.insert(0, node)
            used.update(node.input)
    del graph.node[:]
    graph.node.extend(live)
