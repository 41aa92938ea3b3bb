/* Attention of decoding sequences: a page that several of them name is read once for all, whatever they share later
 * (https://arxiv.org/abs/2402.05099). */
#include "attention.h"

typedef struct {
    const element *q;
    const int64_t *contexts, *table;
    const int32_t *order;
    int64_t q_stride, stride;
    mass *masses;
    float *mixed;
} rows;

static void read_item(const where *at, const rows *of, const item *it, int64_t head) {
    int64_t dim = at->dim, num_groups = at->num_heads / at->num_kv_heads, count = (it->end - it->first) * num_groups;
    float mixed[count * dim] __attribute__((aligned(64)));
    mass masses[count];
    int32_t contexts[count];
    const element *q[count];
    for (int64_t i = 0; i < count; i++) {
        int64_t row = of->order[it->first + i / num_groups], own = head * num_groups + i % num_groups, place = row * at->num_heads + own;
        q[i] = of->q + row * of->q_stride + own * dim;
        contexts[i] = (int32_t)of->contexts[row];
        masses[i] = it->depth ? of->masses[place] : (mass){UNSEEN, 0};
        if (it->depth) memcpy(mixed + i * dim, of->mixed + place * dim, dim * sizeof *mixed);
        else memset(mixed + i * dim, 0, dim * sizeof *mixed);
    }
    span keys = {of->table + of->order[it->first] * of->stride, head, it->page * at->page_size, it->last * at->page_size};
    read_span(at, &keys, &(asking){count, q, contexts, masses, mixed});
    for (int64_t i = 0; i < count; i++) {
        int64_t place = of->order[it->first + i / num_groups] * at->num_heads + head * num_groups + i % num_groups;
        memcpy(of->mixed + place * dim, mixed + i * dim, dim * sizeof *mixed);
        of->masses[place] = masses[i];
    }
}

/* q: `[num_rows, num_heads, dim]`, rows q_stride apart; pages: `[_, 2, num_kv_heads, page_size, dim]`; contexts, table,
 * order, items: as `plan` has them; use_tiles: has_products() said that they may be used; masses, mixed: room for 2 and
 * dim numbers a row and head; out: like q, its rows out_stride apart. */
void attend(const element *q, int64_t q_stride, const element *pages, const int64_t *contexts, const int64_t *table,
            int64_t stride, const int32_t *order, const item *items, int64_t num_items, int64_t num_rows,
            int64_t num_heads, int64_t num_kv_heads, int64_t page_size, int64_t dim, float scale, int64_t num_threads,
            int64_t use_tiles, mass *masses, float *mixed, element *out, int64_t out_stride) {
    where at = {pages, num_heads, num_kv_heads, page_size, dim, scale, (int)use_tiles};
    rows of = {q, contexts, table, order, q_stride, stride, masses, mixed};
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
                read_item(&at, &of, items + first + task / num_kv_heads, task % num_kv_heads);
        }
#pragma omp for
        for (int64_t row = 0; row < num_rows; row++)
            for (int64_t head = 0; head < num_heads; head++) {
                int64_t place = row * num_heads + head;
                give(mixed + place * dim, masses + place, dim, out + row * out_stride + head * dim);
            }
#if TILES
        if (use_tiles) end_tiles(before);
#endif
    }
}
