"""Published accelerators for quantized networks, as their authors state them; nothing is scaled. One multiply-accumulate is two operations.

``node_nm``, ``volt``: None where the abstract of the source does not state them.
"""

PUBLISHED = [
    {
        "name": "BrainTTA",
        "operands": "binary",
        "fj_per_op": 35.0,
        "node_nm": None,
        "volt": None,
        "source": "arXiv 2211.11331, peak",
    },
    {
        "name": "BrainTTA",
        "operands": "ternary",
        "fj_per_op": 67.0,
        "node_nm": None,
        "volt": None,
        "source": "arXiv 2211.11331, peak",
    },
    {
        "name": "BrainTTA",
        "operands": "INT8",
        "fj_per_op": 405.0,
        "node_nm": None,
        "volt": None,
        "source": "arXiv 2211.11331, peak",
    },
    {
        "name": "XNE",
        "operands": "binary",
        "fj_per_op": 21.6,
        "node_nm": 22,
        "volt": 0.4,
        "source": "arXiv 1807.03010, microcontroller, post layout",
    },
    {
        "name": "TCN-CUTIE",
        "operands": "ternary",
        "fj_per_op": 1e3 / 1036,
        "node_nm": 22,
        "volt": 0.5,
        "source": "arXiv 2212.00688, 1036 TOp/s/W, peak",
    },
    {
        "name": "ITA",
        "operands": "INT8",
        "fj_per_op": 1e3 / 16.9,
        "node_nm": 22,
        "volt": 0.8,
        "source": "ITA, 16.9 TOPS/W",
    },
]
