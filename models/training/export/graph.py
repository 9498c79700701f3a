"""A small builder of ONNX graphs."""

import numpy as np
import onnx
from onnx import helper, numpy_helper

from export.onnx_export import IR_VERSION


class Graph:
    """Nodes and constants as they are made."""

    def __init__(self) -> None:
        self.nodes, self.constants = [], []

    def op(self, kind: str, *inputs: str, output: str | None = None, more_outputs: list[str] = (), **attributes) -> str:
        name = output or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name, *more_outputs], **attributes))
        return name

    def constant(self, values: np.ndarray) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def int64(self, values: list[int]) -> str:
        return self.constant(np.array(values, np.int64))

    def scalar(self, value: int) -> str:
        return self.constant(np.array(value, np.int64))

    def model(self, name: str, inputs: dict[str, tuple], outputs: dict[str, tuple]) -> bytes:
        """The checked model; inputs and outputs are type and shape by name."""
        given, made = (
            [helper.make_tensor_value_info(tensor, *what) for tensor, what in side.items()] for side in (inputs, outputs)
        )
        graph = helper.make_graph(self.nodes, name, given, made, initializer=self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=IR_VERSION)
        onnx.checker.check_model(model, full_check=True)
        return model.SerializeToString(deterministic=True)
