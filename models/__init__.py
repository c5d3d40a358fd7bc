"""Quantized BART: quantizers, training, data, lowering, the bundled checkpoint."""
