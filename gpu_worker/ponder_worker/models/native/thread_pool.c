/* A pool of threads for loops that take microseconds.
 *
 * Waking a thread that sleeps takes longer than such a loop, so a worker looks for the next loop for a while: first
 * with `pause`, which is the fastest, then with `sched_yield`, so that other engines get the core, and then it sleeps.
 * A loop never waits for a worker that has not begun: the caller takes numbers too, and once there are none left no
 * worker can join. So a worker whose core is busy elsewhere costs nothing. */
#define _GNU_SOURCE
#include "thread_pool.h"
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#define MOST_WORKERS 255
#define PAUSING_NS 20000
#define YIELDING_NS 200000

/* The state in one word, so that a worker joins exactly the loop that it saw: its number, whether it is open, and the
 * number of workers inside. The other fields of a loop change only while it is closed and nobody is inside. */
#define OPEN (1u << 8)
#define NUMBER (1u << 9)
#define INSIDE_OF(state) ((state) & 0xff)

static struct {
    _Alignas(64) _Atomic uint32_t state;
    _Alignas(64) _Atomic int64_t next;
    _Alignas(64) loop_body *body;
    const void *argument;
    int64_t count, grain;
    _Atomic int64_t wanted; /* workers */
    _Alignas(64) _Atomic int taken; /* whether a caller has the pool */
    int64_t num_workers;
    _Atomic int sleepers;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
} pool = {.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static inline void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void wake_sleepers(void) {
    if (!atomic_load(&pool.sleepers)) return;
    pthread_mutex_lock(&pool.mutex);
    pthread_cond_broadcast(&pool.changed);
    pthread_mutex_unlock(&pool.mutex);
}

static void sleep_while(uint32_t seen) {
    pthread_mutex_lock(&pool.mutex);
    atomic_fetch_add(&pool.sleepers, 1); /* before the state is read; the thread that changes it reads them in the other order */
    while (atomic_load(&pool.state) == seen) pthread_cond_wait(&pool.changed, &pool.mutex);
    atomic_fetch_sub(&pool.sleepers, 1);
    pthread_mutex_unlock(&pool.mutex);
}

/* Wait until the state is no longer the one that was seen, having waited since `began`. */
static void wait_while(uint32_t seen, int64_t began) {
    while (atomic_load_explicit(&pool.state, memory_order_acquire) == seen) {
        int64_t waited = now_ns() - began;
        if (waited < PAUSING_NS) pause_briefly();
        else if (waited < YIELDING_NS) sched_yield();
        else sleep_while(seen);
    }
}

static void take_numbers(void) {
    for (int64_t first; (first = atomic_fetch_add(&pool.next, pool.grain)) < pool.count;)
        pool.body(pool.argument, first, first + pool.grain < pool.count ? first + pool.grain : pool.count);
}

static void *work(void *place) {
    uint32_t computed = 0, missed = 0; /* numbers of the latest loops */
    int64_t began = now_ns();
    for (;;) {
        uint32_t seen = atomic_load(&pool.state), number = seen / NUMBER;
        int is_wanted = (intptr_t)place < atomic_load(&pool.wanted);
        if (number == computed || !(seen & OPEN) || !is_wanted) {
            if (number != missed && is_wanted) began = now_ns(); /* loops are coming */
            missed = number;
            wait_while(seen, began);
        } else if (atomic_compare_exchange_strong(&pool.state, &seen, seen + 1)) {
            take_numbers();
            seen = atomic_fetch_sub(&pool.state, 1) - 1;
            if (!(seen & OPEN) && !INSIDE_OF(seen)) wake_sleepers(); /* the caller may be among them */
            computed = missed = number;
            began = now_ns();
        }
    }
}

/* A child has none of its parent's threads. */
static void start_anew(void) {
    atomic_store(&pool.state, 0);
    atomic_store(&pool.taken, 0);
    atomic_store(&pool.sleepers, 0);
    pool.num_workers = 0;
    pthread_mutex_init(&pool.mutex, 0);
    pthread_cond_init(&pool.changed, 0);
}

__attribute__((constructor)) static void follow_forks(void) { pthread_atfork(0, 0, start_anew); }

/* Start the workers that are missing. Signals are for the threads of the program. */
static void start_workers(int64_t wanted) {
    sigset_t all, before;
    pthread_attr_t attributes;
    pthread_t thread;
    if (pool.num_workers >= wanted || pthread_attr_init(&attributes)) return;
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (pool.num_workers < wanted && !pthread_create(&thread, &attributes, work, (void *)(intptr_t)pool.num_workers)) pool.num_workers++;
    pthread_sigmask(SIG_SETMASK, &before, 0);
    pthread_attr_destroy(&attributes);
}

void run(loop_body *body, const void *argument, int64_t count, int64_t grain, int64_t num_threads) {
    if (num_threads < 2 || count <= grain || atomic_exchange(&pool.taken, 1)) {
        if (count > 0) body(argument, 0, count);
        return;
    }
    int64_t wanted = (count + grain - 1) / grain < num_threads ? (count + grain - 1) / grain - 1 : num_threads - 1;
    wanted = wanted < MOST_WORKERS ? wanted : MOST_WORKERS;
    start_workers(wanted);
    pool.body = body;
    pool.argument = argument;
    pool.count = count;
    pool.grain = grain;
    atomic_store(&pool.wanted, wanted);
    atomic_store(&pool.next, 0);
    atomic_fetch_add(&pool.state, NUMBER | OPEN); /* it was closed */
    wake_sleepers();
    take_numbers();
    uint32_t seen = atomic_fetch_sub(&pool.state, OPEN) - OPEN;
    for (int64_t began = now_ns(); INSIDE_OF(seen); seen = atomic_load(&pool.state)) wait_while(seen, began);
    atomic_store(&pool.taken, 0);
}
