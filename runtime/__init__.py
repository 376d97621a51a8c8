"""Runs a bundle: source, clock, engines, stream, publisher. It imports neither torch nor onnx."""
