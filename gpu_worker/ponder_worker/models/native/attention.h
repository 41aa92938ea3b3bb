/* Attention over keys and values where they stand, in pages: what plans it, what reads the pages, and for whom. */
#include "tiles.h"

#define MOST_QUERIES 64 /* of decoding sequences, that are read for together */
#define MOST_DIM 256
#define UNSEEN -1e30f
#define INSIDE __attribute__((visibility("hidden")))

/* Rows [first, end) of the order have pages [page, last) in common. */
typedef struct { int32_t depth, first, end, page, last; } item;

/* pages: `[_, 2, num_kv_heads, page_size, dim]`; use_tiles: has_products() said that they may be used. */
typedef struct {
    const element *pages;
    int64_t num_heads, num_kv_heads, page_size, dim;
    float scale;
    int use_tiles;
} where;

/* Keys [first, last) of one kv head of a sequence that has these pages. first is the start of a page. */
typedef struct { const int64_t *ids; int64_t head, first, last; } span;

/* What is known of one query: the largest score so far, and the sum of exponentials below it. */
typedef struct { float peak, total; } mass;

/* Queries of a span's head. Each sees the keys before its context's end, the first one of every span at least. mixed:
 * `[count, dim]`, values by their exponentials, not yet divided by the totals. */
typedef struct {
    int64_t count;
    const element **q;
    int32_t *contexts;
    mass *masses;
    float *mixed;
} asking;

/* Adds a span's keys and values to what is known. */
INSIDE void read_vectors(const where *at, const span *keys, const asking *by);
INSIDE void read_tiles(const where *at, const span *keys, const asking *by);

static inline void read_span(const where *at, const span *keys, const asking *by) {
#if TILES
    if (at->use_tiles && by->count >= 8) { /* fewer fill too little of a tile */
        read_tiles(at, keys, by);
        return;
    }
#endif
    read_vectors(at, keys, by);
}

/* One query's result: its mixed values by its total. */
static inline void give(const float *mixed, const mass *of, int64_t dim, element *out) {
    float share = 1.0f / of->total;
    for (int64_t i = 0; i < dim; i += LANES) store(out + i, load_floats(mixed + i) * share);
}

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
