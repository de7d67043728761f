"""optkit: quantize, sparsify and distil BERT-type models, and serve what is measured to be good."""

__version__ = "0.1.0"
