/* The inner part of attention with vectors, for any dtype and any number of queries. */
#include "attention.h"

/* Runs of LANES keys between two updates of the largest score. The sums of RUNS runs and 4 queries fit in registers. */
#if LANES == 16
#define RUNS 4
#else
#define RUNS 2
#endif

/* Transpose keys `[count, dim]` to `[dim, LANES]`, with zeros for missing keys. */
static inline __attribute__((always_inline)) void transpose_keys(const element *keys, int64_t count, int64_t dim, float *transposed) {
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
            store_floats(transposed + (first + 2 * i) * LANES, (floats)(t[i] << 16));
            store_floats(transposed + (first + 2 * i + 1) * LANES, (floats)(t[i] & (int32_t)0xffff0000));
#else
            store_floats(transposed + (first + i) * LANES, (floats)t[i]);
#endif
        }
    }
}

/* Up to RUNS runs of LANES keys, each with the position of its first key and its number of keys. */
typedef struct {
    float keys[RUNS * LANES * MOST_DIM] __attribute__((aligned(64))), values[RUNS * LANES * MOST_DIM] __attribute__((aligned(64)));
    int32_t position[RUNS], count[RUNS];
    int64_t num_runs, num_keys, end;
} key_batch;

/* Add the keys of a batch to `size` neighbouring queries, each of which sees keys before the end of its context. */
static inline __attribute__((always_inline)) void add_keys(int size, int runs, int whole, const key_batch *batch, const float *q,
                                                           int64_t dim, const int32_t *contexts, mass *masses, float *mixed) {
    const ints lane = LANE_NUMBERS;
    floats score[4][RUNS];
    for (int r = 0; r < size; r++)
        for (int s = 0; s < runs; s++) score[r][s] = splat(0);
    for (int64_t i = 0; i < dim; i++)
#pragma GCC unroll 4
        for (int s = 0; s < runs; s++) {
            floats key = load_floats(batch->keys + (s * dim + i) * LANES);
#pragma GCC unroll 4
            for (int r = 0; r < size; r++) score[r][s] += key * q[r * dim + i];
        }
    float kept[4], weights[4][RUNS * LANES] __attribute__((aligned(64)));
#pragma GCC unroll 4
    for (int r = 0; r < size; r++) {
        if (!whole)
            for (int s = 0; s < runs; s++) {
                int32_t seen = contexts[r] - batch->position[s];
                seen = seen < batch->count[s] ? seen : batch->count[s];
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
            floats one = load_floats(batch->values + j * dim + first), two = load_floats(batch->values + j * dim + first + LANES);
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

/* Add a batch to all queries, `[num_queries, dim]`. */
static inline __attribute__((always_inline)) void add_batch(int runs, int whole, const key_batch *batch, const float *q, int64_t num_queries,
                                                            int64_t dim, const int32_t *contexts, mass *masses, float *mixed) {
    int64_t i = 0;
    for (; i + 4 <= num_queries; i += 4) add_keys(4, runs, whole, batch, q + i * dim, dim, contexts + i, masses + i, mixed + i * dim);
    for (; i + 3 <= num_queries; i += 3) add_keys(3, runs, whole, batch, q + i * dim, dim, contexts + i, masses + i, mixed + i * dim);
    for (; i < num_queries; i++) add_keys(1, runs, whole, batch, q + i * dim, dim, contexts + i, masses + i, mixed + i * dim);
}

/* Fill a batch with the next keys. A run of fewer than LANES keys is padded with zeros. */
static inline __attribute__((always_inline)) void fill(key_batch *batch, const kv_pages *kv, const span *keys, int64_t dim, int64_t *position,
                                                       int64_t last) {
    int64_t part = kv->page_size * dim;
    batch->num_runs = batch->num_keys = 0;
    while (batch->num_runs < RUNS && *position < last) {
        int64_t page = *position / kv->page_size, offset = *position % kv->page_size;
        int64_t count = kv->page_size - offset < LANES ? kv->page_size - offset : LANES;
        const element *key = kv->pages + (keys->ids[page] * 2 * kv->num_kv_heads + keys->head) * part + offset * dim;
        const element *value = key + kv->num_kv_heads * part;
        float *values = batch->values + batch->num_runs * LANES * dim;
        transpose_keys(key, count, dim, batch->keys + batch->num_runs * LANES * dim);
        for (int64_t i = 0; i < count * dim; i += LANES) store_floats(values + i, load(value + i));
        if (count < LANES) memset(values + count * dim, 0, (LANES - count) * dim * sizeof *values);
        batch->position[batch->num_runs] = (int32_t)*position;
        batch->count[batch->num_runs++] = (int32_t)count;
        batch->num_keys += count;
        *position += count;
    }
    batch->end = *position;
}

/* Read all keys of a span. q: `[count, dim]`, already scaled. */
static inline __attribute__((always_inline)) void read_all(const kv_pages *kv, const span *keys, const query_batch *queries, const float *q, int64_t dim) {
    key_batch batch;
    limits seen = limits_of(queries->contexts, queries->count);
    int64_t position = keys->first, last = seen.most < keys->last ? seen.most : keys->last;
    while (position < last) {
        fill(&batch, kv, keys, dim, &position, last);
        int whole = batch.end <= seen.least && batch.num_keys == batch.num_runs * LANES;
        if (batch.num_runs == RUNS && whole) add_batch(RUNS, 1, &batch, q, queries->count, dim, queries->contexts, queries->masses, queries->mixed);
        else if (batch.num_runs == RUNS) add_batch(RUNS, 0, &batch, q, queries->count, dim, queries->contexts, queries->masses, queries->mixed);
#if RUNS == 4
        else if (batch.num_runs == 3) add_batch(3, 0, &batch, q, queries->count, dim, queries->contexts, queries->masses, queries->mixed);
        else if (batch.num_runs == 2) add_batch(2, 0, &batch, q, queries->count, dim, queries->contexts, queries->masses, queries->mixed);
#endif
        else add_batch(1, 0, &batch, q, queries->count, dim, queries->contexts, queries->masses, queries->mixed);
    }
}

void read_vectors(const kv_pages *kv, const span *keys, const query_batch *queries) {
    float q[queries->count * kv->dim] __attribute__((aligned(64)));
    for (int64_t i = 0; i < queries->count; i++)
        for (int64_t j = 0; j < kv->dim; j += LANES) store_floats(q + i * kv->dim + j, load(queries->q[i] + j) * kv->scale);
    switch (kv->dim) {
    case 32: read_all(kv, keys, queries, q, 32); break;
    case 64: read_all(kv, keys, queries, q, 64); break;
    default: read_all(kv, keys, queries, q, kv->dim);
    }
}
