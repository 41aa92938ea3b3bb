/* Sampling of tokens. Noise that depends only on (key, token id) is added to the scores, and the largest score wins
 * (https://arxiv.org/abs/1611.01144). The noise is that of the engine's sampler. */
#include "vector.h"

/* The hash lowbias32: https://nullprogram.com/blog/2018/07/31/ */
static inline words scramble(words x) {
    x ^= x >> 16;
    x *= 0x7FEB352Du;
    x ^= x >> 15;
    x *= 0x846CA68Bu;
    return x ^ x >> 16;
}

/* Standard Gumbel noise from random bits. */
static inline floats gumbel(words bits) {
    floats u = (__builtin_convertvector((ints)(bits & 0x7FFFFFFFu), floats) + 0.5f) * 0x1p-31f;
    u = choose(u > 1 - 0x1p-24f, splat(1 - 0x1p-24f), u);
    floats rest = 1.0f - u; /* the factor below corrects for this rounding: https://doi.org/10.1145/103162.103163 */
    ints lost = rest == 1.0f;
    floats less = choose(lost, -u, log_of(rest) * (-u / choose(lost, splat(1), rest - 1.0f)));
    return -log_of(-less);
}

/* Draw one token a row, the first of those with equal scores. scores: `[num_rows, size]`. temperature: `[num_rows]`, the
 * divisor of the scores; 0 means no noise. keys: `[num_rows, 2]`. tokens: `[num_rows]`, filled here. */
void draw(const float *scores, int64_t num_rows, int64_t size, const float *temperature, const uint32_t *keys, int64_t *tokens,
          int64_t num_threads) {
    const words lane = LANE_NUMBERS;
#pragma omp parallel for num_threads((int)num_threads)
    for (int64_t row = 0; row < num_rows; row++) {
        const float *row_values = scores + row * size, divisor = temperature[row] ? temperature[row] : 1.0f;
        floats best = splat(-__builtin_inff());
        ints best_token = (ints){0};
        for (int64_t first = 0; first < size; first += LANES) {
            float rest[LANES];
            const float *from = row_values + first;
            if (size - first < LANES) {
                for (int i = 0; i < LANES; i++) rest[i] = first + i < size ? from[i] : -__builtin_inff();
                from = rest;
            }
            words token = lane + (uint32_t)first;
            floats score = load_floats(from) / divisor;
            if (temperature[row]) score += gumbel(scramble(scramble(token * 0x9E3779B9u + keys[2 * row]) ^ keys[2 * row + 1]));
            ints better = score > best;
            best = choose(better, score, best);
            best_token = (better & (ints)token) | (~better & best_token);
        }
        float peak = largest_of(best);
        int64_t found = size - 1;
        for (int i = 0; i < LANES; i++)
            if (best[i] == peak && best_token[i] < found) found = best_token[i];
        tokens[row] = found;
    }
}

/* Natural log-probabilities of one token a row. logits: `[num_rows, size]`. found: `[num_rows]`, filled here. */
void logprobs(const float *logits, int64_t num_rows, int64_t size, const int64_t *tokens, float *found, int64_t num_threads) {
#pragma omp parallel for num_threads((int)num_threads)
    for (int64_t row = 0; row < num_rows; row++) {
        const float *row_values = logits + row * size;
        int64_t whole = size / LANES * LANES;
        floats most = splat(-__builtin_inff()), total = splat(0);
        for (int64_t i = 0; i < whole; i += LANES) most = larger(load_floats(row_values + i), most);
        float peak = largest_of(most), rest = 0;
        for (int64_t i = whole; i < size; i++) peak = row_values[i] > peak ? row_values[i] : peak;
        for (int64_t i = 0; i < whole; i += LANES) total += exp_of(load_floats(row_values + i) - peak);
        for (int64_t i = whole; i < size; i++) rest += exp_of(splat(row_values[i] - peak))[0];
        found[row] = row_values[tokens[row]] - peak - log_of(splat(sum_of(total) + rest))[0];
    }
}
