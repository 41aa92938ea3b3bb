/* The inner part of attention.c on AMX. Keys stand as pairs of dims, values as pairs of keys, as tiles want them. */

/* 64 keys at most: keys `[runs, dim / 32, 16 pairs of dims, 16 keys, 2]`, values `[2, dim / 16, 16 pairs of keys, 16 dims, 2]` */
typedef struct {
    uint32_t keys[RUNS * LANES * MOST_DIM / 2] __attribute__((aligned(64))), values[RUNS * LANES * MOST_DIM / 2] __attribute__((aligned(64)));
    int32_t position[RUNS], count[RUNS];
    int64_t num_runs, end, num_keys;
} tile_batch;

/* Pairs of neighbouring keys' values, dim by dim; an odd one out is paired with zeros. */
static inline __attribute__((always_inline)) void pair_values(const element *value, int64_t count, int64_t dim, int64_t run, uint32_t *values) {
    for (int64_t pair = 0; pair < LANES / 2; pair++)
        for (int64_t first = 0; first < dim; first += LANES) {
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
            low |= high;
            int64_t tile = run / 2 * (dim / LANES) + first / LANES, row = run % 2 * 8 + pair;
            memcpy(values + (tile * LANES + row) * LANES, &low, sizeof low);
        }
}

static inline __attribute__((always_inline)) void fill_tiles(tile_batch *b, const where *at, const int64_t *ids, int64_t head, int64_t dim,
                                                             int64_t *position, int64_t last) {
    int64_t part = at->page_size * dim;
    b->num_runs = b->num_keys = 0;
    while (b->num_runs < RUNS && *position < last) {
        int64_t page = *position / at->page_size, offset = *position % at->page_size, run = b->num_runs++;
        int64_t count = at->page_size - offset < LANES ? at->page_size - offset : LANES;
        const element *key = at->pages + (ids[page] * 2 * at->num_kv_heads + head) * part + offset * dim;
        for (int64_t first = 0; first < dim; first += 2 * LANES) {
            ints t[LANES];
            for (int j = 0; j < LANES; j++) {
                t[j] = (ints){0};
                if (j < count) memcpy(&t[j], key + j * dim + first, sizeof t[j]);
            }
            transpose(t);
            memcpy(b->keys + (run * (dim / 32) + first / 32) * LANES * LANES, t, sizeof t);
        }
        pair_values(key + at->num_kv_heads * part, count, dim, run, b->values);
        b->position[run] = (int32_t)*position;
        b->count[run] = (int32_t)count;
        b->num_keys += count;
        *position += count;
    }
    if (b->num_runs % 2) pair_values(0, 0, dim, b->num_runs, b->values); /* the other half of the last tile's rows */
    b->end = *position;
}

#define SCORE(tile, run) if (b->num_runs > run) { \
    _tile_zero(tile); \
    for (int64_t i = 0; i < dim / 32; i++) { \
        _tile_loadd(4, q + i * 32, dim * 2); \
        _tile_loadd(5, b->keys + (run * (dim / 32) + i) * LANES * LANES, 64); \
        _tile_dpbf16ps(tile, 4, 5); \
    } \
    _tile_stored(tile, scores + run * LANES, RUNS * LANES * 4); \
}

/* Adds a batch's keys to 16 queries, of which `size` are wanted. q: bfloat16; mixed: 16 rows */
static inline __attribute__((always_inline)) void add_tiles(int64_t size, int whole, const tile_batch *b, const element *q, float scale,
                                                            int64_t dim, const int32_t *contexts, mass *masses, float *mixed) {
    const ints lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    float scores[LANES * RUNS * LANES] __attribute__((aligned(64)));
    element shares[LANES * RUNS * LANES] __attribute__((aligned(64)));
    SETTLE();
    SCORE(0, 0)
    SCORE(1, 1)
    SCORE(2, 2)
    SCORE(3, 3)
    SETTLE();
    int64_t runs = b->num_runs, even = (runs + 1) / 2 * 2;
    for (int64_t r = 0; r < size; r++) {
        floats score[RUNS], most = splat(UNSEEN), total = splat(0);
        for (int64_t s = 0; s < runs; s++) {
            score[s] = load_floats(scores + (r * RUNS + s) * LANES) * scale;
            if (!whole) {
                int32_t seen = contexts[r] - b->position[s];
                score[s] = choose(lane < (seen < b->count[s] ? seen : b->count[s]), score[s], splat(UNSEEN));
            }
            most = larger(most, score[s]);
        }
        float peak = largest_of(most), kept = 1;
        if (peak > masses[r].peak) {
            kept = exp_of(splat(masses[r].peak - peak))[0];
            masses[r].peak = peak;
            for (int64_t i = 0; i < dim; i += LANES) store_floats(mixed + r * dim + i, load_floats(mixed + r * dim + i) * kept);
        }
        for (int64_t s = 0; s < runs; s++) {
            floats share = exp_of(score[s] - masses[r].peak);
            store(shares + (r * RUNS + s) * LANES, share);
            total += share;
        }
        if (even > runs) store(shares + (r * RUNS + runs) * LANES, splat(0));
        masses[r].total = masses[r].total * kept + sum_of(total);
    }
    if (size < LANES) memset(shares + size * RUNS * LANES, 0, (LANES - size) * RUNS * LANES * sizeof *shares);
    SETTLE();
    for (int64_t first = 0; first < dim; first += LANES) {
        _tile_loadd(0, mixed + first, dim * 4);
        for (int64_t two = 0; two < even / 2; two++) {
            _tile_loadd(4, shares + two * 2 * LANES, RUNS * LANES * 2);
            _tile_loadd(5, b->values + (two * (dim / LANES) + first / LANES) * LANES * LANES, 64);
            _tile_dpbf16ps(0, 4, 5);
        }
        _tile_stored(0, mixed + first, dim * 4);
    }
    SETTLE();
}

/* As read_pages; q: bfloat16 and not scaled; q and mixed have whole tiles of rows. */
static inline __attribute__((always_inline)) void read_tiles(const where *at, const item *it, int64_t head, int64_t dim, const element *q,
                                                             float scale, int64_t num_queries, const int32_t *contexts, mass *masses,
                                                             float *mixed) {
    tile_batch b;
    limits seen = limits_of(contexts, num_queries);
    int64_t position = it->page * at->page_size, last = it->last * at->page_size;
    last = seen.most < last ? seen.most : last;
    while (position < last) {
        fill_tiles(&b, at, at->table + at->order[it->first] * at->stride, head, dim, &position, last);
        int whole = b.end <= seen.least && b.num_keys == b.num_runs * LANES;
        for (int64_t i = 0; i < num_queries; i += LANES) {
            int64_t size = num_queries - i < LANES ? num_queries - i : LANES;
            if (whole) add_tiles(size, 1, &b, q + i * dim, scale, dim, contexts + i, masses + i, mixed + i * dim);
            else add_tiles(size, 0, &b, q + i * dim, scale, dim, contexts + i, masses + i, mixed + i * dim);
        }
    }
}
