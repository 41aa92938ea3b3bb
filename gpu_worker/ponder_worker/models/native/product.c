/* bfloat16 matrix products, on AMX in tiles of 16 x 16 sums over 32 numbers, else with vectors. */
#include "thread_pool.h"
#include "tiles.h"
#include <stdlib.h>

#if BFLOAT16 && defined(__AVX512BF16__) && defined(__linux__)
#include <sys/mman.h>

#define DEPTH 32
#define BLOCK 32
#define CELL (BLOCK * DEPTH) /* numbers of one step, of rows and of weights alike: two tiles */
#define LINES (CELL * 2 / 64) /* cache lines that the weights of a step fill */
#define CACHED (1 << 20) /* bytes of rows that fit into a core's second-level cache */
#define MANY 512 /* with at least this many rows, threads divide the rows and not the weights */
#define HUGE_BYTES (8 << 20)
#define GROUP 12 /* rows whose sums of a block of outputs fit in registers */

int64_t has_products(void) { return 1; }

/* Let new memory use huge pages if the system has some: there are fewer of them to clear and to look up. */
static void use_huge_pages(void *memory, int64_t bytes) {
    uintptr_t start = ((uintptr_t)memory + 4095) & ~(uintptr_t)4095, end = (uintptr_t)memory + bytes;
    if (start < end) madvise((void *)start, end - start, MADV_HUGEPAGE);
}

/* Pack a weight `[out, in]`, with `in` a multiple of 32, into `[ceil(out / 32), in / 32, 2, 16, 16, 2]`, padded with zeros. */
void pack(const element *weight, element *packed, int64_t num_out, int64_t num_in) {
    use_huge_pages(packed, (num_out + BLOCK - 1) / BLOCK * BLOCK * num_in * sizeof *packed);
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

/* The product of rows [row, last_row). num_shares: the shares that threads take. */
typedef struct {
    const element *x, *packed, *bias;
    void *out; /* elements, or floats that are rounded to elements if `wide` */
    int64_t wide, steps, num_out, row, last_row, num_shares;
} product;

/* The rows that are multiplied together, so that they stay in the cache. */
static int64_t most_rows(const product *p) {
    int64_t most = CACHED / (2 * p->steps * DEPTH) / BLOCK * BLOCK;
    return most ? most : BLOCK;
}

static inline void store_output(const product *p, int64_t at, floats v) {
    element *narrow = (element *)p->out + at, rounded[LANES];
    store(p->wide ? rounded : narrow, v);
    if (p->wide) store_floats((float *)p->out + at, load(rounded));
}

/* Store the sums `[num_rows, 32]` of `width` outputs from `column`, with the bias. */
static inline void store_sums(const product *p, const float *sums, int64_t row, int64_t num_rows, int64_t column, int64_t width) {
    for (int64_t r = 0; r < num_rows; r++)
        for (int64_t i = 0; i < width; i += LANES) {
            floats sum = load_floats(sums + r * BLOCK + i);
            store_output(p, (row + r) * p->num_out + column + i, p->bias ? sum + load(p->bias + column + i) : sum);
        }
}

/* Compute the sums of 32 outputs for `count` rows. Meanwhile prefetch what is needed next into the second-level cache,
 * `lines` cache lines a step, because the processor does not look that far ahead. */
static inline __attribute__((always_inline)) void sum_group(int count, const element *x, const element *packed, int64_t steps,
                                                            const element *next, int64_t lines, float *sums) {
    __m512 low[GROUP], high[GROUP];
    for (int r = 0; r < count; r++) low[r] = high[r] = _mm512_setzero_ps();
    for (int64_t step = 0; step < steps; step++) {
        for (int64_t i = 0; i < lines; i++) _mm_prefetch(next + (step * lines + i) * 32, _MM_HINT_T1);
        for (int64_t pair = 0; pair < DEPTH / 2; pair++) {
            const element *weights = packed + step * CELL + pair * 32;
            __m512bh first = (__m512bh)_mm512_loadu_si512(weights), second = (__m512bh)_mm512_loadu_si512(weights + CELL / 2);
#pragma GCC unroll 12
            for (int r = 0; r < count; r++) {
                int32_t both;
                memcpy(&both, x + r * steps * DEPTH + step * DEPTH + pair * 2, sizeof both);
                low[r] = _mm512_dpbf16_ps(low[r], (__m512bh)_mm512_set1_epi32(both), first);
                high[r] = _mm512_dpbf16_ps(high[r], (__m512bh)_mm512_set1_epi32(both), second);
            }
        }
    }
    for (int r = 0; r < count; r++) {
        _mm512_storeu_ps(sums + r * BLOCK, low[r]);
        _mm512_storeu_ps(sums + r * BLOCK + 16, high[r]);
    }
}

#define GROUP_OF(count) case count: sum_group(count, x, packed, p->steps, next, lines, sums); break;

/* Compute blocks [first, end) of outputs with vectors. */
static void multiply_blocks(const void *argument, int64_t first, int64_t end) {
    const product *p = argument;
    float sums[GROUP * BLOCK] __attribute__((aligned(64)));
    int64_t num_rows = p->last_row - p->row, num_groups = (num_rows + GROUP - 1) / GROUP, lines = (LINES + num_groups - 1) / num_groups;
    for (int64_t block = first; block < end; block++) {
        const element *packed = p->packed + block * p->steps * CELL;
        int64_t width = p->num_out - block * BLOCK < BLOCK ? p->num_out - block * BLOCK : BLOCK;
        for (int64_t group = 0; group < num_groups; group++) {
            int64_t row = p->row + num_rows * group / num_groups, count = p->row + num_rows * (group + 1) / num_groups - row;
            const element *x = p->x + row * p->steps * DEPTH;
            const element *next = (block + 1 < end ? packed + p->steps * CELL : packed) + group * lines * p->steps * 32;
            switch (count) {
                GROUP_OF(1) GROUP_OF(2) GROUP_OF(3) GROUP_OF(4) GROUP_OF(5) GROUP_OF(6)
                GROUP_OF(7) GROUP_OF(8) GROUP_OF(9) GROUP_OF(10) GROUP_OF(11) GROUP_OF(12)
            }
            store_sums(p, sums, row, count, block * BLOCK, width);
        }
    }
}

#if TILES
/* Pack rows into consecutive tiles, `[ceil(count / 32), steps, 2, 16, 32]`. The last tile is padded with zeros. */
static void pack_rows(const product *p, int64_t first, int64_t count, element *rows) {
    for (int64_t row = 0; row < (count + 15) / 16 * 16; row++) {
        element *cell = rows + row / BLOCK * p->steps * CELL + row % BLOCK * DEPTH;
        for (int64_t step = 0; step < p->steps; step++)
            if (row < count) memcpy(cell + step * CELL, p->x + ((first + row) * p->steps + step) * DEPTH, DEPTH * sizeof *cell);
            else memset(cell + step * CELL, 0, DEPTH * sizeof *cell);
    }
}

/* Compute the sums of 32 outputs for 16 rows, or for 32 rows if `both`, and prefetch as `sum_group` does. */
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
            store_sums(p, sums, row + block * BLOCK, wanted, column, width);
        }
    }
}

