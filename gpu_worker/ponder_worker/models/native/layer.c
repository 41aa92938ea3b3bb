/* The operations between the matrix products of a layer, each of them one pass over its rows. */
#include "vector.h"

/* Compute hidden += delta, if there is one, and out = hidden / rms(hidden) * weight (https://arxiv.org/abs/1910.07467).
 * hidden, delta, out: contiguous `[num_rows, size]`. */
void add_and_normalise(element *hidden, const element *delta, const element *weight, element *out, int64_t num_rows,
                       int64_t size, float epsilon, int64_t num_threads) {
#pragma omp parallel for num_threads((int)num_threads)
    for (int64_t row = 0; row < num_rows; row++) {
        element *h = hidden + row * size;
        floats squares = splat(0);
        for (int64_t i = 0; i < size; i += LANES) {
            floats x = load(h + i);
            if (delta) {
                store(h + i, x + load(delta + row * size + i));
                x = load(h + i);
            }
            squares += x * x;
        }
        float factor = 1.0f / __builtin_sqrtf(sum_of(squares) / size + epsilon);
        for (int64_t i = 0; i < size; i += LANES)
            store(out + row * size + i, load(h + i) * factor * load(weight + i));
    }
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

/* Rotate queries in place, and write rotated keys and values to their slots in the pages. A slot of -1 is not written.
 * qkv: `[num_rows, num_heads + 2 * num_kv_heads, dim]`: queries, keys, values. pages: `[_, 2, num_kv_heads, page_size,
 * dim]`. cosine, sine: `[_, dim / 2]`, indexed by position. */
void rotate_and_write(element *qkv, element *pages, const int64_t *positions, const int64_t *slots, const float *cosine,
                      const float *sine, const element *query_norm, const element *key_norm, float epsilon,
                      int64_t num_rows, int64_t num_heads, int64_t num_kv_heads, int64_t page_size, int64_t dim,
                      int64_t num_threads) {
#pragma omp parallel for num_threads((int)num_threads)
    for (int64_t row = 0; row < num_rows; row++) {
        element *x = qkv + row * (num_heads + 2 * num_kv_heads) * dim;
        const float *c = cosine + positions[row] * (dim / 2), *s = sine + positions[row] * (dim / 2);
        for (int64_t head = 0; head < num_heads; head++)
            rotate_head(x + head * dim, x + head * dim, dim, query_norm, epsilon, c, s);
        if (slots[row] < 0) continue;
        int64_t page = slots[row] / page_size, offset = slots[row] % page_size;
        for (int64_t head = 0; head < num_kv_heads; head++) {
            element *key = pages + ((page * 2 * num_kv_heads + head) * page_size + offset) * dim;
            rotate_head(x + (num_heads + head) * dim, key, dim, key_norm, epsilon, c, s);
            memcpy(key + num_kv_heads * page_size * dim, x + (num_heads + num_kv_heads + head) * dim, dim * sizeof *key);
        }
    }
}

/* Compute silu of the first half times the second. gate_up: `[num_rows, 2 * size]`. out: `[num_rows, size]`. */
void gate(const element *gate_up, element *out, int64_t num_rows, int64_t size, int64_t num_threads) {
#pragma omp parallel for num_threads((int)num_threads)
    for (int64_t row = 0; row < num_rows; row++)
        for (int64_t i = 0; i < size; i += LANES) {
            floats x = load(gate_up + row * 2 * size + i), up = load(gate_up + row * 2 * size + size + i);
            ints low = x < -80.0f;
            store(out + row * size + i, x / (exp_of(-choose(low, splat(-80.0f), x)) + 1.0f) * up);
        }
}
