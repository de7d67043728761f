"""What makes a model smaller: distillation, 2:4 sparsity, INT8 quantization."""
