"""What the TensorRT engine is made of."""
