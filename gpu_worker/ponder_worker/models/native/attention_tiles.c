/* Attention's inner part on AMX. Scores stand key by key, a query in each lane, so that nothing is summed across lanes. */
#include "attention.h"

#if TILES
#define MOST_RUNS 8 /* of 16 keys, between two looks at the largest score */
#define TILE 256 /* words of 32 bits */
#define LOG2_E 1.44269504f

/* Keys as they stand in their pages, a run where it is whole; values `[runs / 2, dim / 16, 16 dims, 16 pairs of keys]`. */
typedef struct {
    uint32_t values[MOST_RUNS * LANES * MOST_DIM / 2] __attribute__((aligned(64)));
    element rest[MOST_RUNS * LANES * MOST_DIM] __attribute__((aligned(64)));
    const element *keys[MOST_RUNS];
    int32_t position[MOST_RUNS], count[MOST_RUNS];
    int64_t num_runs, end;
    int whole;
} batch;

/* 16 queries. q: `[dim / 32, 16 pairs of dims, 16 queries]`; mixed: `[dim, 16 queries]`; peaks are of base 2. */
typedef struct {
    uint32_t q[MOST_DIM / 2 * LANES] __attribute__((aligned(64)));
    float mixed[MOST_DIM * LANES] __attribute__((aligned(64)));
    floats peak, total;
    ints contexts;
    limits seen;
} block;

/* 16 keys' values as words, two neighbouring keys' in each: 8 rows of every tile of 16 dims. */
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

static inline __attribute__((always_inline)) void fill(batch *b, const where *at, const span *keys, int64_t dim, int64_t *position, int64_t last) {
    int64_t part = at->page_size * dim;
    const element *values[MOST_RUNS];
    b->num_runs = 0;
    b->whole = 1;
    while (b->num_runs < MOST_RUNS && *position < last) {
        int64_t page = *position / at->page_size, offset = *position % at->page_size, run = b->num_runs++;
        int64_t count = at->page_size - offset < LANES ? at->page_size - offset : LANES;
        b->keys[run] = at->pages + (keys->ids[page] * 2 * at->num_kv_heads + keys->head) * part + offset * dim;
        values[run] = b->keys[run] + at->num_kv_heads * part;
        if (count < LANES) {
            b->whole = 0;
            memcpy(b->rest + run * LANES * dim, b->keys[run], count * dim * sizeof *b->rest);
            memset(b->rest + run * LANES * dim + count * dim, 0, (LANES - count) * dim * sizeof *b->rest);
            b->keys[run] = b->rest + run * LANES * dim;
        }
        b->position[run] = (int32_t)*position;
        b->count[run] = (int32_t)count;
        *position += count;
    }
    b->end = *position;
    for (int64_t run = 0; run < b->num_runs; run += 2)
        for (int64_t first = 0; first < dim; first += LANES) {
            ints t[LANES];
            int64_t second = run + 1 < b->num_runs ? run + 1 : run;
            pair_values(values[run], b->count[run], dim, first, t);
            pair_values(values[second], run + 1 < b->num_runs ? b->count[second] : 0, dim, first, t + LANES / 2);
            transpose(t);
            memcpy(b->values + (run / 2 * (dim / LANES) + first / LANES) * TILE, t, sizeof t);
        }
}

/* 2^x to 1e-4, for shares that are rounded to bfloat16: at 0 and 1 it is exact, so that it is continuous. */
static inline floats power_of_2(floats x) {
    floats f = (floats)_mm512_reduce_ps((__m512)x, 1);
    floats y = ((f * 0.07824032f + 0.22628138f) * f + 0.69547830f) * f + 1.0f;
    return (floats)_mm512_scalef_ps((__m512)y, (__m512)x);
}

#define SCORE(tile, keys_tile, run) if ((run) < b->num_runs) { \
    _tile_loadd(keys_tile, b->keys[run] + i * 32, dim * 2); \
    _tile_dpbf16ps(tile, keys_tile, 6); \
}
#define KEEP(tile, run) if ((run) < b->num_runs) _tile_stored(tile, scores + (run) * TILE, 64);

