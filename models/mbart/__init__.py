"""mBART: BART with LayerNorms before the blocks and one at the end of each stack."""
