"""How attention's rows, (query, head) pairs of one kv head, are cut into tiles, and how a tile is spread over threads.

A tile of one query has the rows that a matrix unit takes at least; one of several has 64, so that the keys are read
once for as many siblings as fit. tests/kernels/test_compile.py holds what they compile to.
"""

__all__ = ["narrow_rows", "options", "queries_of", "wide_rows"]

LEAST_ROWS = 16


def queries_of(num_groups: int, head_dim: int, item_size: int) -> int:
    """Queries of a wide tile: as many rows as have their results in the registers."""
    rows = (64 if head_dim <= 128 else 32) if item_size <= 2 else (32 if head_dim <= 64 else 16)
    return max(1, rows // num_groups)


def narrow_rows(num_groups: int) -> int:
    return max(LEAST_ROWS, _power_of_2(num_groups))


def wide_rows(num_groups: int, tile_queries: int) -> int:
    return max(LEAST_ROWS, _power_of_2(num_groups * tile_queries))


def options(block_rows: int, block_dim: int, item_size: int, *, fp8: bool) -> dict[str, int]:
    """Triton's. item_size: of the queries."""
    if item_size == 4:  # no matrix units: a product's operands stand in registers
        return {"num_warps": 16 if block_dim > 128 else 8, "num_stages": 1, "maxnreg": 128 if block_dim > 128 else 255}
    wide = block_rows * block_dim >= 64 * 64
    out = {"num_warps": 8 if wide else 4, "num_stages": 1 if wide and fp8 else 2}
    if fp8 or block_dim > 128:  # left alone, the assembler spills a little to save many registers
        out["maxnreg"] = 255
    return out


def _power_of_2(least: int) -> int:
    return 1 << (least - 1).bit_length()
