/* Vectors as wide as the registers of the processor. Wider ones would take minutes to compile and run from memory. They
 * are the compiler's own vector types, so this is C for any processor. */
#include <stdint.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#define LANES 16
#define EACH(m, s) EACH8(m, s), m(8, s), m(9, s), m(10, s), m(11, s), m(12, s), m(13, s), m(14, s), m(15, s)
#elif defined(__AVX2__)
#define LANES 8
#define EACH EACH8
#else
#define LANES 4
#define EACH EACH4
#endif

/* m(lane, s) for every lane, separated by commas. */
#define EACH4(m, s) m(0, s), m(1, s), m(2, s), m(3, s)
#define EACH8(m, s) EACH4(m, s), m(4, s), m(5, s), m(6, s), m(7, s)
#define ITSELF(lane, s) lane
#define LANE_NUMBERS {EACH(ITSELF, 0)}

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));

/* The element type of the model's tensors. */
#if BFLOAT16
typedef uint16_t element;
#else
typedef float element;
#endif

static inline floats splat(float x) { return x - (floats){0}; }

static inline floats load_floats(const float *p) {
    floats v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void store_floats(float *p, floats v) { memcpy(p, &v, sizeof v); }

static inline floats load(const element *p) {
#if BFLOAT16
    halves v;
    memcpy(&v, p, sizeof v);
    return (floats)(__builtin_convertvector(v, words) << 16);
#else
    return load_floats(p);
#endif
}

/* Round to the nearest, ties to even. */
static inline void store(element *p, floats v) {
#if BFLOAT16 && defined(__AVX512BF16__)
    __m256bh narrow = _mm512_cvtneps_pbh((__m512)v);
    memcpy(p, &narrow, sizeof narrow);
#elif BFLOAT16
    words bits = (words)v;
    halves narrow = __builtin_convertvector((bits + 0x7fff + ((bits >> 16) & 1)) >> 16, halves);
    memcpy(p, &narrow, sizeof narrow);
#else
    store_floats(p, v);
#endif
}

/* Round a product here. The compiler would round it together with a sum that follows, or not, depending on the code
 * around it, and then the same token would get other bits in another chunk. */
#if defined(__x86_64__)
#define ROUND(v) __asm__("" : "+x"(v))
#elif defined(__aarch64__)
#define ROUND(v) __asm__("" : "+w"(v))
#else
#define ROUND(v)
#endif

static inline floats choose(ints mask, floats yes, floats no) { return (floats)((mask & (ints)yes) | (~mask & (ints)no)); }

static inline floats larger(floats a, floats b) {
#ifdef __AVX512F__ /* compilers do not generate this instruction by themselves */
    return (floats)_mm512_max_ps((__m512)a, (__m512)b);
#else
    return choose(a > b, a, b);
#endif
}

#define ACROSS(lane, s) (lane ^ s)
#define PLUS(a, b) ((a) + (b))
#define HALVE(v, op, s) v = op(v, __builtin_shufflevector(v, v, EACH(ACROSS, s)))
#if LANES == 16
#define FOLD(v, op) HALVE(v, op, 8); HALVE(v, op, 4); HALVE(v, op, 2); HALVE(v, op, 1)
#elif LANES == 8
#define FOLD(v, op) HALVE(v, op, 4); HALVE(v, op, 2); HALVE(v, op, 1)
#else
#define FOLD(v, op) HALVE(v, op, 2); HALVE(v, op, 1)
#endif

static inline float sum_of(floats v) {
    FOLD(v, PLUS);
    return v[0];
}

static inline float largest_of(floats v) {
    FOLD(v, larger);
    return v[0];
}

/* e^x for x <= 88 by Cephes' polynomial, to one or two units in the last place. Below -87 it is e^-87, 1.6e-38. */
static inline floats exp_of(floats x) {
    x = larger(x, splat(-87.0f));
    floats n = x * 1.44269504f + 12582912.0f; /* rounds */
    ints power = (ints)n << 23;
    n -= 12582912.0f;
    floats r = x - n * 0.693359375f + n * 2.12194440e-4f;
    floats y = r * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    return (floats)((ints)y + power);
}

/* The natural logarithm of a positive, normal x, by Cephes' polynomial. */
static inline floats log_of(floats x) {
    ints bits = (ints)x;
    ints power = (bits >> 23) - 126;
    floats m = (floats)((bits & 0x007fffff) | 0x3f000000); /* 0.5 to 1 */
    ints low = m < 0.707106781f;
    floats e = __builtin_convertvector(power + low, floats); /* true is -1 */
    m = m + choose(low, m, splat(0)) - 1.0f;
    floats z = m * m;
    floats y = m * 7.0376836292e-2f - 1.1514610310e-1f;
    y = y * m + 1.1676998740e-1f;
    y = y * m - 1.2420140846e-1f;
    y = y * m + 1.4249322787e-1f;
    y = y * m - 1.6668057665e-1f;
    y = y * m + 2.0000714765e-1f;
    y = y * m - 2.4999993993e-1f;
    y = y * m + 3.3333331174e-1f;
    y = y * m * z - e * 2.12194440e-4f - 0.5f * z;
    return m + y + e * 0.693359375f;
}
