/* The operations between the matrix products of a layer, each of them one pass over its rows. */
#include "thread_pool.h"
#include "vector.h"

typedef struct { element *hidden; const element *delta, *weight; element *out; int64_t size; float epsilon; } normalisation;

static void normalise_rows(const void *argument, int64_t first, int64_t end) {
    const normalisation *step = argument;
    int64_t size = step->size;
    for (int64_t row = first; row < end; row++) {
        element *h = step->hidden + row * size;
        floats squares = splat(0);
        for (int64_t i = 0; i < size; i += LANES) {
            floats x = load(h + i);
            if (step->delta) {
                store(h + i, x + load(step->delta + row * size + i));
                x = load(h + i);
            }
            squares += x * x;
        }
        float factor = 1.0f / __builtin_sqrtf(sum_of(squares) / size + step->epsilon);
        for (int64_t i = 0; i < size; i += LANES)
            store(step->out + row * size + i, load(h + i) * factor * load(step->weight + i));
    }
}

/* Compute hidden += delta, if there is one, and out = hidden / rms(hidden) * weight (https://arxiv.org/abs/1910.07467).
 * hidden, delta, out: contiguous `[num_rows, size]`. */
void add_and_normalise(element *hidden, const element *delta, const element *weight, element *out, int64_t num_rows,
                       int64_t size, float epsilon, int64_t num_threads) {
    run_rows(normalise_rows, &(normalisation){hidden, delta, weight, out, size, epsilon}, num_rows, num_threads);
}

/* Normalise one head, if there is a norm, and rotate it, with halves paired as Hugging Face pairs them
 * (https://arxiv.org/abs/2104.09864). */
static inline void rotate_head(const element *x, element *out, int64_t dim, const element *norm, float epsilon,
                        const float *cosine, const float *sine) {
    float factor = 1;
    if (norm) {
        floats squares = splat(0);
        for (int64_t i = 0; i < dim; i += LANES) squares += load(x + i) * load(x + i);
        factor = 1.0f / __builtin_sqrtf(sum_of(squares) / dim + epsilon);
    }
    for (int64_t i = 0; i < dim / 2; i += LANES) {
        floats low = load(x + i), high = load(x + dim / 2 + i);
        if (norm) {
            low *= factor * load(norm + i);
            high *= factor * load(norm + dim / 2 + i);
        }
        floats c = load_floats(cosine + i), s = load_floats(sine + i);
        store(out + i, low * c - high * s);
        store(out + dim / 2 + i, high * c + low * s);
    }
}

typedef struct {
    element *qkv, *pages;
    const int64_t *positions, *slots;
    const float *cosine, *sine;
    const element *query_norm, *key_norm;
    float epsilon;
    int64_t num_heads, num_kv_heads, page_size, dim;
} rotation;

static void rotate_rows(const void *argument, int64_t first, int64_t end) {
    const rotation *step = argument;
    int64_t num_heads = step->num_heads, num_kv_heads = step->num_kv_heads, page_size = step->page_size, dim = step->dim;
    for (int64_t row = first; row < end; row++) {
        element *x = step->qkv + row * (num_heads + 2 * num_kv_heads) * dim;
        const float *c = step->cosine + step->positions[row] * (dim / 2), *s = step->sine + step->positions[row] * (dim / 2);
        for (int64_t head = 0; head < num_heads; head++)
            rotate_head(x + head * dim, x + head * dim, dim, step->query_norm, step->epsilon, c, s);
        if (step->slots[row] < 0) continue;
        int64_t page = step->slots[row] / page_size, offset = step->slots[row] % page_size;
        for (int64_t head = 0; head < num_kv_heads; head++) {
            element *key = step->pages + ((page * 2 * num_kv_heads + head) * page_size + offset) * dim;
            rotate_head(x + (num_heads + head) * dim, key, dim, step->key_norm, step->epsilon, c, s);
            memcpy(key + num_kv_heads * page_size * dim, x + (num_heads + num_kv_heads + head) * dim, dim * sizeof *key);
        }
    }
}

/* Rotate queries in place, and write rotated keys and values to their slots in the pages. A slot of -1 is not written.
 * qkv: `[num_rows, num_heads + 2 * num_kv_heads, dim]`: queries, keys, values. pages: `[_, 2, num_kv_heads, page_size,
 * dim]`. cosine, sine: `[_, dim / 2]`, indexed by position. */
void rotate_and_write(element *qkv, element *pages, const int64_t *positions, const int64_t *slots, const float *cosine,
                      const float *sine, const element *query_norm, const element *key_norm, float epsilon,
                      int64_t num_rows, int64_t num_heads, int64_t num_kv_heads, int64_t page_size, int64_t dim,
                      int64_t num_threads) {
    rotation step = {qkv, pages, positions, slots, cosine, sine, query_norm, key_norm, epsilon, num_heads, num_kv_heads, page_size, dim};
    run_rows(rotate_rows, &step, num_rows, num_threads);
}

typedef struct { const element *gate_up; element *out; int64_t size; } gating;

static void gate_rows(const void *argument, int64_t first, int64_t end) {
    const gating *step = argument;
    int64_t size = step->size;
    for (int64_t row = first; row < end; row++)
        for (int64_t i = 0; i < size; i += LANES) {
            floats x = load(step->gate_up + row * 2 * size + i), up = load(step->gate_up + row * 2 * size + size + i);
            ints low = x < -80.0f;
            store(step->out + row * size + i, x / (exp_of(-choose(low, splat(-80.0f), x)) + 1.0f) * up);
        }
}

/* Compute silu of the first half times the second. gate_up: `[num_rows, 2 * size]`. out: `[num_rows, size]`. */
void gate(const element *gate_up, element *out, int64_t num_rows, int64_t size, int64_t num_threads) {
    run_rows(gate_rows, &(gating){gate_up, out, size}, num_rows, num_threads);
}
