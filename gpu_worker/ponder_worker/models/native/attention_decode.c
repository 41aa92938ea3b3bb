/* Attention of decoding sequences. A page that several of them name is read once for all of them, at every level of the
 * tree that they form (https://arxiv.org/abs/2402.05099). */
#include "attention.h"

typedef struct {
    const element *q;
    const int64_t *contexts, *table;
    const int32_t *order;
    int64_t q_stride, stride;
    mass *masses;
    float *mixed;
} decode_step;

static void read_item(const kv_pages *kv, const decode_step *step, const item *work, int64_t head) {
    int64_t dim = kv->dim, num_groups = kv->num_heads / kv->num_kv_heads, count = (work->end - work->first) * num_groups;
    float mixed[count * dim] __attribute__((aligned(64)));
    mass masses[count];
    int32_t contexts[count];
    const element *q[count];
    for (int64_t i = 0; i < count; i++) {
        int64_t row = step->order[work->first + i / num_groups], own = head * num_groups + i % num_groups, place = row * kv->num_heads + own;
        q[i] = step->q + row * step->q_stride + own * dim;
        contexts[i] = (int32_t)step->contexts[row];
        masses[i] = work->depth ? step->masses[place] : (mass){UNSEEN, 0};
        if (work->depth) memcpy(mixed + i * dim, step->mixed + place * dim, dim * sizeof *mixed);
        else memset(mixed + i * dim, 0, dim * sizeof *mixed);
    }
    span keys = {step->table + step->order[work->first] * step->stride, head, work->page * kv->page_size, work->last * kv->page_size};
    read_span(kv, &keys, &(query_batch){count, q, contexts, masses, mixed});
    for (int64_t i = 0; i < count; i++) {
        int64_t place = step->order[work->first + i / num_groups] * kv->num_heads + head * num_groups + i % num_groups;
        memcpy(step->mixed + place * dim, mixed + i * dim, dim * sizeof *mixed);
        step->masses[place] = masses[i];
    }
}

/* Attend from one query a row. q: `[num_rows, num_heads, dim]`, rows q_stride apart. pages: `[_, 2, num_kv_heads,
 * page_size, dim]`. contexts, table, order, items: as in `plan_decode`. use_tiles: the result of has_products().
 * masses, mixed: working memory of 2 and of dim numbers for each row and head. out: like q, rows out_stride apart. */
void attend_decode(const element *q, int64_t q_stride, const element *pages, const int64_t *contexts, const int64_t *table,
            int64_t stride, const int32_t *order, const item *items, int64_t num_items, int64_t num_rows,
            int64_t num_heads, int64_t num_kv_heads, int64_t page_size, int64_t dim, float scale, int64_t num_threads,
            int64_t use_tiles, mass *masses, float *mixed, element *out, int64_t out_stride) {
    kv_pages kv = {pages, num_heads, num_kv_heads, page_size, dim, scale, (int)use_tiles};
    decode_step step = {q, contexts, table, order, q_stride, stride, masses, mixed};
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
                read_item(&kv, &step, items + first + task / num_kv_heads, task % num_kv_heads);
        }
#pragma omp for
        for (int64_t row = 0; row < num_rows; row++)
            for (int64_t head = 0; head < num_heads; head++) {
                int64_t place = row * num_heads + head;
                write_result(mixed + place * dim, masses + place, dim, out + row * out_stride + head * dim);
            }
#if TILES
        if (use_tiles) end_tiles(before);
#endif
    }
}
