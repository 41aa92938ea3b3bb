/* Loops that are divided among threads of our own. Nothing outside this library uses these threads. */
#include <stdint.h>

#define INSIDE __attribute__((visibility("hidden")))

/* A loop's body: it computes the numbers [first, end). Which numbers come together must not change what is computed. */
typedef void loop_body(const void *argument, int64_t first, int64_t end);

/* Call the body for all numbers [0, count), `grain` of them at a time, on up to num_threads threads including the
 * caller's, and return when all are computed. The caller computes them alone where the pool serves another caller, or
 * cannot start a thread. */
INSIDE void run(loop_body *body, const void *argument, int64_t count, int64_t grain, int64_t num_threads);

/* The same for rows that take about equally long. */
static inline void run_rows(loop_body *body, const void *argument, int64_t num_rows, int64_t num_threads) {
    run(body, argument, num_rows, num_threads > 1 ? num_rows / (4 * num_threads) + 1 : num_rows, num_threads);
}
