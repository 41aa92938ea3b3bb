/* Attention of sequences of which a step computes several tokens: prompts, and what a reward model reads. */
#include "attention.h"

#define MOST_TOGETHER 256 /* queries; keys and values are made ready once for so many */

/* Of sequences: their tokens are rows [starts, starts + lengths), the last ones of their contexts. table: `[_, stride]` */
typedef struct {
    const element *q;
    const int64_t *starts, *lengths, *contexts, *table;
    int64_t q_stride, stride, out_stride;
    element *out;
} chunks;

/* Tokens [first, end) of one sequence. */
static void read_block(const where *at, const chunks *of, int64_t sequence, int64_t first, int64_t end, int64_t head) {
    int64_t dim = at->dim, num_groups = at->num_heads / at->num_kv_heads, count = (end - first) * num_groups;
    int64_t known = of->contexts[sequence] - of->lengths[sequence];
    float mixed[count * dim] __attribute__((aligned(64)));
    mass masses[count];
    int32_t contexts[count];
    const element *q[count];
    memset(mixed, 0, sizeof mixed);
    for (int64_t i = 0; i < count; i++) {
        int64_t token = first + i / num_groups;
        q[i] = of->q + (of->starts[sequence] + token) * of->q_stride + (head * num_groups + i % num_groups) * dim;
        contexts[i] = (int32_t)(known + token + 1);
        masses[i] = (mass){UNSEEN, 0};
    }
    span keys = {of->table + sequence * of->stride, head, 0, known + end};
    read_span(at, &keys, &(asking){count, q, contexts, masses, mixed});
    for (int64_t i = 0; i < count; i++)
        give(mixed + i * dim, masses + i, dim,
             of->out + (of->starts[sequence] + first + i / num_groups) * of->out_stride + (head * num_groups + i % num_groups) * dim);
}

/* q: `[_, num_heads, dim]`, rows q_stride apart; starts, lengths, contexts: `[num_sequences]`; table: their pages,
 * `[num_sequences, stride]`; out: like q. */
void attend_chunks(const element *q, int64_t q_stride, const element *pages, const int64_t *starts, const int64_t *lengths,
                   const int64_t *contexts, const int64_t *table, int64_t stride, int64_t num_sequences, int64_t num_heads,
                   int64_t num_kv_heads, int64_t page_size, int64_t dim, float scale, int64_t num_threads, int64_t use_tiles,
                   element *out, int64_t out_stride) {
    where at = {pages, num_heads, num_kv_heads, page_size, dim, scale, (int)use_tiles};
    chunks of = {q, starts, lengths, contexts, table, q_stride, stride, out_stride, out};
    int64_t together = MOST_TOGETHER / (num_heads / num_kv_heads);
    together = together ? together : 1;
#pragma omp parallel num_threads((int)num_threads)
    {
#if TILES
        tiles before;
        if (use_tiles) before = begin_tiles();
#endif
        for (int64_t sequence = 0; sequence < num_sequences; sequence++) {
            int64_t blocks = (lengths[sequence] + together - 1) / together;
#pragma omp for schedule(dynamic) nowait
            for (int64_t task = blocks * num_kv_heads - 1; task >= 0; task--) {
                int64_t first = task / num_kv_heads * together, end = first + together;
                read_block(&at, &of, sequence, first, end < lengths[sequence] ? end : lengths[sequence], task % num_kv_heads);
            }
        }
#if TILES
        if (use_tiles) end_tiles(before);
#endif
    }
}
