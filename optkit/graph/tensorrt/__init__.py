"""The graph rewritten for TensorRT: one for each precision and placement of quantisers."""
