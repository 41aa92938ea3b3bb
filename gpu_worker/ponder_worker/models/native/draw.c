/* Sampling of tokens. Noise that depends only on (key, token id) is added to the scores, and the largest score wins
 * (https://arxiv.org/abs/1611.01144). The noise is that of the engine's sampler. */
#include "thread_pool.h"
#include "vector.h"

#define SLACK 1e-5f /* more than what rounding may add to a bound, relative to the score and to the largest noise */

/* The hash lowbias32: https://nullprogram.com/blog/2018/07/31/ */
static inline words scramble(words x) {
    x ^= x >> 16;
    x *= 0x7FEB352Du;
    x ^= x >> 15;
    x *= 0x846CA68Bu;
    return x ^ x >> 16;
}

/* Uniform numbers in (0, 1) from random bits. */
static inline floats uniform(words bits) {
    floats u = (__builtin_convertvector((ints)(bits & 0x7FFFFFFFu), floats) + 0.5f) * 0x1p-31f;
    return choose(u > 1 - 0x1p-24f, splat(1 - 0x1p-24f), u);
}

/* Standard Gumbel noise from uniform numbers: -log(-log(1 - u)). */
static inline floats gumbel(floats u) {
    floats rest = 1.0f - u; /* the factor below corrects for this rounding: https://doi.org/10.1145/103162.103163 */
    ints lost = rest == 1.0f;
    floats less = choose(lost, -u, log_of(rest) * (-u / choose(lost, splat(1), rest - 1.0f)));
    return -log_of(-less);
}

/* An upper bound of `gumbel(u)`: -log(1 - u) >= u >= 2^n, where n is the exponent of u, so the noise is at most -n log 2. */
static inline floats gumbel_bound(floats u) { return __builtin_convertvector(127 - ((ints)u >> 23), floats) * 0.6931472f; }

static inline int any(ints mask) {
#ifdef __AVX512F__
    return _mm512_test_epi32_mask((__m512i)mask, (__m512i)mask) != 0;
#else
    int found = 0;
    for (int i = 0; i < LANES; i++) found |= mask[i];
    return found;
#endif
}

/* Masks of some rows. bits: `[num_masks, num_bytes]`, one for each token, the lowest first; num_bytes is a multiple of four.
 * of_rows: `[num_rows]`, the number of each row's mask, or -1. */
typedef struct { const uint8_t *bits; int64_t num_bytes; const int64_t *of_rows; } masking;

#define ALL_ALLOWED ((1u << LANES) - 1)

/* The mask of a row; NULL where everything is allowed. */
static inline const uint8_t *mask_of(const masking *masks, int64_t row) {
    return masks->bits && masks->of_rows[row] >= 0 ? masks->bits + masks->of_rows[row] * masks->num_bytes : 0;
}

/* The bits of the tokens [first, first + LANES). */
static inline uint32_t allowed_at(const uint8_t *mask, int64_t first) {
    if (!mask) return ALL_ALLOWED;
#if LANES == 16
    return mask[first >> 3] | mask[(first >> 3) + 1] << 8;
#elif LANES == 8
    return mask[first >> 3];
#else
    return mask[first >> 3] >> (first & 4) & ALL_ALLOWED;
#endif
}

/* The scores, and -inf where a token is not allowed. */
static inline floats only_allowed(uint32_t allowed, floats scores) {
    const words lane = LANE_NUMBERS;
    return choose((ints)((allowed >> lane & 1) != 0), scores, splat(-__builtin_inff()));
}

typedef struct {
    const float *scores;
    int64_t size;
    const float *temperature;
    const uint32_t *keys;
    masking masks;
    int64_t *tokens;
} drawing;

