/* The plan of a decode: which sequences read which pages together. */
#include "attention.h"
#include <stdlib.h>

typedef struct {
    const int64_t *contexts, *table;
    int64_t stride, page_size, most_rows;
    int32_t *order;
    item *items;
    int64_t count;
} planner;

static int64_t num_pages(const planner *p, int64_t place) {
    return (p->contexts[p->order[place]] + p->page_size - 1) / p->page_size;
}

static int64_t page_of(const planner *p, int64_t place, int64_t page) { return p->table[p->order[place] * p->stride + page]; }

static void emit(planner *p, int64_t depth, int64_t first, int64_t end, int64_t page, int64_t last) {
    for (int64_t from = first; from < end && page < last; from += p->most_rows) {
        int64_t to = from + p->most_rows < end ? from + p->most_rows : end;
        p->items[p->count++] = (item){depth, from, to, page, last};
    }
}

static int by_value(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Sort rows by their page at this index. Rows without such a page come first. */
static void sort(planner *p, int64_t first, int64_t end, int64_t page) {
    int64_t *keys = malloc((end - first) * sizeof *keys);
    if (!keys && end > first) abort();
    for (int64_t i = first; i < end; i++) {
        int64_t id = page < num_pages(p, i) ? page_of(p, i, page) + 1 : 0;
        keys[i - first] = id << 32 | p->order[i];
    }
    qsort(keys, end - first, sizeof *keys, by_value);
    for (int64_t i = first; i < end; i++) p->order[i] = (int32_t)(keys[i - first] & 0xffffffff);
    free(keys);
}

static void divide(planner *p, int64_t depth, int64_t first, int64_t end, int64_t page) {
    int64_t last = num_pages(p, first);
    for (int64_t i = first + 1; i < end; i++) {
        int64_t common = page;
        int64_t most = num_pages(p, i) < last ? num_pages(p, i) : last;
        while (common < most && page_of(p, i, common) == page_of(p, first, common)) common++;
        last = common;
    }
    emit(p, depth, first, end, page, last);
    if (end - first == 1) return;
    depth += last > page;
    sort(p, first, end, last);
    for (int64_t from = first, to; from < end; from = to) {
        to = from + 1;
        if (last >= num_pages(p, from)) continue;
        while (to < end && page_of(p, to, last) == page_of(p, from, last)) to++;
        divide(p, depth, from, to, last);
    }
}

static int by_depth(const void *a, const void *b) {
    const item *x = a, *y = b;
    return x->depth != y->depth ? x->depth - y->depth : x->first - y->first;
}

/* Plan a decode, and return the number of items. Items are sorted by depth; two of the same depth have no row in common.
 * contexts: [num_rows]. table: [num_rows, stride]. order: [num_rows], filled here. items: filled here, with room for
 * num_rows * (num_rows / (MOST_QUERIES / num_groups) + 3), because every row may be in as many items as there are rows. */
int64_t plan_decode(int64_t num_rows, const int64_t *contexts, const int64_t *table, int64_t stride, int64_t page_size,
             int64_t num_groups, int32_t *order, item *items) {
    int64_t most = MOST_QUERIES / num_groups;
    planner p = {contexts, table, stride, page_size, most ? most : 1, order, items, 0};
    for (int64_t i = 0; i < num_rows; i++) order[i] = (int32_t)i;
    sort(&p, 0, num_rows, 0);
    for (int64_t from = 0, to; from < num_rows; from = to) {
        for (to = from + 1; to < num_rows && page_of(&p, to, 0) == page_of(&p, from, 0);) to++;
        divide(&p, 0, from, to, 0);
    }
    qsort(items, p.count, sizeof *items, by_depth);
    return p.count;
}
