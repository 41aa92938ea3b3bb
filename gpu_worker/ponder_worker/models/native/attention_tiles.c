/* The inner part of attention on AMX. Scores are stored key by key with one query a lane, so nothing is summed across
 * lanes. */
#include "attention.h"

#if TILES
#include <sys/syscall.h>
#include <unistd.h>

/* Return 1 if this process may use AMX (https://docs.kernel.org/arch/x86/xstate.html). */
int64_t has_tiles(void) { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }

#define MOST_RUNS 8 /* runs of 16 keys between two updates of the largest score */
#define TILE 256 /* 32-bit words of a tile */
#define LOG2_E 1.44269504f

/* Runs of 16 keys, in their pages if the run is complete, else in `rest`. values: `[runs / 2, dim / 16, 16 dims, 16 pairs
 * of keys]`. */
typedef struct {
    uint32_t values[MOST_RUNS * LANES * MOST_DIM / 2] __attribute__((aligned(64)));
    element rest[MOST_RUNS * LANES * MOST_DIM] __attribute__((aligned(64)));
    const element *keys[MOST_RUNS];
    int32_t position[MOST_RUNS], count[MOST_RUNS];
    int64_t num_runs, end;
    int whole;
} key_batch;

/* 16 queries. q: `[dim / 32, 16 pairs of dims, 16 queries]`. mixed: `[dim, 16 queries]`. Peaks are in base 2. */
typedef struct {
    uint32_t q[MOST_DIM / 2 * LANES] __attribute__((aligned(64)));
    float mixed[MOST_DIM * LANES] __attribute__((aligned(64)));
    floats peak, total;
    ints contexts;
    limits seen;
} query_block;

/* Pack the values of 16 keys into words of two neighbouring keys: 8 rows of each tile of 16 dims. */
static inline void pair_values(const element *value, int64_t count, int64_t dim, int64_t first, ints t[LANES / 2]) {
    for (int64_t pair = 0; pair < LANES / 2; pair++) {
        words low = {0}, high = {0};
        halves half;
        if (2 * pair < count) {
            memcpy(&half, value + 2 * pair * dim + first, sizeof half);
            low = __builtin_convertvector(half, words);
        }
        if (2 * pair + 1 < count) {
            memcpy(&half, value + (2 * pair + 1) * dim + first, sizeof half);
            high = __builtin_convertvector(half, words) << 16;
        }
        t[pair] = (ints)(low | high);
    }
}

static inline __attribute__((always_inline)) void fill(key_batch *batch, const kv_pages *kv, const span *keys, int64_t dim, int64_t *position, int64_t last) {
    int64_t part = kv->page_size * dim;
    const element *values[MOST_RUNS];
    batch->num_runs = 0;
    batch->whole = 1;
    while (batch->num_runs < MOST_RUNS && *position < last) {
        int64_t page = *position / kv->page_size, offset = *position % kv->page_size, run = batch->num_runs++;
        int64_t count = kv->page_size - offset < LANES ? kv->page_size - offset : LANES;
        batch->keys[run] = kv->pages + (keys->ids[page] * 2 * kv->num_kv_heads + keys->head) * part + offset * dim;
        values[run] = batch->keys[run] + kv->num_kv_heads * part;
        if (count < LANES) {
            batch->whole = 0;
            memcpy(batch->rest + run * LANES * dim, batch->keys[run], count * dim * sizeof *batch->rest);
            memset(batch->rest + run * LANES * dim + count * dim, 0, (LANES - count) * dim * sizeof *batch->rest);
            batch->keys[run] = batch->rest + run * LANES * dim;
        }
        batch->position[run] = (int32_t)*position;
        batch->count[run] = (int32_t)count;
        *position += count;
    }
    batch->end = *position;
    for (int64_t run = 0; run < batch->num_runs; run += 2)
        for (int64_t first = 0; first < dim; first += LANES) {
            ints t[LANES];
            int64_t second = run + 1 < batch->num_runs ? run + 1 : run;
            pair_values(values[run], batch->count[run], dim, first, t);
            pair_values(values[second], run + 1 < batch->num_runs ? batch->count[second] : 0, dim, first, t + LANES / 2);
            transpose(t);
            memcpy(batch->values + (run / 2 * (dim / LANES) + first / LANES) * TILE, t, sizeof t);
        }
}

