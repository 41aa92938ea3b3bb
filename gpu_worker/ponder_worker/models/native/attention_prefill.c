/* Attention of sequences of which a step computes several tokens, such as prompts and the input of a reward model. */
#include "attention.h"

#define MOST_BLOCK_QUERIES 256 /* queries of a block, for which keys and values are prepared once */

/* The tokens of a sequence are rows [start, start + length), and the last ones of its context. table: `[_, stride]`. */
typedef struct {
    const element *q;
    const int64_t *starts, *lengths, *contexts, *table;
    int64_t q_stride, stride, out_stride;
    element *out;
} prefill_step;

/* Attend from the tokens [first, end) of one sequence. */
static void read_block(const kv_pages *kv, const prefill_step *step, int64_t sequence, int64_t first, int64_t end, int64_t head) {
    int64_t dim = kv->dim, num_groups = kv->num_heads / kv->num_kv_heads, count = (end - first) * num_groups;
    int64_t known = step->contexts[sequence] - step->lengths[sequence];
    float mixed[count * dim] __attribute__((aligned(64)));
    mass masses[count];
    int32_t contexts[count];
    const element *q[count];
    memset(mixed, 0, sizeof mixed);
    for (int64_t i = 0; i < count; i++) {
        int64_t token = first + i / num_groups;
        q[i] = step->q + (step->starts[sequence] + token) * step->q_stride + (head * num_groups + i % num_groups) * dim;
        contexts[i] = (int32_t)(known + token + 1);
        masses[i] = (mass){UNSEEN, 0};
    }
    span keys = {step->table + sequence * step->stride, head, 0, known + end};
    read_span(kv, &keys, &(query_batch){count, q, contexts, masses, mixed});
    for (int64_t i = 0; i < count; i++)
        write_result(mixed + i * dim, masses + i, dim,
             step->out + (step->starts[sequence] + first + i / num_groups) * step->out_stride + (head * num_groups + i % num_groups) * dim);
}

/* Attend from all tokens of the sequences. q: `[_, num_heads, dim]`, rows q_stride apart. starts, lengths, contexts:
 * `[num_sequences]`. table: their pages, `[num_sequences, stride]`. out: like q, rows out_stride apart. */
void attend_prefill(const element *q, int64_t q_stride, const element *pages, const int64_t *starts, const int64_t *lengths,
                   const int64_t *contexts, const int64_t *table, int64_t stride, int64_t num_sequences, int64_t num_heads,
                   int64_t num_kv_heads, int64_t page_size, int64_t dim, float scale, int64_t num_threads, int64_t use_tiles,
                   element *out, int64_t out_stride) {
    kv_pages kv = {pages, num_heads, num_kv_heads, page_size, dim, scale, (int)use_tiles};
    prefill_step step = {q, starts, lengths, contexts, table, q_stride, stride, out_stride, out};
    int64_t block_tokens = MOST_BLOCK_QUERIES / (num_heads / num_kv_heads);
    block_tokens = block_tokens ? block_tokens : 1;
#pragma omp parallel num_threads((int)num_threads)
    {
#if TILES
        tiles before;
        if (use_tiles) before = begin_tiles();
#endif
        for (int64_t sequence = 0; sequence < num_sequences; sequence++) {
            int64_t blocks = (lengths[sequence] + block_tokens - 1) / block_tokens;
#pragma omp for schedule(dynamic) nowait
            for (int64_t task = blocks * num_kv_heads - 1; task >= 0; task--) {
                int64_t first = task / num_kv_heads * block_tokens, end = first + block_tokens;
                read_block(&kv, &step, sequence, first, end < lengths[sequence] ? end : lengths[sequence], task % num_kv_heads);
            }
        }
#if TILES
        if (use_tiles) end_tiles(before);
#endif
    }
}
