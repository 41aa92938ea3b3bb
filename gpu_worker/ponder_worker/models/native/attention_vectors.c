/* Attention's inner part with vectors: any dtype, any number of queries. */
#include "attention.h"

/* Runs of LANES keys between two looks at the largest score: sums of RUNS and of 4 queries are to stay in registers. */
#if LANES == 16
#define RUNS 4
#else
#define RUNS 2
#endif

/* count keys, `[count, dim]` -> `[dim, LANES]`, zeros for those that are missing. */
static inline __attribute__((always_inline)) void turn_keys(const element *keys, int64_t count, int64_t dim, float *turned) {
    int64_t step = sizeof(ints) / sizeof(element);
    for (int64_t first = 0; first < dim; first += step) {
        ints t[LANES];
        for (int j = 0; j < LANES; j++) {
            t[j] = (ints){0};
            if (j < count) memcpy(&t[j], keys + j * dim + first, sizeof t[j]);
        }
        transpose(t);
        for (int i = 0; i < LANES; i++) {
#if BFLOAT16
            store_floats(turned + (first + 2 * i) * LANES, (floats)(t[i] << 16));
            store_floats(turned + (first + 2 * i + 1) * LANES, (floats)(t[i] & (int32_t)0xffff0000));
#else
            store_floats(turned + (first + i) * LANES, (floats)t[i]);
#endif
        }
    }
}

/* Up to RUNS runs of LANES keys; of each, the position of its first key and how many are there. */
typedef struct {
    float keys[RUNS * LANES * MOST_DIM] __attribute__((aligned(64))), values[RUNS * LANES * MOST_DIM] __attribute__((aligned(64)));
    int32_t position[RUNS], count[RUNS];
    int64_t num_runs, num_keys, end;
} batch;