/* 2^x with an error of 1e-4, for shares that are rounded to bfloat16. It is exact at 0 and 1, hence continuous. */
static inline floats power_of_2(floats x) {
    floats f = (floats)_mm512_reduce_ps((__m512)x, 1);
    floats y = ((f * 0.07824032f + 0.22628138f) * f + 0.69547830f) * f + 1.0f;
    return (floats)_mm512_scalef_ps((__m512)y, (__m512)x);
}

#define SCORE(tile, keys_tile, run) if ((run) < batch->num_runs) { \
    _tile_loadd(keys_tile, batch->keys[run] + i * 32, dim * 2); \
    _tile_dpbf16ps(tile, keys_tile, 6); \
}
#define KEEP(tile, run) if ((run) < batch->num_runs) _tile_stored(tile, scores + (run) * TILE, 64);

/* Compute scores `[num_runs * 16 keys, 16 queries]`, not yet scaled. */
static inline __attribute__((always_inline)) void compute_scores(const key_batch *batch, const query_block *block, int64_t dim, float *scores) {
    for (int64_t run = 0; run < batch->num_runs; run += 4) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t i = 0; i < dim / 32; i++) {
            _tile_loadd(6, block->q + i * TILE, 64);
            SCORE(0, 4, run)
            SCORE(1, 5, run + 1)
            SCORE(2, 4, run + 2)
            SCORE(3, 5, run + 3)
        }
        KEEP(0, run)
        KEEP(1, run + 1)
        KEEP(2, run + 2)
        KEEP(3, run + 3)
    }
}

/* Mask the scores of missing keys, and of keys beyond a query's context. */
static inline void mask_unseen(const key_batch *batch, const query_block *block, float *scores) {
    for (int64_t run = 0; run < batch->num_runs; run++)
        for (int32_t key = 0; key < LANES; key++) {
            float *place = scores + run * TILE + key * LANES;
            ints seen = key < batch->count[run] ? block->contexts > batch->position[run] + key : (ints){0};
            store_floats(place, choose(seen, load_floats(place), splat(UNSEEN)));
        }
}

/* Raise the peaks to these scores, and scale the sums so far down accordingly. */
static inline void raise_peaks(query_block *block, int64_t dim, float scale, const float *scores, int64_t num_keys) {
    floats most[4] = {splat(UNSEEN), splat(UNSEEN), splat(UNSEEN), splat(UNSEEN)};
    for (int64_t key = 0; key < num_keys; key += 4)
#pragma GCC unroll 4
        for (int64_t i = 0; i < 4; i++) most[i] = larger(most[i], load_floats(scores + (key + i) * LANES));
    floats peak = larger(block->peak, larger(larger(most[0], most[1]), larger(most[2], most[3])) * scale);
    if (!_mm512_cmp_ps_mask((__m512)peak, (__m512)block->peak, _CMP_GT_OQ)) return;
    floats kept = power_of_2(block->peak - peak);
    block->peak = peak;
    block->total *= kept;
    for (int64_t i = 0; i < dim; i++) store_floats(block->mixed + i * LANES, load_floats(block->mixed + i * LANES) * kept);
}

/* Compute shares `[num_keys / 2, 16 queries, 2]`, and add them to the totals. */
static inline void compute_shares(query_block *block, float scale, const float *scores, int64_t num_keys, uint32_t *shares) {
    const __m512i interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    floats first = splat(0), second = splat(0), peak = block->peak;
#pragma GCC unroll 4
    for (int64_t key = 0; key < num_keys; key += 2) {
        floats one = power_of_2(load_floats(scores + key * LANES) * scale - peak);
        floats two = power_of_2(load_floats(scores + (key + 1) * LANES) * scale - peak);
        first += one;
        second += two;
        __m512i both = _mm512_permutexvar_epi16(interleave, (__m512i)_mm512_cvtne2ps_pbh((__m512)two, (__m512)one));
        memcpy(shares + key / 2 * LANES, &both, sizeof both);
    }
    block->total += first + second;
}

