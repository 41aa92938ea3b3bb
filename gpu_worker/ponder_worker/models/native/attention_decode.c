/* Attention of decoding sequences. A page that several of them name is read once for all of them, at every level of the
 * tree that they form (https://arxiv.org/abs/2402.05099). */
#include "attention.h"

typedef struct {
    const element *q;
    const int64_t *contexts, *table;
    const int32_t *order;
    int64_t q_stride, stride, out_stride;
    mass *masses;
    float *mixed;
    element *out;
    kv_pages kv;
    const item *items; /* of one depth */
} decode_step;

static span span_of(const decode_step *step, int64_t task) {
    const item *work = step->items + task / step->kv.num_kv_heads;
    const int64_t *ids = step->table + step->order[work->first] * step->stride;
    return (span){ids, task % step->kv.num_kv_heads, work->page * step->kv.page_size, work->last * step->kv.page_size};
}

/* Read an item with one kv head. next: the span of the next task, or 0. */
static void read_item(const decode_step *step, int64_t task, const span *next) {
    const kv_pages *kv = &step->kv;
    const item *work = step->items + task / kv->num_kv_heads;
    span keys = span_of(step, task);
    int64_t dim = kv->dim, num_groups = kv->num_heads / kv->num_kv_heads, count = (work->end - work->first) * num_groups;
    float mixed[count * dim] __attribute__((aligned(64)));
    mass masses[count];
    int32_t contexts[count];
    const element *q[count];
    for (int64_t i = 0; i < count; i++) {
        int64_t row = step->order[work->first + i / num_groups], own = keys.head * num_groups + i % num_groups, place = row * kv->num_heads + own;
        q[i] = step->q + row * step->q_stride + own * dim;
        contexts[i] = (int32_t)step->contexts[row];
        masses[i] = work->depth ? step->masses[place] : (mass){UNSEEN, 0};
        if (work->depth) memcpy(mixed + i * dim, step->mixed + place * dim, dim * sizeof *mixed);
        else memset(mixed + i * dim, 0, dim * sizeof *mixed);
    }
    read_span(kv, &keys, next, &(query_batch){count, q, contexts, masses, mixed});
    for (int64_t i = 0; i < count; i++) {
        int64_t place = step->order[work->first + i / num_groups] * kv->num_heads + keys.head * num_groups + i % num_groups;
        memcpy(step->mixed + place * dim, mixed + i * dim, dim * sizeof *mixed);
        step->masses[place] = masses[i];
    }
}

static void read_items(const void *argument, int64_t first, int64_t end) {
    const decode_step *step = argument;
#if TILES
    tiles before;
    if (step->kv.use_tiles) before = begin_tiles();
#endif
    for (int64_t task = first; task < end; task++) {
        span next = span_of(step, task + 1 < end ? task + 1 : task);
        read_item(step, task, task + 1 < end ? &next : 0);
    }
#if TILES
    if (step->kv.use_tiles) end_tiles(before);
#endif
}

static void write_rows(const void *argument, int64_t first, int64_t end) {
    const decode_step *step = argument;
    int64_t num_heads = step->kv.num_heads, dim = step->kv.dim;
    for (int64_t place = first * num_heads; place < end * num_heads; place++)
        write_result(step->mixed + place * dim, step->masses + place, dim,
                     step->out + place / num_heads * step->out_stride + place % num_heads * dim);
}

/* Attend from one query a row. q: `[num_rows, num_heads, dim]`, rows q_stride apart. pages: `[_, 2, num_kv_heads,
 * page_size, dim]`. contexts, table, order, items: as in `plan_decode`. use_tiles: the result of has_products().
 * masses, mixed: working memory of 2 and of dim numbers for each row and head. out: like q, rows out_stride apart. */
void attend_decode(const element *q, int64_t q_stride, const element *pages, const int64_t *contexts, const int64_t *table,
            int64_t stride, const int32_t *order, const item *items, int64_t num_items, int64_t num_rows,
            int64_t num_heads, int64_t num_kv_heads, int64_t page_size, int64_t dim, float scale, int64_t num_threads,
            int64_t use_tiles, mass *masses, float *mixed, element *out, int64_t out_stride) {
    kv_pages kv = {pages, num_heads, num_kv_heads, page_size, dim, scale, (int)use_tiles};
    decode_step step = {q, contexts, table, order, q_stride, stride, out_stride, masses, mixed, out, kv, items};
    for (int64_t end; step.items < items + num_items; step.items += end) {
        for (end = 1; step.items + end < items + num_items && step.items[end].depth == step.items->depth;) end++;
        int64_t num_tasks = end * num_kv_heads, grain = num_tasks / (8 * num_threads);
        run(read_items, &step, num_tasks, grain ? grain : 1, num_threads);
    }
    run_rows(write_rows, &step, num_rows, num_threads);
}
