/* The inner part of attention with vectors, for any dtype and any number of queries. */
#include "attention.h"

/* Runs of LANES keys between two updates of the largest score. The sums of RUNS runs and 4 queries fit in registers. */
#if LANES == 16
#define RUNS 4
#else
#define RUNS 2
#endif

/* What is multiplied: floats, or pairs of bfloat16 if the processor multiplies them. A pair is of two dims in keys and
 * queries, and of two keys in values and shares. */
#if BFLOAT16 && defined(__AVX512BF16__)
#define PAIR 2
#else
#define PAIR 1
#endif

static inline floats add_products(floats sum, floats factors, float factor) {
#if PAIR == 2
    return (floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)factors, (__m512bh)splat(factor));
#else
    return sum + factors * factor;
#endif
}

/* Transpose keys `[count, dim]` to `[dim / PAIR, LANES]`, with zeros for missing keys. */
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
#if PAIR == 2
            store_floats(transposed + (first / 2 + i) * LANES, (floats)t[i]);
#elif BFLOAT16
            store_floats(transposed + (first + 2 * i) * LANES, (floats)(t[i] << 16));
            store_floats(transposed + (first + 2 * i + 1) * LANES, (floats)(t[i] & (int32_t)0xffff0000));
#else
            store_floats(transposed + (first + i) * LANES, (floats)t[i]);
#endif
        }
    }
}

#define INTERLEAVED(lane, first) ((lane) + first) | ((lane) + first + 32) << 16 /* the same number of two vectors */

/* Convert values `[count, dim]` to `[LANES / PAIR, dim]`, with zeros for missing keys. */
static inline __attribute__((always_inline)) void convert_values(const element *values, int64_t count, int64_t dim, float *converted) {
#if PAIR == 2
    const __m512i low = (__m512i)(words){EACH(INTERLEAVED, 0)}, high = (__m512i)(words){EACH(INTERLEAVED, 16)};
    for (int64_t key = 0; key < LANES; key += 2)
        for (int64_t i = 0; i < dim; i += 32) {
            __m512i one = _mm512_setzero_si512(), two = one;
            if (key < count) one = _mm512_loadu_si512(values + key * dim + i);
            if (key + 1 < count) two = _mm512_loadu_si512(values + (key + 1) * dim + i);
            store_floats(converted + key / 2 * dim + i, (floats)_mm512_permutex2var_epi16(one, low, two));
            store_floats(converted + key / 2 * dim + i + 16, (floats)_mm512_permutex2var_epi16(one, high, two));
        }
#else
    for (int64_t i = 0; i < count * dim; i += LANES) store_floats(converted + i, load(values + i));
    memset(converted + count * dim, 0, (LANES - count) * dim * sizeof *converted);
#endif
}

/* Up to RUNS runs of LANES keys, each with the position of its first key and its number of keys. */
typedef struct {
    float keys[RUNS * LANES * MOST_DIM] __attribute__((aligned(64))), values[RUNS * LANES * MOST_DIM] __attribute__((aligned(64)));
    int32_t position[RUNS], count[RUNS];
    int64_t num_runs, num_keys, end;
} key_batch;

/* Add the keys of a batch to `size` neighbouring queries, each of which sees keys before the end of its context. */
static inline __attribute__((always_inline)) void add_keys(int size, int runs, int whole, const key_batch *batch, const float *q,
                                                           int64_t dim, float scale, const int32_t *contexts, mass *masses, float *mixed) {
    const ints lane = LANE_NUMBERS;
    floats score[4][RUNS];
    for (int r = 0; r < size; r++)
        for (int s = 0; s < runs; s++) score[r][s] = splat(0);
    for (int64_t i = 0; i < dim / PAIR; i++)
#pragma GCC unroll 4
        for (int s = 0; s < runs; s++) {
            floats key = load_floats(batch->keys + (s * dim / PAIR + i) * LANES);
#pragma GCC unroll 4
            for (int r = 0; r < size; r++) score[r][s] = add_products(score[r][s], key, q[r * dim / PAIR + i]);
        }
    float kept[4], shares[4][RUNS * LANES / PAIR] __attribute__((aligned(64)));
#pragma GCC unroll 4
    for (int r = 0; r < size; r++) {
        for (int s = 0; s < runs; s++) {
            score[r][s] *= scale;
            ROUND(score[r][s]);
        }
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
#if PAIR == 2
            store((element *)shares[r] + s * LANES, share);
#else
            store_floats(shares[r] + s * LANES, share);
#endif
            total += share;
        }
        float kept_total = masses[r].total * kept[r];
        ROUND(kept_total);
        masses[r].total = kept_total + sum_of(total);
    }
    for (int64_t first = 0; first < dim; first += 2 * LANES) {
        floats low[4], high[4];
#pragma GCC unroll 4
        for (int r = 0; r < size; r++) {
            low[r] = load_floats(mixed + r * dim + first) * kept[r];
            high[r] = load_floats(mixed + r * dim + first + LANES) * kept[r];
            ROUND(low[r]);
            ROUND(high[r]);
        }
        for (int j = 0; j < runs * LANES / PAIR; j++) {
            floats one = load_floats(batch->values + j * dim + first), two = load_floats(batch->values + j * dim + first + LANES);
#pragma GCC unroll 4
            for (int r = 0; r < size; r++) {
                low[r] = add_products(low[r], one, shares[r][j]);
                high[r] = add_products(high[r], two, shares[r][j]);
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < size; r++) {
            store_floats(mixed + r * dim + first, low[r]);
            store_floats(mixed + r * dim + first + LANES, high[r]);
        }
    }
}

