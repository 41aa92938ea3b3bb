/* The conversions before and after an int8 matrix product in which every row has a scale of its own. */
#include "thread_pool.h"
#include "vector.h"

typedef int8_t bytes __attribute__((vector_size(LANES)));

static inline bytes low_bytes(ints v) {
#ifdef __AVX512F__ /* compilers do not generate this instruction by themselves */
    return (bytes)_mm512_cvtepi32_epi8((__m512i)v);
#else
    return __builtin_convertvector(v, bytes);
#endif
}

typedef struct { const element *x; int8_t *out; float *scales; int64_t size; } quantisation;

static void quantise_rows(const void *argument, int64_t first, int64_t end) {
    const quantisation *step = argument;
    const element *x = step->x;
    int64_t size = step->size;
    for (int64_t row = first; row < end; row++) {
        floats most = splat(0);
        for (int64_t i = 0; i < size; i += LANES) {
            floats v = load(x + row * size + i);
            most = larger(most, larger(v, -v));
        }
        float largest = largest_of(most);
        /* a row too small for a factor becomes 0 */
        float factor = largest > 1e-30f ? 127.0f / largest : 0.0f;
        step->scales[row] = largest / 127.0f;
        for (int64_t i = 0; i < size; i += LANES) {
            ints rounded = (ints)(load(x + row * size + i) * factor + 12582912.0f);
            bytes narrow = low_bytes(rounded);
            memcpy(step->out + row * size + i, &narrow, sizeof narrow);
        }
    }
}

/* Quantise x `[num_rows, size]` to the nearest integers from -127 to 127. A row of out times its scale approximates x. */
void quantise(const element *x, int8_t *out, float *scales, int64_t num_rows, int64_t size, int64_t num_threads) {
    run_rows(quantise_rows, &(quantisation){x, out, scales, size}, num_rows, num_threads);
}

typedef struct { element *x; const float *scales; const element *bias; int64_t size; } rescaling;

static void rescale_rows(const void *argument, int64_t first, int64_t end) {
    const rescaling *step = argument;
    for (int64_t row = first; row < end; row++)
        for (int64_t i = 0; i < step->size; i += LANES) {
            element *x = step->x + row * step->size + i;
            floats v = load(x) * step->scales[row];
            store(x, step->bias ? v + load(step->bias + i) : v);
        }
}

/* Compute x = x * the row's scale + bias, if there is a bias. x: `[num_rows, size]`. */
void rescale(element *x, const float *scales, const element *bias, int64_t num_rows, int64_t size, int64_t num_threads) {
    run_rows(rescale_rows, &(rescaling){x, scales, bias, size}, num_rows, num_threads);
}
