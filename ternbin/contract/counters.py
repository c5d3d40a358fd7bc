"""Names of the event counters."""

from ternbin.contract.isa import Epilogue, Mem, Unit

UNITS = ("load", "execute", "vector", "store")


VECTOR_WORDS = ("ln_sum", "ln_norm", "softmax_max", "softmax_exp", "softmax_code", "quant", "embed")


DRAINED = ("scores", "codes", "codes8", "residual", "argmax")


TABLES = (Mem.LUTV, Mem.LUTX)  # their accesses are not counted


TIMED = ("cycles", *(f"{unit.name.lower()}_busy" for unit in Unit), "axi_fetch_beats")


ARRAY = (
    "steps_single_plane",
    "columns_single_plane",
    "execute_array_active",
    "execute_array_columns",
    "execute_rowsum_active",
)


COUNTERS = (
    *(f"{unit.name.lower()}_instructions" for unit in Unit),
    "axi_load_beats",
    "axi_write_beats",
    *ARRAY,
    *(f"execute_drained_{epilogue.name.lower()}" for epilogue in Epilogue if epilogue != Epilogue.TOP),
    *(
        f"vector_{name}"
        for name in (
            "ln_sum_words",
            "ln_norm_words",
            "ln_rsqrt",
            "softmax_max_words",
            "softmax_exp_words",
            "softmax_code_words",
            "divides",
            "quant_words",
            "embed_words",
            "plane_writes",
        )
    ),
    *(f"{mem.name.lower()}_{kind}" for mem in Mem if mem not in TABLES for kind in ("reads", "writes")),
)
