"""Marian: BART without a LayerNorm after the embedding, its positions sines."""