/* scores: `[num_runs * 16 keys, 16 queries]`, not scaled */
static inline __attribute__((always_inline)) void score(const batch *b, const block *own, int64_t dim, float *scores) {
    for (int64_t run = 0; run < b->num_runs; run += 4) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t i = 0; i < dim / 32; i++) {
            _tile_loadd(6, own->q + i * TILE, 64);
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

/* Keys that are not there, or behind a query's context. */
static inline void hide(const batch *b, const block *own, float *scores) {
    for (int64_t run = 0; run < b->num_runs; run++)
        for (int32_t key = 0; key < LANES; key++) {
            float *of = scores + run * TILE + key * LANES;
            ints seen = key < b->count[run] ? own->contexts > b->position[run] + key : (ints){0};
            store_floats(of, choose(seen, load_floats(of), splat(UNSEEN)));
        }
}

/* Raises the peaks to these scores; what is known is brought down by as much. */
static inline void raise(block *own, int64_t dim, float scale, const float *scores, int64_t num_keys) {
    floats most[4] = {splat(UNSEEN), splat(UNSEEN), splat(UNSEEN), splat(UNSEEN)};
    for (int64_t key = 0; key < num_keys; key += 4)
#pragma GCC unroll 4
        for (int64_t i = 0; i < 4; i++) most[i] = larger(most[i], load_floats(scores + (key + i) * LANES));
    floats peak = larger(own->peak, larger(larger(most[0], most[1]), larger(most[2], most[3])) * scale);
    if (!_mm512_cmp_ps_mask((__m512)peak, (__m512)own->peak, _CMP_GT_OQ)) return;
    floats kept = power_of_2(own->peak - peak);
    own->peak = peak;
    own->total *= kept;
    for (int64_t i = 0; i < dim; i++) store_floats(own->mixed + i * LANES, load_floats(own->mixed + i * LANES) * kept);
}

/* shares: `[num_keys / 2, 16 queries, 2]` */
static inline void share(block *own, float scale, const float *scores, int64_t num_keys, uint32_t *shares) {
    const __m512i mingle = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    floats first = splat(0), second = splat(0), peak = own->peak;
#pragma GCC unroll 4
    for (int64_t key = 0; key < num_keys; key += 2) {
        floats one = power_of_2(load_floats(scores + key * LANES) * scale - peak);
        floats two = power_of_2(load_floats(scores + (key + 1) * LANES) * scale - peak);
        first += one;
        second += two;
        __m512i both = _mm512_permutexvar_epi16(mingle, (__m512i)_mm512_cvtne2ps_pbh((__m512)two, (__m512)one));
        memcpy(shares + key / 2 * LANES, &both, sizeof both);
    }
    own->total += first + second;
}

/* Adds values by their shares, 32 dims at a time. */
static inline __attribute__((always_inline)) void mix(const batch *b, block *own, int64_t dim, const uint32_t *shares) {
    for (int64_t first = 0; first < dim / LANES; first += 2) {
        _tile_loadd(0, own->mixed + first * TILE, 64);
        _tile_loadd(1, own->mixed + (first + 1) * TILE, 64);
        for (int64_t two = 0; two < (b->num_runs + 1) / 2; two++) {
            const uint32_t *values = b->values + (two * (dim / LANES) + first) * TILE;
            _tile_loadd(6, shares + two * TILE, 64);
            _tile_loadd(4, values, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(5, values + TILE, 64);
            _tile_dpbf16ps(1, 5, 6);
        }
        _tile_stored(0, own->mixed + first * TILE, 64);
        _tile_stored(1, own->mixed + (first + 1) * TILE, 64);
    }
}

static inline __attribute__((always_inline)) void add_batch(const batch *b, block *own, int64_t dim, float scale) {
    float scores[MOST_RUNS * TILE] __attribute__((aligned(64)));
    uint32_t shares[MOST_RUNS / 2 * TILE] __attribute__((aligned(64)));
    int64_t num_keys = b->num_runs * LANES;
    SETTLE();
    score(b, own, dim, scores);
    SETTLE();
    if (!b->whole || b->end > own->seen.least) hide(b, own, scores);
    raise(own, dim, scale, scores, num_keys);
    share(own, scale, scores, num_keys, shares);
    if (b->num_runs % 2) memset(shares + num_keys / 2 * LANES, 0, TILE / 2 * sizeof *shares);
    SETTLE();
    mix(b, own, dim, shares);
    SETTLE();
}

/* 16 queries; those that are missing are the first one again. */
static void take(block *own, const asking *by, int64_t first, int64_t dim) {
    int64_t count = by->count - first < LANES ? by->count - first : LANES;
    float peak[LANES], total[LANES];
    int32_t contexts[LANES];
    for (int64_t i = 0; i < LANES; i++) {
        int64_t from = first + (i < count ? i : 0);
        peak[i] = by->masses[from].peak * LOG2_E;
        total[i] = by->masses[from].total;
        contexts[i] = by->contexts[from];
    }
    own->peak = load_floats(peak);
    own->total = load_floats(total);
    memcpy(&own->contexts, contexts, sizeof contexts);
    own->seen = limits_of(contexts, count);
    for (int64_t i = 0; i < dim; i += LANES) {
        ints t[LANES];
        for (int64_t j = 0; j < LANES; j++) memcpy(&t[j], by->mixed + (first + (j < count ? j : 0)) * dim + i, sizeof t[j]);
        transpose(t);
        memcpy(own->mixed + i * LANES, t, sizeof t);
    }
    for (int64_t i = 0; i < dim; i += 2 * LANES) {
        ints t[LANES];
        for (int64_t j = 0; j < LANES; j++) memcpy(&t[j], by->q[first + (j < count ? j : 0)] + i, sizeof t[j]);
        transpose(t);
        memcpy(own->q + i / 2 * LANES, t, sizeof t);
    }
}

static void give_back(const block *own, const asking *by, int64_t first, int64_t dim) {
    int64_t count = by->count - first < LANES ? by->count - first : LANES;
    for (int64_t i = 0; i < count; i++) by->masses[first + i] = (mass){own->peak[i] / LOG2_E, own->total[i]};
    for (int64_t i = 0; i < dim; i += LANES) {
        ints t[LANES];
        memcpy(t, own->mixed + i * LANES, sizeof t);
        transpose(t);
        for (int64_t j = 0; j < count; j++) memcpy(by->mixed + (first + j) * dim + i, &t[j], sizeof t[j]);
    }
}

static inline __attribute__((always_inline)) void read_all(const where *at, const span *keys, const asking *by, int64_t dim) {
    int64_t num_blocks = (by->count + LANES - 1) / LANES, position = keys->first, last = limits_of(by->contexts, by->count).most;
    block blocks[num_blocks];
    batch b;
    last = last < keys->last ? last : keys->last;
    for (int64_t i = 0; i < num_blocks; i++) take(blocks + i, by, i * LANES, dim);
    while (position < last) {
        int64_t start = position;
        fill(&b, at, keys, dim, &position, last);
        for (int64_t i = 0; i < num_blocks; i++)
            if (start < blocks[i].seen.most) add_batch(&b, blocks + i, dim, at->scale * LOG2_E);
    }
    for (int64_t i = 0; i < num_blocks; i++) give_back(blocks + i, by, i * LANES, dim);
}

void read_tiles(const where *at, const span *keys, const asking *by) {
    switch (at->dim) {
    case 32: read_all(at, keys, by, 32); break;
    case 64: read_all(at, keys, by, 64); break;
    default: read_all(at, keys, by, at->dim);
    }
}
#endif
