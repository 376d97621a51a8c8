"""The inference engines: ONNX Runtime and TensorRT, behind the interfaces of `engine.py`.

To add an engine, write a module beside `onnxruntime_engine.py` with an `OpenedModel` (what the streams of a bundle
share) that opens `Engines` (what one stream runs), and add it to `ENGINES` in `choose.py`.
"""
