/* Attention that reads keys and values directly from their pages. */
#include "thread_pool.h"
#include "tiles.h"

#define MOST_QUERIES 64 /* queries of decoding sequences that share one read */
#define MOST_DIM 256
#define UNSEEN -1e30f

/* A work item: rows [first, end) of the order have pages [page, last) in common. */
typedef struct { int32_t depth, first, end, page, last; } item;

/* The pages of a layer, `[_, 2, num_kv_heads, page_size, dim]`. use_tiles: whether AMX may be used. */
typedef struct {
    const element *pages;
    int64_t num_heads, num_kv_heads, page_size, dim;
    float scale;
    int use_tiles;
} kv_pages;

/* Keys [first, last) of one kv head, in the pages `ids` of a sequence. `first` is the start of a page. */
typedef struct { const int64_t *ids; int64_t head, first, last; } span;

/* The state of one query's softmax: the largest score so far, and the sum of exponentials relative to it. */
typedef struct { float peak, total; } mass;

/* Queries of the head of a span. Each one sees the keys before the end of its context, which include the first key of
 * every span. mixed: `[count, dim]`, the values weighted by exponentials, not yet divided by the totals. */
typedef struct {
    int64_t count;
    const element **q;
    int32_t *contexts;
    mass *masses;
    float *mixed;
} query_batch;

/* Add the keys and values of a span to the states of the queries. next: the span that is read after it, or 0. */
INSIDE void read_vectors(const kv_pages *kv, const span *keys, const span *next, const query_batch *queries);
INSIDE void read_tiles(const kv_pages *kv, const span *keys, const query_batch *queries);

static inline void read_span(const kv_pages *kv, const span *keys, const span *next, const query_batch *queries) {
#if TILES
    if (kv->use_tiles && queries->count >= 8) { /* fewer queries leave too much of a tile empty */
        read_tiles(kv, keys, queries);
        return;
    }
#endif
    read_vectors(kv, keys, next, queries);
}

/* Write one query's result: its mixed values divided by its total. */
static inline void write_result(const float *mixed, const mass *state, int64_t dim, element *out) {
    float share = 1.0f / state->total;
    for (int64_t i = 0; i < dim; i += LANES) store(out + i, load_floats(mixed + i) * share);
}

/* The shortest and the longest context of a set of queries. */
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

/* Transpose `[LANES, LANES]` words. */
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