/* Adds a batch's keys to `size` neighbouring queries, which see keys before their contexts' ends. */
static inline __attribute__((always_inline)) void add_keys(int size, int runs, int whole, const batch *b, const float *q,
                                                           int64_t dim, const int32_t *contexts, mass *masses, float *mixed) {
    const ints lane = LANE_NUMBERS;
    floats score[4][RUNS];
    for (int r = 0; r < size; r++)
        for (int s = 0; s < runs; s++) score[r][s] = splat(0);
    for (int64_t i = 0; i < dim; i++)
#pragma GCC unroll 4
        for (int s = 0; s < runs; s++) {
            floats key = load_floats(b->keys + (s * dim + i) * LANES);
#pragma GCC unroll 4
            for (int r = 0; r < size; r++) score[r][s] += key * q[r * dim + i];
        }
    float kept[4], weights[4][RUNS * LANES] __attribute__((aligned(64)));
#pragma GCC unroll 4
    for (int r = 0; r < size; r++) {
        if (!whole)
            for (int s = 0; s < runs; s++) {
                int32_t seen = contexts[r] - b->position[s];
                seen = seen < b->count[s] ? seen : b->count[s];
                score[r][s] = choose(lane < seen, score[r][s], splat(UNSEEN));
            }
        floats most = score[r][0];
        for (int s = 1; s < runs; s++) most = larger(most, score[r][s]);
        float peak = largest_of(most);
        kept[r] = 1;
        if (peak > masses[r].peak) {
            kept[r] = exp_of(splat(masses[r].peak - peak))[0];
            masses[r].peak = peak;
        }
        floats total = splat(0);
        for (int s = 0; s < runs; s++) {
            floats share = exp_of(score[r][s] - masses[r].peak);
            store_floats(weights[r] + s * LANES, share);
            total += share;
        }
        masses[r].total = masses[r].total * kept[r] + sum_of(total);
    }
    for (int64_t first = 0; first < dim; first += 2 * LANES) {
        floats low[4], high[4];
#pragma GCC unroll 4
        for (int r = 0; r < size; r++) {
            low[r] = load_floats(mixed + r * dim + first) * kept[r];
            high[r] = load_floats(mixed + r * dim + first + LANES) * kept[r];
        }
        for (int j = 0; j < runs * LANES; j++) {
            floats one = load_floats(b->values + j * dim + first), two = load_floats(b->values + j * dim + first + LANES);
#pragma GCC unroll 4
            for (int r = 0; r < size; r++) {
                low[r] += one * weights[r][j];
                high[r] += two * weights[r][j];
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < size; r++) {
            store_floats(mixed + r * dim + first, low[r]);
            store_floats(mixed + r * dim + first + LANES, high[r]);
        }
    }
}

/* Adds a batch to all queries, which are `[num_queries, dim]`. */
static inline __attribute__((always_inline)) void add_batch(int runs, int whole, const batch *b, const float *q, int64_t num_queries,
                                                            int64_t dim, const int32_t *contexts, mass *masses, float *mixed) {
    int64_t i = 0;
    for (; i + 4 <= num_queries; i += 4) add_keys(4, runs, whole, b, q + i * dim, dim, contexts + i, masses + i, mixed + i * dim);
    for (; i + 3 <= num_queries; i += 3) add_keys(3, runs, whole, b, q + i * dim, dim, contexts + i, masses + i, mixed + i * dim);
    for (; i < num_queries; i++) add_keys(1, runs, whole, b, q + i * dim, dim, contexts + i, masses + i, mixed + i * dim);
}

/* Takes the next keys up to a batch; those that a run lacks to LANES are zeros. */
static inline __attribute__((always_inline)) void fill(batch *b, const where *at, const span *keys, int64_t dim, int64_t *position,
                                                       int64_t last) {
    int64_t part = at->page_size * dim;
    b->num_runs = b->num_keys = 0;
    while (b->num_runs < RUNS && *position < last) {
        int64_t page = *position / at->page_size, offset = *position % at->page_size;
        int64_t count = at->page_size - offset < LANES ? at->page_size - offset : LANES;
        const element *key = at->pages + (keys->ids[page] * 2 * at->num_kv_heads + keys->head) * part + offset * dim;
        const element *value = key + at->num_kv_heads * part;
        float *values = b->values + b->num_runs * LANES * dim;
        turn_keys(key, count, dim, b->keys + b->num_runs * LANES * dim);
        for (int64_t i = 0; i < count * dim; i += LANES) store_floats(values + i, load(value + i));
        if (count < LANES) memset(values + count * dim, 0, (LANES - count) * dim * sizeof *values);
        b->position[b->num_runs] = (int32_t)*position;
        b->count[b->num_runs++] = (int32_t)count;
        b->num_keys += count;
        *position += count;
    }
    b->end = *position;
}

/* q: `[count, dim]`, scaled */
static inline __attribute__((always_inline)) void read_all(const where *at, const span *keys, const asking *by, const float *q, int64_t dim) {
    batch b;
    limits seen = limits_of(by->contexts, by->count);
    int64_t position = keys->first, last = seen.most < keys->last ? seen.most : keys->last;
    while (position < last) {
        fill(&b, at, keys, dim, &position, last);
        int whole = b.end <= seen.least && b.num_keys == b.num_runs * LANES;
        if (b.num_runs == RUNS && whole) add_batch(RUNS, 1, &b, q, by->count, dim, by->contexts, by->masses, by->mixed);
        else if (b.num_runs == RUNS) add_batch(RUNS, 0, &b, q, by->count, dim, by->contexts, by->masses, by->mixed);
#if RUNS == 4
        else if (b.num_runs == 3) add_batch(3, 0, &b, q, by->count, dim, by->contexts, by->masses, by->mixed);
        else if (b.num_runs == 2) add_batch(2, 0, &b, q, by->count, dim, by->contexts, by->masses, by->mixed);
#endif
        else add_batch(1, 0, &b, q, by->count, dim, by->contexts, by->masses, by->mixed);
    }
}

void read_vectors(const where *at, const span *keys, const asking *by) {
    float q[by->count * at->dim] __attribute__((aligned(64)));
    for (int64_t i = 0; i < by->count; i++)
        for (int64_t j = 0; j < at->dim; j += LANES) store_floats(q + i * at->dim + j, load(by->q[i] + j) * at->scale);
    switch (at->dim) {
    case 32: read_all(at, keys, by, q, 32); break;
    case 64: read_all(at, keys, by, q, 64); break;
    default: read_all(at, keys, by, q, at->dim);
    }
}
