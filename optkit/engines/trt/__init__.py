"""What the TensorRT engine is made of: the library, settings, building, evidence, and the runner."""
