"""Quantized models: families, quantizers, lowering, training, data, the bundled checkpoint."""
