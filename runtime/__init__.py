"""The room that runs: source, clock, engines, stream, publisher. No torch, no onnx in here."""
