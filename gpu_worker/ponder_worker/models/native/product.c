/* bfloat16 matrix products on AMX: tiles of 16 x 16 sums, each over pairs of 32 numbers. */
#include "tiles.h"
#include <stdlib.h>

#if TILES
#include <sys/syscall.h>
#include <unistd.h>

#define DEPTH 32
#define BLOCK 32
#define CACHED (1 << 20) /* bytes of rows that are to stay in a core's second cache */

/* 1 if this process may use the tiles: https://docs.kernel.org/arch/x86/xstate.html */
int64_t has_products(void) { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }

/* weight: `[out, in]`, in a multiple of 32 -> packed: `[ceil(out / 32), in / 32, 2, 16, 16, 2]`, padded with zeros. */
void pack(const element *weight, element *packed, int64_t num_out, int64_t num_in) {
    for (int64_t block = 0; block * BLOCK < num_out; block++)
        for (int64_t step = 0; step < num_in / DEPTH; step++)
            for (int64_t half = 0; half < 2; half++)
                for (int64_t pair = 0; pair < 16; pair++)
                    for (int64_t column = 0; column < 16; column++) {
                        int64_t row = block * BLOCK + half * 16 + column;
                        for (int64_t i = 0; i < 2; i++)
                            *packed++ = row < num_out ? weight[row * num_in + step * DEPTH + pair * 2 + i] : 0;
                    }
}

/* One block of 32 outputs of 32 rows, of which `count` are wanted. low, high: 16 rows each. */
static void multiply_block(const element *low, const element *high, int64_t x_stride, int64_t count, const element *packed, int64_t steps,
                           const element *bias, element *out, int64_t out_stride, int64_t width) {
    float sums[BLOCK][BLOCK] __attribute__((aligned(64)));
    _tile_zero(0);
    _tile_zero(1);
    if (count > 16) {
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t step = 0; step < steps; step++) {
            _tile_loadd(4, low + step * DEPTH, x_stride * 2);
            _tile_loadd(6, packed + step * 1024, 64);
            _tile_loadd(7, packed + step * 1024 + 512, 64);
            _tile_loadd(5, high + step * DEPTH, x_stride * 2);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        _tile_stored(2, &sums[16][0], sizeof sums[0]);
        _tile_stored(3, &sums[16][16], sizeof sums[0]);
    } else {
        for (int64_t step = 0; step < steps; step++) {
            _tile_loadd(4, low + step * DEPTH, x_stride * 2);
            _tile_loadd(6, packed + step * 1024, 64);
            _tile_loadd(7, packed + step * 1024 + 512, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
        }
    }
    _tile_stored(0, &sums[0][0], sizeof sums[0]);
    _tile_stored(1, &sums[0][16], sizeof sums[0]);
    for (int64_t row = 0; row < count; row++)
        for (int64_t i = 0; i < width; i += LANES) {
            floats found = load_floats(&sums[row][i]);
            store(out + row * out_stride + i, bias ? found + load(bias + i) : found);
        }
}

/* x: `[num_rows, in]`; packed: as `pack` leaves it; out: `[num_rows, out]`, a multiple of 16 wide */
void multiply(const element *x, int64_t num_rows, const element *packed, const element *bias,
              element *out, int64_t num_in, int64_t num_out, int64_t num_threads) {
    if (!num_rows) return;
    int64_t steps = num_in / DEPTH, rows = CACHED / (2 * num_in) / BLOCK * BLOCK;
    rows = rows ? rows : BLOCK;
    /* The last rows stand in a whole tile of their own. Fewer than a tile in all need none: the tile is made smaller. */
    int64_t whole = num_rows < 16 ? num_rows : num_rows / 16 * 16;
    element *rest = 0;
    if (whole < num_rows) {
        rest = calloc(16 * num_in, sizeof *rest);
        if (!rest) abort();
        memcpy(rest, x + whole * num_in, (num_rows - whole) * num_in * sizeof *rest);
    }
    SETTLE();
#pragma omp parallel num_threads((int)num_threads)
    {
        tiles before = num_rows < 16 ? begin_tiles(1 << 0 | 1 << 1 | 1 << 4, (int)num_rows) : begin_tiles(0, 16);
        for (int64_t first = 0; first < num_rows; first += rows) {
            int64_t end = first + rows < num_rows ? first + rows : num_rows;
#pragma omp for nowait
            for (int64_t column = 0; column < num_out; column += BLOCK)
                for (int64_t row = first; row < end; row += BLOCK)
                    multiply_block(row < whole ? x + row * num_in : rest, row + 16 < whole ? x + (row + 16) * num_in : rest,
                                   num_in, end - row < BLOCK ? end - row : BLOCK,
                                   packed + column * num_in, steps, bias ? bias + column : 0,
                                   out + row * num_out + column, num_out,
                                   num_out - column < BLOCK ? num_out - column : BLOCK);
        }
        end_tiles(before);
    }
    free(rest);
}
#else
int64_t has_products(void) { return 0; }
void pack(const element *weight, element *packed, int64_t num_out, int64_t num_in) {}
void multiply(const element *x, int64_t num_rows, const element *packed, const element *bias,
              element *out, int64_t num_in, int64_t num_out, int64_t num_threads) {}
#endif
