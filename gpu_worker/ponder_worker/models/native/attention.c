/* Attention of decoding sequences over keys and values where they stand, in pages; a page that several sequences name
 * is read once for all of them, whatever they share later (https://arxiv.org/abs/2402.05099). */
#include "tiles.h"
#include <stdlib.h>

#define MOST_QUERIES 64
#define TILED_QUERIES 8 /* fewer fill too little of a tile */
#define MOST_DIM 256
/* Runs of LANES keys between two looks at the largest score: sums of RUNS and of 4 queries are to stay in registers. */
#if LANES == 16
#define RUNS 4
#else
#define RUNS 2
#endif
#define UNSEEN -1e30f

/* Rows [first, end) of the order have pages [page, last) in common. */
typedef struct { int32_t depth, first, end, page, last; } item;

typedef struct {
    const int64_t *contexts, *table;
    int64_t stride, page_size, most_rows;
    int32_t *order;
    item *items;
    int64_t count;
} planning;

static int64_t num_pages(const planning *p, int64_t place) {
    return (p->contexts[p->order[place]] + p->page_size - 1) / p->page_size;
}

static int64_t page_of(const planning *p, int64_t place, int64_t page) { return p->table[p->order[place] * p->stride + page]; }

static void emit(planning *p, int64_t depth, int64_t first, int64_t end, int64_t page, int64_t last) {
    for (int64_t from = first; from < end && page < last; from += p->most_rows) {
        int64_t to = from + p->most_rows < end ? from + p->most_rows : end;
        p->items[p->count++] = (item){depth, from, to, page, last};
    }
}

static int by_value(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Orders rows by their page at this index; those that have none come first. */
static void sort(planning *p, int64_t first, int64_t end, int64_t page) {
    int64_t *keys = malloc((end - first) * sizeof *keys);
    if (!keys && end > first) abort();
    for (int64_t i = first; i < end; i++) {
        int64_t id = page < num_pages(p, i) ? page_of(p, i, page) + 1 : 0;
        keys[i - first] = id << 32 | p->order[i];
    }
    qsort(keys, end - first, sizeof *keys, by_value);
    for (int64_t i = first; i < end; i++) p->order[i] = (int32_t)(keys[i - first] & 0xffffffff);
    free(keys);
}

static void divide(planning *p, int64_t depth, int64_t first, int64_t end, int64_t page) {
    int64_t last = num_pages(p, first);
    for (int64_t i = first + 1; i < end; i++) {
        int64_t common = page;
        int64_t most = num_pages(p, i) < last ? num_pages(p, i) : last;
        while (common < most && page_of(p, i, common) == page_of(p, first, common)) common++;
        last = common;
    }
    emit(p, depth, first, end, page, last);
    if (end - first == 1) return;
    depth += last > page;
    sort(p, first, end, last);
    for (int64_t from = first, to; from < end; from = to) {
        to = from + 1;
        if (last >= num_pages(p, from)) continue;
        while (to < end && page_of(p, to, last) == page_of(p, from, last)) to++;
        divide(p, depth, from, to, last);
    }
}

static int by_depth(const void *a, const void *b) {
    const item *x = a, *y = b;
    return x->depth != y->depth ? x->depth - y->depth : x->first - y->first;
}

/* contexts: [num_rows]; table: [num_rows, stride]; order: [num_rows], to be filled; items: room for
 * num_rows * (num_rows / (MOST_QUERIES / num_groups) + 3), as every row may stand in as many as there are rows -> the number
 * of items, those of one depth one behind the other. Of one depth, no two have a row in common. */
int64_t plan(int64_t num_rows, const int64_t *contexts, const int64_t *table, int64_t stride, int64_t page_size,
             int64_t num_groups, int32_t *order, item *items) {
    int64_t most = MOST_QUERIES / num_groups;
    planning p = {contexts, table, stride, page_size, most ? most : 1, order, items, 0};
    for (int64_t i = 0; i < num_rows; i++) order[i] = (int32_t)i;
    sort(&p, 0, num_rows, 0);
    for (int64_t from = 0, to; from < num_rows; from = to) {
        for (to = from + 1; to < num_rows && page_of(&p, to, 0) == page_of(&p, from, 0);) to++;
        divide(&p, 0, from, to, 0);
    }
    qsort(items, p.count, sizeof *items, by_depth);
    return p.count;
}

#define SECOND(lane, s) (FROM(lane, s) + s)
#define FROM(lane, s) ((lane) & (s) ? (lane) - (s) + LANES : (lane))
#define SWAP(a, b, s) do { \
    ints x = a, y = b; \
    a = __builtin_shufflevector(x, y, EACH(FROM, s)); \
    b = __builtin_shufflevector(x, y, EACH(SECOND, s)); \
} while (0)
#define STAGE(t, s) for (int i = 0; i < LANES; i++) if (!(i & s)) SWAP(t[i], t[i + s], s)

