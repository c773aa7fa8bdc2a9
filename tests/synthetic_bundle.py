"""A bundle written without torch, whose student answers with the mean of the pixels: every number by hand."""

import json

from onnx import TensorProto, helper, save

from subclass_kd.bundle_files import describe_files, seal


def write_bundle(folder, *, channels=1, size=8, resize=True, threshold=0.25, classes=("dark", "bright")):
    """Write a bundle whose student says m = mean(pixels) / 255: of the first class 1 - m, of the second m, of others 0.

    Its subclasses, one of the first class and two of the second, get 1 - m, m / 4 and 3 m / 4; with three classes there
    are none.
    """
    folder.mkdir()
    columns = len(classes)
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["floats", "axes"], ["mean"], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "one"], ["column"]),
        helper.make_node("MatMul", ["column", "class_weights"], ["class_terms"]),
        helper.make_node("Add", ["class_terms", "class_bias"], ["class_probabilities"]),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3]),
        helper.make_tensor("one", TensorProto.INT64, [1], [1]),
        helper.make_tensor("class_weights", TensorProto.FLOAT, [1, columns], [-1 / 255, 1 / 255, 0][:columns]),
        helper.make_tensor("class_bias", TensorProto.FLOAT, [columns], [1, 0, 0][:columns]),
    ]
    outputs = [helper.make_tensor_value_info("class_probabilities", TensorProto.FLOAT, ["n", columns])]
    if columns == 2:
        nodes += [
            helper.make_node("MatMul", ["column", "subclass_weights"], ["subclass_terms"]),
            helper.make_node("Add", ["subclass_terms", "subclass_bias"], ["subclass_probabilities"]),
        ]
        weights = [-1 / 255, 0.25 / 255, 0.75 / 255]
        constants += [
            helper.make_tensor("subclass_weights", TensorProto.FLOAT, [1, 3], weights),
            helper.make_tensor("subclass_bias", TensorProto.FLOAT, [3], [1, 0, 0]),
        ]
        outputs.append(helper.make_tensor_value_info("subclass_probabilities", TensorProto.FLOAT, ["n", 3]))
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", channels, size, size])
    graph = helper.make_graph(nodes, "mean", [pixels], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    save(model, folder / "model.onnx")
    names = ["night", "dusk", "day"]
    of = [classes[0], classes[1], classes[-1]]
    stated = {
        "schema": 1,
        "hierarchy": {
            "classes": list(classes),
            "subclasses": [{"name": n, "class": c} for n, c in zip(names, of, strict=True)],
        },
        "positive": classes[1],
        "preprocessing": {"channels": channels, "height": size, "width": size, "resize": resize, "white": 65535},
        "outputs": [output.name for output in outputs],
        "temperature": {"value": 1.0},
        "decision": {"threshold": threshold if columns == 2 else None},
        "files": describe_files(folder),
    }
    (folder / "bundle.json").write_text(json.dumps(stated))
    seal(folder)
    return folder


def add_int8(folder, advice):
    """Add a student of 8 bits, which is the same one, and what is advised on it."""
    (folder / "model-int8.onnx").write_bytes((folder / "model.onnx").read_bytes())
    files = {name: row for name, row in describe_files(folder).items() if name.startswith("model")}
    change_bundle(folder, files=files, int8={"advice": advice})
    return folder


def change_bundle(folder, **keys):
    """Set keys of bundle.json, such as ``preprocessing={"white": 4095}``, and seal the bundle again."""
    stated = json.loads((folder / "bundle.json").read_text())
    for key, value in keys.items():
        stated[key] = stated.get(key, {}) | value if isinstance(value, dict) else value
    (folder / "bundle.json").write_text(json.dumps(stated))
    seal(folder)