#define ADD_KEYS(size, i) add_keys(size, runs, whole, batch, q + (i) * dim / PAIR, dim, scale, queries->contexts + (i), queries->masses + (i), queries->mixed + (i) * dim)

/* Add a batch to all queries. q: `[count, dim / PAIR]`. */
static inline __attribute__((always_inline)) void add_batch(int runs, int whole, const key_batch *batch, const query_batch *queries,
                                                            const float *q, int64_t dim, float scale) {
    int64_t i = 0;
    for (; i + 4 <= queries->count; i += 4) ADD_KEYS(4, i);
    for (; i + 3 <= queries->count; i += 3) ADD_KEYS(3, i);
    for (; i < queries->count; i++) ADD_KEYS(1, i);
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
        transpose_keys(key, count, dim, batch->keys + batch->num_runs * LANES * dim / PAIR);
        convert_values(value, count, dim, batch->values + batch->num_runs * LANES * dim / PAIR);
        batch->position[batch->num_runs] = (int32_t)*position;
        batch->count[batch->num_runs++] = (int32_t)count;
        batch->num_keys += count;
        *position += count;
    }
    batch->end = *position;
}

/* Prefetch the first batch of a span, because the processor does not foresee which page comes next. */
static inline void prefetch(const kv_pages *kv, const span *keys, int64_t dim) {
    int64_t part = kv->page_size * dim, last = keys->first + RUNS * LANES;
    last = last < keys->last ? last : keys->last;
    for (int64_t position = keys->first, count; position < last; position += count) {
        int64_t offset = position % kv->page_size;
        const element *key = kv->pages + (keys->ids[position / kv->page_size] * 2 * kv->num_kv_heads + keys->head) * part + offset * dim;
        count = kv->page_size - offset < last - position ? kv->page_size - offset : last - position;
        for (int64_t i = 0; i < count * dim; i += 64 / sizeof *key) {
            __builtin_prefetch(key + i, 0, 2);
            __builtin_prefetch(key + kv->num_kv_heads * part + i, 0, 2);
        }
    }
}

/* Read all keys of a span. q: `[count, dim / PAIR]`. */
static inline __attribute__((always_inline)) void read_all(const kv_pages *kv, const span *keys, const span *next, const query_batch *queries,
                                                           const float *q, int64_t dim) {
    key_batch batch;
    limits seen = limits_of(queries->contexts, queries->count);
    int64_t position = keys->first, last = seen.most < keys->last ? seen.most : keys->last;
    while (position < last) {
        fill(&batch, kv, keys, dim, &position, last);
        span rest = {keys->ids, keys->head, position, last};
        if (position < last) prefetch(kv, &rest, dim);
        else if (next) prefetch(kv, next, dim);
        int whole = batch.end <= seen.least && batch.num_keys == batch.num_runs * LANES;
        if (batch.num_runs == RUNS && whole) add_batch(RUNS, 1, &batch, queries, q, dim, kv->scale);
        else if (batch.num_runs == RUNS) add_batch(RUNS, 0, &batch, queries, q, dim, kv->scale);
#if RUNS == 4
        else if (batch.num_runs == 3) add_batch(3, 0, &batch, queries, q, dim, kv->scale);
        else if (batch.num_runs == 2) add_batch(2, 0, &batch, queries, q, dim, kv->scale);
#endif
        else add_batch(1, 0, &batch, queries, q, dim, kv->scale);
    }
}

void read_vectors(const kv_pages *kv, const span *keys, const span *next, const query_batch *queries) {
    float q[queries->count * kv->dim / PAIR] __attribute__((aligned(64)));
    for (int64_t i = 0; i < queries->count; i++)
#if PAIR == 2
        memcpy(q + i * kv->dim / 2, queries->q[i], kv->dim * sizeof(element));
#else
        for (int64_t j = 0; j < kv->dim; j += LANES) store_floats(q + i * kv->dim + j, load(queries->q[i] + j));
#endif
    switch (kv->dim) {
    case 32: read_all(kv, keys, next, queries, q, 32); break;
    case 64: read_all(kv, keys, next, queries, q, 64); break;
    default: read_all(kv, keys, next, queries, q, kv->dim);
    }
}
