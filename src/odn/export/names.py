"""What each export is called: its format, the file that it is in, and the runtime that runs it."""

FILES = {
    "onnx": "model.onnx",
    "onnx-int8": "model.int8.onnx",
    "torch": "model.pt2",
    "executorch": "model.pte",
    "executorch-int8": "model.int8.pte",
}
RUNTIMES = {
    "onnx": "onnxruntime",
    "onnx-int8": "onnxruntime",
    "torch": "torch",
    "executorch": "executorch",
    "executorch-int8": "executorch",
}
RECORD = "export.json"
NETWORK = "network"  # the row of the network itself, in torch, beside the formats
