/* AMX: tiles of 16 rows of 64 bytes, and products of bfloat16 pairs summed in float32. */
#include "vector.h"

#if BFLOAT16 && defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__linux__)
#define TILES 1

typedef struct { uint8_t palette, start_row, reserved[14]; uint16_t row_bytes[16]; uint8_t rows[16]; } tiles;

/* Configure all tiles at full size, and return the former configuration. It must be restored, because other code relies
 * on it. */
static inline tiles begin_tiles(void) {
    tiles own = {.palette = 1}, before;
    for (int i = 0; i < 8; i++) {
        own.row_bytes[i] = 64;
        own.rows[i] = 16;
    }
    __asm__ volatile("sttilecfg %0" : "=m"(before));
    __asm__ volatile("ldtilecfg %0" : : "m"(own));
    return before;
}

static inline void end_tiles(tiles before) {
    if (before.palette) __asm__ volatile("ldtilecfg %0" : : "m"(before));
    else _tile_release();
}

/* A barrier for the compiler, which does not know that tiles are loaded from memory. */
#define SETTLE() __asm__ volatile("" : : : "memory")
#endif