static void draw_rows(const void *argument, int64_t begin, int64_t end) {
    const drawing *step = argument;
    const words lane = LANE_NUMBERS;
    int64_t size = step->size;
    for (int64_t row = begin; row < end; row++) {
        const float *row_values = step->scores + row * size, temperature = step->temperature[row];
        const float divisor = temperature ? temperature : 1.0f;
        const uint32_t *key = step->keys + 2 * row;
        const uint8_t *mask = mask_of(&step->masks, row);
        floats best = splat(-__builtin_inff());
        ints best_token = (ints){0};
        float least = -__builtin_inff(); /* a score must exceed this, less its noise, to matter */
        for (int64_t first = 0; first < size; first += LANES) {
            uint32_t allowed = allowed_at(mask, first);
            if (!allowed) continue;
            float rest[LANES];
            const float *from = row_values + first;
            if (size - first < LANES) {
                for (int i = 0; i < LANES; i++) rest[i] = first + i < size ? from[i] : -__builtin_inff();
                from = rest;
            }
            words token = lane + (uint32_t)first;
            floats score = load_floats(from), noise = splat(0);
            if (allowed != ALL_ALLOWED) score = only_allowed(allowed, score);
            if (temperature) {
                noise = uniform(scramble(scramble(token * 0x9E3779B9u + key[0]) ^ key[1]));
                if (!any(score > (least - gumbel_bound(noise)) * divisor)) continue; /* most logarithms are never needed */
                noise = gumbel(noise);
            } else if (!any(score > least)) continue;
            score = score / divisor + noise;
            ints better = score > best;
            best = choose(better, score, best);
            best_token = (better & (ints)token) | (~better & best_token);
            float peak = largest_of(best);
            least = peak - SLACK * (__builtin_fabsf(peak) + 32);
        }
        float peak = largest_of(best);
        int64_t found = size - 1;
        for (int i = 0; i < LANES; i++)
            if (best[i] == peak && best_token[i] < found) found = best_token[i];
        step->tokens[row] = found;
    }
}

/* Draw one token a row, the first of those with equal scores. scores: `[num_rows, size]`. temperature: `[num_rows]`, the
 * divisor of the scores; 0 means no noise. keys: `[num_rows, 2]`. bits, num_bytes, of_rows: as in `masking`; bits may be
 * NULL. tokens: `[num_rows]`, filled here. */
void draw(const float *scores, int64_t num_rows, int64_t size, const float *temperature, const uint32_t *keys, const uint8_t *bits,
          int64_t num_bytes, const int64_t *of_rows, int64_t *tokens, int64_t num_threads) {
    drawing step = {scores, size, temperature, keys, {bits, num_bytes, of_rows}, tokens};
    run_rows(draw_rows, &step, num_rows, num_threads);
}

typedef struct { float *scores; int64_t size, stride; masking masks; } exclusion;

static void exclude_rows(const void *argument, int64_t begin, int64_t end) {
    const exclusion *step = argument;
    int64_t size = step->size, whole = size / LANES * LANES;
    for (int64_t row = begin; row < end; row++) {
        float *row_values = step->scores + row * step->stride;
        const uint8_t *mask = mask_of(&step->masks, row);
        for (int64_t first = 0; mask && first < whole; first += LANES) {
            uint32_t allowed = allowed_at(mask, first);
            if (allowed != ALL_ALLOWED) store_floats(row_values + first, only_allowed(allowed, load_floats(row_values + first)));
        }
        for (int64_t token = whole; mask && token < size; token++)
            if (!(mask[token >> 3] >> (token & 7) & 1)) row_values[token] = -__builtin_inff();
    }
}

/* Set the scores `[num_rows, size]` of tokens that are not allowed to -inf. stride: from row to row. The other arguments are
 * those of `draw`. */
void exclude(float *scores, int64_t num_rows, int64_t size, int64_t stride, const uint8_t *bits, int64_t num_bytes,
             const int64_t *of_rows, int64_t num_threads) {
    run_rows(exclude_rows, &(exclusion){scores, size, stride, {bits, num_bytes, of_rows}}, num_rows, num_threads);
}

typedef struct { const float *logits; int64_t size; const int64_t *tokens; float *found; } scoring;

static void score_rows(const void *argument, int64_t begin, int64_t end) {
    const scoring *step = argument;
    for (int64_t row = begin; row < end; row++) {
        const float *row_values = step->logits + row * step->size;
        int64_t size = step->size, whole = size / LANES * LANES;
        floats most = splat(-__builtin_inff()), total = splat(0);
        for (int64_t i = 0; i < whole; i += LANES) most = larger(load_floats(row_values + i), most);
        float peak = largest_of(most), rest = 0;
        for (int64_t i = whole; i < size; i++) peak = row_values[i] > peak ? row_values[i] : peak;
        for (int64_t i = 0; i < whole; i += LANES) total += exp_of(load_floats(row_values + i) - peak);
        for (int64_t i = whole; i < size; i++) rest += exp_of(splat(row_values[i] - peak))[0];
        step->found[row] = row_values[step->tokens[row]] - peak - log_of(splat(sum_of(total) + rest))[0];
    }
}

/* Natural log-probabilities of one token a row. logits: `[num_rows, size]`. found: `[num_rows]`, filled here. */
void logprobs(const float *logits, int64_t num_rows, int64_t size, const int64_t *tokens, float *found, int64_t num_threads) {
    run_rows(score_rows, &(scoring){logits, size, tokens, found}, num_rows, num_threads);
}
