/* Attention of sequences of which a step computes several tokens, such as prompts and the input of a reward model. */
#include "attention.h"

#define MOST_BLOCK_QUERIES 256 /* queries of a block, for which keys and values are prepared once */

/* The tokens of a sequence are rows [start, start + length), and the last ones of its context. table: `[_, stride]`. */
typedef struct {
    const element *q;
    const int64_t *starts, *lengths, *contexts, *table;
    int64_t q_stride, stride, out_stride;
    element *out;
    kv_pages kv;
    int64_t block_tokens;
    const int64_t *ends; /* `[num_sequences]`: the number of tasks of each sequence and all before it */
} prefill_step;

/* Attend from the tokens [first, end) of one sequence. */
static void read_block(const prefill_step *step, int64_t sequence, int64_t first, int64_t end, int64_t head) {
    const kv_pages *kv = &step->kv;
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
    read_span(kv, &keys, 0, &(query_batch){count, q, contexts, masses, mixed});
    for (int64_t i = 0; i < count; i++)
        write_result(mixed + i * dim, masses + i, dim,
             step->out + (step->starts[sequence] + first + i / num_groups) * step->out_stride + (head * num_groups + i % num_groups) * dim);
}

/* Read blocks, of each sequence the last one first, because it takes longest. */
static void read_blocks(const void *argument, int64_t first, int64_t end) {
    const prefill_step *step = argument;
#if TILES
    tiles before;
    if (step->kv.use_tiles) before = begin_tiles();
#endif
    int64_t sequence = 0;
    for (int64_t task = first; task < end; task++) {
        while (step->ends[sequence] <= task) sequence++;
        int64_t left = step->ends[sequence] - 1 - task, token = left / step->kv.num_kv_heads * step->block_tokens;
        int64_t last = token + step->block_tokens < step->lengths[sequence] ? token + step->block_tokens : step->lengths[sequence];
        read_block(step, sequence, token, last, left % step->kv.num_kv_heads);
    }
#if TILES
    if (step->kv.use_tiles) end_tiles(before);
#endif
}

/* Attend from all tokens of the sequences. q: `[_, num_heads, dim]`, rows q_stride apart. starts, lengths, contexts:
 * `[num_sequences]`. table: their pages, `[num_sequences, stride]`. out: like q, rows out_stride apart. */
void attend_prefill(const element *q, int64_t q_stride, const element *pages, const int64_t *starts, const int64_t *lengths,
                   const int64_t *contexts, const int64_t *table, int64_t stride, int64_t num_sequences, int64_t num_heads,
                   int64_t num_kv_heads, int64_t page_size, int64_t dim, float scale, int64_t num_threads, int64_t use_tiles,
                   element *out, int64_t out_stride) {
    kv_pages kv = {pages, num_heads, num_kv_heads, page_size, dim, scale, (int)use_tiles};
    int64_t ends[num_sequences], num_tasks = 0, block_tokens = MOST_BLOCK_QUERIES / (num_heads / num_kv_heads);
    block_tokens = block_tokens ? block_tokens : 1;
    for (int64_t i = 0; i < num_sequences; i++) ends[i] = num_tasks += (lengths[i] + block_tokens - 1) / block_tokens * num_kv_heads;
    prefill_step step = {q, starts, lengths, contexts, table, q_stride, stride, out_stride, out, kv, block_tokens, ends};
    run(read_blocks, &step, num_tasks, 1, num_threads);
}
