"""What computes a level of the pyramid: ONNX Runtime or TensorRT, behind one interface."""
