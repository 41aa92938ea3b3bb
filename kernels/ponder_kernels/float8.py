"""Conversion to and from float8_e4m3fn by integer operations, because not every GPU since sm_80 has fp8 units."""

try:
    import triton
    import triton.language as tl
except ImportError:  # a machine without a GPU needs no Triton
    triton = None

__all__ = ["LARGEST", "LEAST_SCALE"]

LARGEST = 448.0
LEAST_SCALE = 1e-12 / LARGEST  # the scale of a row of zeros

if triton is not None:

    @triton.jit
    def to_fp8(value):  # type: ignore[no-untyped-def]
        """Bits of float8_e4m3fn, rounded to nearest even, for float32 numbers of at most 448 in magnitude."""
        bits = value.to(tl.uint32, bitcast=True)
        sign = (bits >> 24) & 0x80
        size = tl.abs(value)
        magnitude = bits & 0x7FFFFFFF
        even = (magnitude >> 20) & 1
        normal = ((magnitude + 0x7FFFF + even) >> 20) - ((127 - 7) << 3)
        # Below 2^-6 the numbers are 2^-9 apart. Adding 2^14 makes float32 round to that step.
        small = (size + 16384.0).to(tl.uint32, bitcast=True) - 0x46800000
        return (sign | tl.where(size < 0.015625, small, normal)).to(tl.uint8)

    @triton.jit  # type: ignore[untyped-decorator]
    def from_fp8(bits, dtype: tl.constexpr):  # type: ignore[no-untyped-def]
        """Numbers of float8_e4m3fn divided by 256, exactly: their bits are moved into those of a float16."""
        wide = bits.to(tl.uint16)
        moved = ((wide & 0x80) << 8) | ((wide & 0x7F) << 7)
        return moved.to(tl.float16, bitcast=True).to(dtype)
