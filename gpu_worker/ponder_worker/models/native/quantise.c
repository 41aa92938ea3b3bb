/* The conversions before and after an int8 matrix product in which every row has a scale of its own. */
#include "vector.h"

typedef int8_t bytes __attribute__((vector_size(LANES)));

static inline bytes low_bytes(ints v) {
#ifdef __AVX512F__ /* compilers do not generate this instruction by themselves */
    return (bytes)_mm512_cvtepi32_epi8((__m512i)v);
#else
    return __builtin_convertvector(v, bytes);
#endif
}

/* Quantise x `[num_rows, size]` to the nearest integers from -127 to 127. A row of out times its scale approximates x. */
void quantise(const element *x, int8_t *out, float *scales, int64_t num_rows, int64_t size, int64_t num_threads) {
#pragma omp parallel for num_threads((int)num_threads)
    for (int64_t row = 0; row < num_rows; row++) {
        floats most = splat(0);
        for (int64_t i = 0; i < size; i += LANES) {
            floats v = load(x + row * size + i);
            most = larger(most, larger(v, -v));
        }
        float largest = largest_of(most);
        /* a row too small for a factor becomes 0 */
        float factor = largest > 1e-30f ? 127.0f / largest : 0.0f;
        scales[row] = largest / 127.0f;
        for (int64_t i = 0; i < size; i += LANES) {
            ints rounded = (ints)(load(x + row * size + i) * factor + 12582912.0f);
            bytes narrow = low_bytes(rounded);
            memcpy(out + row * size + i, &narrow, sizeof narrow);
        }
    }
}

/* Compute x = x * the row's scale + bias, if there is a bias. x: `[num_rows, size]`. */
void rescale(element *x, const float *scales, const element *bias, int64_t num_rows, int64_t size, int64_t num_threads) {
#pragma omp parallel for num_threads((int)num_threads)
    for (int64_t row = 0; row < num_rows; row++)
        for (int64_t i = 0; i < size; i += LANES) {
            floats v = load(x + row * size + i) * scales[row];
            store(x + row * size + i, bias ? v + load(bias + i) : v);
        }
}