/* Add the values weighted by their shares, 32 dims at a time. */
static inline __attribute__((always_inline)) void add_values(const key_batch *batch, query_block *block, int64_t dim, const uint32_t *shares) {
    for (int64_t first = 0; first < dim / LANES; first += 2) {
        _tile_loadd(0, block->mixed + first * TILE, 64);
        _tile_loadd(1, block->mixed + (first + 1) * TILE, 64);
        for (int64_t two = 0; two < (batch->num_runs + 1) / 2; two++) {
            const uint32_t *values = batch->values + (two * (dim / LANES) + first) * TILE;
            _tile_loadd(6, shares + two * TILE, 64);
            _tile_loadd(4, values, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(5, values + TILE, 64);
            _tile_dpbf16ps(1, 5, 6);
        }
        _tile_stored(0, block->mixed + first * TILE, 64);
        _tile_stored(1, block->mixed + (first + 1) * TILE, 64);
    }
}

static inline __attribute__((always_inline)) void add_batch(const key_batch *batch, query_block *block, int64_t dim, float scale) {
    float scores[MOST_RUNS * TILE] __attribute__((aligned(64)));
    uint32_t shares[MOST_RUNS / 2 * TILE] __attribute__((aligned(64)));
    int64_t num_keys = batch->num_runs * LANES;
    SETTLE();
    compute_scores(batch, block, dim, scores);
    SETTLE();
    if (!batch->whole || batch->end > block->seen.least) mask_unseen(batch, block, scores);
    raise_peaks(block, dim, scale, scores, num_keys);
    compute_shares(block, scale, scores, num_keys, shares);
    if (batch->num_runs % 2) memset(shares + num_keys / 2 * LANES, 0, TILE / 2 * sizeof *shares);
    SETTLE();
    add_values(batch, block, dim, shares);
    SETTLE();
}

/* Load 16 queries. Missing ones repeat the first. */
static void load_block(query_block *block, const query_batch *queries, int64_t first, int64_t dim) {
    int64_t count = queries->count - first < LANES ? queries->count - first : LANES;
    float peak[LANES], total[LANES];
    int32_t contexts[LANES];
    for (int64_t i = 0; i < LANES; i++) {
        int64_t from = first + (i < count ? i : 0);
        peak[i] = queries->masses[from].peak * LOG2_E;
        total[i] = queries->masses[from].total;
        contexts[i] = queries->contexts[from];
    }
    block->peak = load_floats(peak);
    block->total = load_floats(total);
    memcpy(&block->contexts, contexts, sizeof contexts);
    block->seen = limits_of(contexts, count);
    for (int64_t i = 0; i < dim; i += LANES) {
        ints t[LANES];
        for (int64_t j = 0; j < LANES; j++) memcpy(&t[j], queries->mixed + (first + (j < count ? j : 0)) * dim + i, sizeof t[j]);
        transpose(t);
        memcpy(block->mixed + i * LANES, t, sizeof t);
    }
    for (int64_t i = 0; i < dim; i += 2 * LANES) {
        ints t[LANES];
        for (int64_t j = 0; j < LANES; j++) memcpy(&t[j], queries->q[first + (j < count ? j : 0)] + i, sizeof t[j]);
        transpose(t);
        memcpy(block->q + i / 2 * LANES, t, sizeof t);
    }
}

static void store_block(const query_block *block, const query_batch *queries, int64_t first, int64_t dim) {
    int64_t count = queries->count - first < LANES ? queries->count - first : LANES;
    for (int64_t i = 0; i < count; i++) queries->masses[first + i] = (mass){block->peak[i] / LOG2_E, block->total[i]};
    for (int64_t i = 0; i < dim; i += LANES) {
        ints t[LANES];
        memcpy(t, block->mixed + i * LANES, sizeof t);
        transpose(t);
        for (int64_t j = 0; j < count; j++) memcpy(queries->mixed + (first + j) * dim + i, &t[j], sizeof t[j]);
    }
}

static inline __attribute__((always_inline)) void read_all(const kv_pages *kv, const span *keys, const query_batch *queries, int64_t dim) {
    int64_t num_blocks = (queries->count + LANES - 1) / LANES, position = keys->first, last = limits_of(queries->contexts, queries->count).most;
    query_block blocks[num_blocks];
    key_batch batch;
    last = last < keys->last ? last : keys->last;
    for (int64_t i = 0; i < num_blocks; i++) load_block(blocks + i, queries, i * LANES, dim);
    while (position < last) {
        int64_t start = position;
        fill(&batch, kv, keys, dim, &position, last);
        for (int64_t i = 0; i < num_blocks; i++)
            if (start < blocks[i].seen.most) add_batch(&batch, blocks + i, dim, kv->scale * LOG2_E);
    }
    for (int64_t i = 0; i < num_blocks; i++) store_block(blocks + i, queries, i * LANES, dim);
}

void read_tiles(const kv_pages *kv, const span *keys, const query_batch *queries) {
    switch (kv->dim) {
    case 32: read_all(kv, keys, queries, 32); break;
    case 64: read_all(kv, keys, queries, 64); break;
    default: read_all(kv, keys, queries, kv->dim);
    }
}
#else
int64_t has_tiles(void) { return 0; }
#endif
