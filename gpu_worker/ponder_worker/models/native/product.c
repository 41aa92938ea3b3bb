/* bfloat16 matrix products on AMX, in tiles of 16 x 16 sums over 32 numbers. */
#include "tiles.h"
#include <stdlib.h>

#if TILES
#include <omp.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DEPTH 32
#define BLOCK 32
#define CELL (BLOCK * DEPTH) /* numbers of one step, of rows and of weights alike: two tiles */
#define LINES (CELL * 2 / 64) /* cache lines that the weights of a step fill */
#define CACHED (1 << 20) /* bytes of rows that fit into a core's second-level cache */
#define MANY 512 /* with at least this many rows, threads divide the rows and not the weights */

/* Return 1 if this process may use AMX (https://docs.kernel.org/arch/x86/xstate.html). */
int64_t has_products(void) { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }

/* Pack a weight `[out, in]`, with `in` a multiple of 32, into `[ceil(out / 32), in / 32, 2, 16, 16, 2]`, padded with zeros.
 * The packed weight uses huge pages if the system has some. */
void pack(const element *weight, element *packed, int64_t num_out, int64_t num_in) {
    uintptr_t start = ((uintptr_t)packed + 4095) & ~(uintptr_t)4095, end = (uintptr_t)(packed + (num_out + BLOCK - 1) / BLOCK * BLOCK * num_in);
    if (start < end) madvise((void *)start, end - start, MADV_HUGEPAGE);
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

typedef struct {
    const element *x, *packed, *bias;
    element *out;
    int64_t steps, num_out;
} product;

/* Pack rows into consecutive tiles, `[ceil(count / 32), steps, 2, 16, 32]`. The last tile is padded with zeros. */
static void pack_rows(const product *p, int64_t first, int64_t count, element *rows) {
    for (int64_t row = 0; row < (count + 15) / 16 * 16; row++) {
        element *cell = rows + row / BLOCK * p->steps * CELL + row % BLOCK * DEPTH;
        for (int64_t step = 0; step < p->steps; step++)
            if (row < count) memcpy(cell + step * CELL, p->x + ((first + row) * p->steps + step) * DEPTH, DEPTH * sizeof *cell);
            else memset(cell + step * CELL, 0, DEPTH * sizeof *cell);
    }
}

/* Compute the sums of 32 outputs for 16 rows, or for 32 rows if `both`. Meanwhile prefetch what is needed next into the
 * second-level cache, `lines` cache lines a step, because the processor does not look that far ahead. */
static inline __attribute__((always_inline)) void sum_block(int both, const element *rows, const element *packed, int64_t steps,
                                                            const element *next, int64_t lines, float *sums) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (int64_t step = 0; step < steps; step++) {
        _tile_loadd(6, packed + step * CELL, 64);
        _tile_loadd(4, rows + step * CELL, 64);
        for (int64_t i = 0; i < lines; i++) _mm_prefetch(next + (step * lines + i) * 32, _MM_HINT_T1);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, packed + step * CELL + CELL / 2, 64);
        _tile_dpbf16ps(1, 4, 7);
        if (both) {
            _tile_loadd(5, rows + step * CELL + CELL / 2, 64);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, sums, BLOCK * sizeof *sums);
    _tile_stored(1, sums + 16, BLOCK * sizeof *sums);
    _tile_stored(2, sums + 16 * BLOCK, BLOCK * sizeof *sums);
    _tile_stored(3, sums + 16 * BLOCK + 16, BLOCK * sizeof *sums);
}

/* Compute the outputs [first, end) of packed rows. */
static void multiply_rows(const product *p, const element *rows, int64_t row, int64_t count, int64_t first, int64_t end) {
    float sums[BLOCK * BLOCK] __attribute__((aligned(64)));
    int64_t num_blocks = (count + BLOCK - 1) / BLOCK, lines = (LINES + num_blocks - 1) / num_blocks;
    for (int64_t column = first; column < end; column += BLOCK) {
        const element *packed = p->packed + column * p->steps * DEPTH, *next = column + BLOCK < end ? packed + p->steps * CELL : packed;
        int64_t width = p->num_out - column < BLOCK ? p->num_out - column : BLOCK;
        for (int64_t block = 0; block < num_blocks; block++) {
            int64_t wanted = count - block * BLOCK < BLOCK ? count - block * BLOCK : BLOCK;
            const element *own = rows + block * p->steps * CELL, *ahead = next + block * lines * p->steps * 32;
            SETTLE();
            if (wanted > 16) sum_block(1, own, packed, p->steps, ahead, lines, sums);
            else sum_block(0, own, packed, p->steps, ahead, lines, sums);
            SETTLE();
            element *out = p->out + (row + block * BLOCK) * p->num_out + column;
            for (int64_t r = 0; r < wanted; r++)
                for (int64_t i = 0; i < width; i += LANES) {
                    floats sum = load_floats(sums + r * BLOCK + i);
                    store(out + r * p->num_out + i, p->bias ? sum + load(p->bias + column + i) : sum);
                }
        }
    }
}

/* The share of one thread, in whole blocks. */
static void divide(int64_t count, int64_t thread, int64_t num_threads, int64_t *first, int64_t *end) {
    int64_t blocks = (count + BLOCK - 1) / BLOCK;
    *first = blocks * thread / num_threads * BLOCK;
    *end = blocks * (thread + 1) / num_threads * BLOCK;
    *end = *end < count ? *end : count;
}

/* Multiply x `[num_rows, in]` by a weight as `pack` leaves it. out: `[num_rows, out]`, with `out` a multiple of 16. The bits
 * of a row do not depend on the other rows. */
void multiply(const element *x, int64_t num_rows, const element *packed, const element *bias,
              element *out, int64_t num_in, int64_t num_out, int64_t num_threads) {
    product p = {x, packed, bias, out, num_in / DEPTH, num_out};
    int64_t most = CACHED / (2 * num_in) / BLOCK * BLOCK;
    most = most ? most : BLOCK;
#pragma omp parallel num_threads((int)num_threads)
    {
        int64_t row = 0, last_row = num_rows, first = 0, end = num_out;
        if (num_rows >= MANY) divide(num_rows, omp_get_thread_num(), omp_get_num_threads(), &row, &last_row);
        else divide(num_out, omp_get_thread_num(), omp_get_num_threads(), &first, &end);
        int64_t room = last_row - row < most ? (last_row - row + BLOCK - 1) / BLOCK * BLOCK : most;
        element *rows = aligned_alloc(64, room * num_in * sizeof *rows);
        if (!rows && room) abort();
        tiles before = begin_tiles();
        for (; row < last_row; row += most) {
            int64_t count = last_row - row < most ? last_row - row : most;
            pack_rows(&p, row, count, rows);
            multiply_rows(&p, rows, row, count, first, end);
        }
        end_tiles(before);
        free(rows);
    }
}
#else
int64_t has_products(void) { return 0; }
void pack(const element *weight, element *packed, int64_t num_out, int64_t num_in) {}
void multiply(const element *x, int64_t num_rows, const element *packed, const element *bias,
              element *out, int64_t num_in, int64_t num_out, int64_t num_threads) {}
#endif