/* [LANES, LANES] words, rows and columns exchanged. */
static inline void transpose(ints t[LANES]) {
#pragma GCC unroll 16
    STAGE(t, 1);
#pragma GCC unroll 16
    STAGE(t, 2);
#if LANES > 4
#pragma GCC unroll 16
    STAGE(t, 4);
#endif
#if LANES > 8
#pragma GCC unroll 16
    STAGE(t, 8);
#endif
}

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

typedef struct {
    const element *pages;
    const int64_t *table, *contexts;
    const int32_t *order;
    int64_t stride, page_size, num_heads, num_kv_heads;
} where;

/* What is known of one query: the largest score so far, the sum of exponentials below it, and the mixed values. */
typedef struct { float peak, total; } mass;

/* The shortest and the longest context of some queries. */
typedef struct { int32_t least, most; } limits;

static inline limits limits_of(const int32_t *contexts, int64_t num_queries) {
    limits found = {INT32_MAX, 0};
    for (int64_t i = 0; i < num_queries; i++) {
        found.least = contexts[i] < found.least ? contexts[i] : found.least;
        found.most = contexts[i] > found.most ? contexts[i] : found.most;
    }
    return found;
}

#if TILES
#include "attention_tiles.h"
#endif

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
static inline __attribute__((always_inline)) void fill(batch *b, const where *at, const int64_t *ids, int64_t head, int64_t dim,
                                                       int64_t *position, int64_t last) {
    int64_t part = at->page_size * dim;
    b->num_runs = b->num_keys = 0;
    while (b->num_runs < RUNS && *position < last) {
        int64_t page = *position / at->page_size, offset = *position % at->page_size;
        int64_t count = at->page_size - offset < LANES ? at->page_size - offset : LANES;
        const element *key = at->pages + (ids[page] * 2 * at->num_kv_heads + head) * part + offset * dim;
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

/* One item, one kv head. q, mixed: `[num_queries, dim]`; contexts, masses: `[num_queries]` */
static inline __attribute__((always_inline)) void read_pages(const where *at, const item *it, int64_t head, int64_t dim, const float *q,
                                                             int64_t num_queries, const int32_t *contexts, mass *masses, float *mixed) {
    batch b;
    limits seen = limits_of(contexts, num_queries);
    int64_t position = it->page * at->page_size, last = it->last * at->page_size;
    last = seen.most < last ? seen.most : last;
    while (position < last) {
        fill(&b, at, at->table + at->order[it->first] * at->stride, head, dim, &position, last);
        int whole = b.end <= seen.least && b.num_keys == b.num_runs * LANES;
        if (b.num_runs == RUNS && whole) add_batch(RUNS, 1, &b, q, num_queries, dim, contexts, masses, mixed);
        else if (b.num_runs == RUNS) add_batch(RUNS, 0, &b, q, num_queries, dim, contexts, masses, mixed);
#if RUNS == 4
        else if (b.num_runs == 3) add_batch(3, 0, &b, q, num_queries, dim, contexts, masses, mixed);
        else if (b.num_runs == 2) add_batch(2, 0, &b, q, num_queries, dim, contexts, masses, mixed);
#endif
        else add_batch(1, 0, &b, q, num_queries, dim, contexts, masses, mixed);
    }
}

static void read_item(const where *at, const item *it, int64_t head, int64_t dim, const element *q, int64_t q_stride,
                      float scale, int use_tiles, mass *masses, float *mixed) {
    int64_t num_groups = at->num_heads / at->num_kv_heads, num_queries = (it->end - it->first) * num_groups;
    int64_t room = (num_queries + LANES - 1) / LANES * LANES;
    float queries[room * dim] __attribute__((aligned(64))), own[room * dim] __attribute__((aligned(64)));
    mass own_masses[room];
    int32_t contexts[room];
    element *narrow = (element *)queries;
    use_tiles = use_tiles && num_queries >= TILED_QUERIES;
    for (int64_t i = 0; i < num_queries; i++) {
        int64_t row = at->order[it->first + i / num_groups], place = row * at->num_heads + head * num_groups + i % num_groups;
        const element *from = q + row * q_stride + (head * num_groups + i % num_groups) * dim;
        if (use_tiles) memcpy(narrow + i * dim, from, dim * sizeof *from);
        else for (int64_t j = 0; j < dim; j += LANES) store_floats(queries + i * dim + j, load(from + j) * scale);
        if (it->depth) memcpy(own + i * dim, mixed + place * dim, dim * sizeof *own);
        else memset(own + i * dim, 0, dim * sizeof *own);
        own_masses[i] = it->depth ? masses[place] : (mass){UNSEEN, 0};
        contexts[i] = (int32_t)at->contexts[row];
    }
#if TILES
    if (use_tiles) {
        memset(narrow + num_queries * dim, 0, (room - num_queries) * dim * sizeof *narrow);
        memset(own + num_queries * dim, 0, (room - num_queries) * dim * sizeof *own);
        switch (dim) {
        case 32: read_tiles(at, it, head, 32, narrow, scale, num_queries, contexts, own_masses, own); break;
        case 64: read_tiles(at, it, head, 64, narrow, scale, num_queries, contexts, own_masses, own); break;
        default: read_tiles(at, it, head, dim, narrow, scale, num_queries, contexts, own_masses, own);
        }
    } else
#endif
    switch (dim) {
    case 32: read_pages(at, it, head, 32, queries, num_queries, contexts, own_masses, own); break;
    case 64: read_pages(at, it, head, 64, queries, num_queries, contexts, own_masses, own); break;
    default: read_pages(at, it, head, dim, queries, num_queries, contexts, own_masses, own);
    }
    for (int64_t i = 0; i < num_queries; i++) {
        int64_t row = at->order[it->first + i / num_groups], place = row * at->num_heads + head * num_groups + i % num_groups;
        memcpy(mixed + place * dim, own + i * dim, dim * sizeof *own);
        masses[place] = own_masses[i];
    }
}

/* q: `[num_rows, num_heads, dim]`, rows q_stride apart; pages: `[_, 2, num_kv_heads, page_size, dim]`; contexts, table,
 * order, items: as `plan` has them; use_tiles: has_products() said that they may be used; masses, mixed: room for 2 and
 * dim numbers a row and head; out: like q, its rows out_stride apart. */
void attend(const element *q, int64_t q_stride, const element *pages, const int64_t *contexts, const int64_t *table,
            int64_t stride, const int32_t *order, const item *items, int64_t num_items, int64_t num_rows,
            int64_t num_heads, int64_t num_kv_heads, int64_t page_size, int64_t dim, float scale, int64_t num_threads,
            int64_t use_tiles, mass *masses, float *mixed, element *out, int64_t out_stride) {
    where at = {pages, table, contexts, order, stride, page_size, num_heads, num_kv_heads};
#pragma omp parallel num_threads((int)num_threads)
    {
#if TILES
        tiles before;
        if (use_tiles) before = begin_tiles();
#endif
        for (int64_t first = 0, end; first < num_items; first = end) {
            for (end = first; end < num_items && items[end].depth == items[first].depth;) end++;
#pragma omp for schedule(dynamic)
            for (int64_t task = 0; task < (end - first) * num_kv_heads; task++)
                read_item(&at, items + first + task / num_kv_heads, task % num_kv_heads, dim, q, q_stride, scale, (int)use_tiles, masses, mixed);
        }
#pragma omp for
        for (int64_t row = 0; row < num_rows; row++)
            for (int64_t head = 0; head < num_heads; head++) {
                int64_t place = row * num_heads + head;
                float share = 1.0f / masses[place].total;
                for (int64_t j = 0; j < dim; j += LANES)
                    store(out + row * out_stride + head * dim + j, load_floats(mixed + place * dim + j) * share);
            }
#if TILES
        if (use_tiles) end_tiles(before);
#endif
    }
}