/* A share of the numbers [0, count), in whole blocks. */
static void divide(int64_t count, int64_t share, int64_t num_shares, int64_t *first, int64_t *end) {
    int64_t blocks = (count + BLOCK - 1) / BLOCK;
    *first = blocks * share / num_shares * BLOCK;
    *end = blocks * (share + 1) / num_shares * BLOCK;
    *end = *end < count ? *end : count;
}

/* Compute shares of the rows, if there are many, or else of the outputs, on AMX. */
static void multiply_shares(const void *argument, int64_t share, int64_t last_share) {
    const product *p = argument;
    int64_t most = most_rows(p);
    for (; share < last_share; share++) {
        int64_t row = p->row, last_row = p->last_row, first = 0, end = p->num_out;
        if (last_row >= MANY) divide(last_row, share, p->num_shares, &row, &last_row);
        else divide(end, share, p->num_shares, &first, &end);
        int64_t room = last_row - row < most ? (last_row - row + BLOCK - 1) / BLOCK * BLOCK : most;
        element *rows = aligned_alloc(64, room * p->steps * DEPTH * sizeof *rows);
        if (!rows && room) abort();
        tiles before = begin_tiles();
        for (; row < last_row; row += most) {
            int64_t count = last_row - row < most ? last_row - row : most;
            pack_rows(p, row, count, rows);
            multiply_rows(p, rows, row, count, first, end);
        }
        end_tiles(before);
        free(rows);
    }
}
#endif

/* Multiply x `[num_rows, in]` by a weight as `pack` leaves it. out: `[num_rows, out]`, with `out` a multiple of 16, of elements,
 * or of floats that are rounded to elements if `wide`. The bits of a row do not depend on the other rows. */
void multiply(const element *x, int64_t num_rows, const element *packed, const element *bias, void *out, int64_t wide,
              int64_t num_in, int64_t num_out, int64_t num_threads, int64_t use_tiles) {
    product p = {x, packed, bias, out, wide, num_in / DEPTH, num_out, 0, num_rows, num_threads};
    int64_t bytes = num_rows * num_out * (wide ? sizeof(float) : sizeof(element));
    if (bytes >= HUGE_BYTES) use_huge_pages(out, bytes); /* the allocator returns so much to the system after every use */
#if TILES
    if (use_tiles) {
        run(multiply_shares, &p, num_threads, 1, num_threads);
        return;
    }
#endif
    int64_t num_blocks = (num_out + BLOCK - 1) / BLOCK;
    for (; p.row < num_rows; p.row += most_rows(&p)) {
        p.last_row = p.row + most_rows(&p) < num_rows ? p.row + most_rows(&p) : num_rows;
        run_rows(multiply_blocks, &p, num_blocks, num_threads);
    }
}
#else
int64_t has_products(void) { return 0; }
void pack(const element *weight, element *packed, int64_t num_out, int64_t num_in) {}
void multiply(const element *x, int64_t num_rows, const element *packed, const element *bias, void *out, int64_t wide,
              int64_t num_in, int64_t num_out, int64_t num_threads, int64_t use_tiles) {}
#endif
