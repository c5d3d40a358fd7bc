"""What a refusal says: sizes of the memories with which the model maps."""

from collections.abc import Callable
from dataclasses import replace

from ternbin.contract.hw import HwConfig
from ternbin.contract.memories import ceil_div
from ternbin.errors import InputError
from ternbin.mapping.allocator import CapacityError


def refusal(hw: HwConfig, error: CapacityError, fits: Callable[[HwConfig], None]) -> CapacityError:
    """The error, and sizes that are enough where there are such; ``fits`` raises InputError for hardware that will not do."""
    sizes = _enough(hw, error, fits)
    if not sizes:
        return error
    named = ", ".join(f"{field} = {size}" for field, size in sizes.items())
    return CapacityError(f"{error}; it maps with {named}", error.field, sizes[error.field])


def _enough(hw: HwConfig, error: CapacityError, fits: Callable[[HwConfig], None]) -> dict[str, int]:
    """Fields of the configuration, as large as each refusal in turn asks for, or by a quarter more where that did not do."""
    sizes: dict[str, int] = {}
    while True:
        field, size = error.field, error.need
        if field in sizes:
            size = max(size, sizes[field] + ceil_div(sizes[field], 4))
        try:
            hw = replace(hw, **{field: size})
            fits(hw)
        except CapacityError as next_error:
            sizes[field], error = size, next_error
        except InputError:
            return {}
        else:
            return sizes | {field: size}
