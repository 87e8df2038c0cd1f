/* Threads that share the parts of a task.

   Whoever is free takes the next part, the calling thread among them, and it waits for parts that were begun only: on
   cores that other programs use, too, a thread that does not get its turn costs nothing, where OpenMP's, which all have
   to arrive, make a step several times as long. */

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>

#define IDLE_ROUNDS 2000   /* of looking for work before a thread sleeps, some tens of microseconds */
#define PATIENT_ROUNDS 200 /* of waiting for the last parts before others get the core */

typedef void task_function(const void *given, int64_t begin, int64_t end);

static struct {
    atomic_flag has_caller;
    atomic_int wanted, asleep; /* helpers */
    int helpers;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    task_function *task;
    const void *given;
    int64_t grain, length;
    _Atomic uint64_t parts; /* their number, and above 32 bits how many were taken */
    atomic_int done;
} team = {.has_caller = ATOMIC_FLAG_INIT, .mutex = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static _Thread_local int has_team; /* how often this thread has entered */

static inline void pause_briefly(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Compute parts until none is left. */
static void take_parts(void) {
    for (;;) {
        uint64_t parts = atomic_load_explicit(&team.parts, memory_order_relaxed);
        if (parts >> 32 >= (uint32_t)parts)
            return;
        parts = atomic_fetch_add_explicit(&team.parts, (uint64_t)1 << 32, memory_order_acquire);
        if (parts >> 32 >= (uint32_t)parts)
            return;
        /* The task stays what it is until this part is done. */
        int64_t begin = (int64_t)(parts >> 32) * team.grain, end = begin + team.grain;
        team.task(team.given, begin, end < team.length ? end : team.length);
        atomic_fetch_add_explicit(&team.done, 1, memory_order_release);
    }
}

static void *help(void *number) {
    for (;;) {
        for (int round = 0; round < IDLE_ROUNDS; round++) {
            if (atomic_load(&team.wanted) > (intptr_t)number) {
                take_parts();
                round = 0;
            }
            pause_briefly();
        }
        pthread_mutex_lock(&team.mutex);
        atomic_fetch_add(&team.asleep, 1);
        while (atomic_load(&team.wanted) <= (intptr_t)number)
            pthread_cond_wait(&team.wake, &team.mutex);
        atomic_fetch_sub(&team.asleep, 1);
        pthread_mutex_unlock(&team.mutex);
    }
    return NULL;
}

static void add_helpers(int wanted) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are for threads that know them */
    for (pthread_t thread; team.helpers < wanted; team.helpers++) {
        if (pthread_create(&thread, NULL, help, (void *)(intptr_t)team.helpers))
            break;
        pthread_detach(thread);
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Have so many threads, this one among them, ready until `leave`; 0: another thread has them. */
static int enter(int threads) {
    if (!has_team) {
        if (atomic_flag_test_and_set(&team.has_caller))
            return 0;
        add_helpers(threads - 1);
        atomic_store(&team.wanted, threads - 1);
        if (atomic_load(&team.asleep)) {
            pthread_mutex_lock(&team.mutex);
            pthread_cond_broadcast(&team.wake);
            pthread_mutex_unlock(&team.mutex);
        }
    }
    has_team++;
    return 1;
}

static void leave(void) {
    if (--has_team == 0) {
        atomic_store(&team.wanted, 0);
        atomic_flag_clear(&team.has_caller);
    }
}

/* Call a task with 0 to `length`, by up to so many threads, which each take `grain` of it at a time. */
static void share(int threads, task_function *task, const void *given, int64_t length, int64_t grain) {
    if (threads < 2 || length <= grain || !enter(threads)) {
        task(given, 0, length);
        return;
    }
    int count = (int)((length + grain - 1) / grain);
    team.task = task;
    team.given = given;
    team.grain = grain;
    team.length = length;
    atomic_store_explicit(&team.done, 0, memory_order_relaxed);
    atomic_store_explicit(&team.parts, (uint64_t)count, memory_order_release);
    take_parts();
    for (int round = 0; atomic_load_explicit(&team.done, memory_order_acquire) < count; round++)
        if (round < PATIENT_ROUNDS)
            pause_briefly();
        else
            sched_yield();
    leave();
}
