"""The shapes of attention's tiles. A tile's rows are the (query, head) pairs that share one kv head.

A tile for one query has as few rows as a matrix unit takes. A tile for several queries has 64, so that one read of the
keys serves as many siblings as possible. tests/kernels/test_compile.py checks what both compile to.
"""

__all__ = ["launch_options", "narrow_rows", "queries_per_tile", "wide_rows"]

LEAST_ROWS = 16


def queries_per_tile(num_groups: int, head_dim: int, item_size: int) -> int:
    """Number of queries in a wide tile, chosen so that the results of all its rows fit in registers."""
    rows = (64 if head_dim <= 128 else 32) if item_size <= 2 else (32 if head_dim <= 64 else 16)
    return max(1, rows // num_groups)


def narrow_rows(num_groups: int) -> int:
    """Number of rows in a tile for one query."""
    return max(LEAST_ROWS, _power_of_2(num_groups))


def wide_rows(num_groups: int, tile_queries: int) -> int:
    """Number of rows in a tile for several queries."""
    return max(LEAST_ROWS, _power_of_2(num_groups * tile_queries))


def launch_options(block_rows: int, block_dim: int, item_size: int, *, fp8: bool) -> dict[str, int]:
    """Triton's options for a tile of this shape. item_size: bytes of one query element."""
    if item_size == 4:  # float32 uses no matrix units, so the operands of a product stay in registers
        return {"num_warps": 16 if block_dim > 128 else 8, "num_stages": 1, "maxnreg": 128 if block_dim > 128 else 255}
    wide = block_rows * block_dim >= 64 * 64
    out = {"num_warps": 8 if wide else 4, "num_stages": 1 if wide and fp8 else 2}
    if fp8 or block_dim > 128:  # without a limit the assembler spills a little to save many registers
        out["maxnreg"] = 255
    return out


def _power_of_2(least: int) -> int:
    return 1 << (least - 1).bit_length()
