/* What lies between a model's large products, in bfloat16; kernels.py says what each function takes.

   All numbers are computed in float32 and rounded once. Sizes are counted in numbers, not in bytes. */

#include "team.h"

#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif
#if defined(__AMX_BF16__) && defined(__AVX512BF16__)
#define HAS_TILES /* the processor multiplies matrices */
#include <sys/syscall.h>
#include <unistd.h>
#endif

typedef uint16_t bf16;

#define CHUNK 256        /* tokens whose scores are held at a time */
#define WORTH_SHARING (1 << 14) /* numbers that a thread takes at a time; fewer are not worth waking another */

static inline float widened(bf16 x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline bf16 narrowed(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return (bits & 0x7fffffff) > 0x7f800000 ? (bf16)(bits >> 16 | 0x40) : (bf16)rounded; /* NaN stays NaN */
}

/* e^x as 2^n e^r with |r| <= ln 2 / 2 and six terms of the series of e^r; 2^-126 times e^r below it. */
static inline float exponential(float x) {
    float n = floorf(x * 1.44269504f + 0.5f);
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f; /* ln 2 in two parts */
    float series = 1 + r * (1 + r * (1.0f / 2 + r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720))))));
    int32_t exponent = (int32_t)n;
    exponent = exponent < -126 ? -126 : exponent;
    exponent = exponent > 127 ? 127 : exponent;
    uint32_t power = (uint32_t)(exponent + 127) << 23;
    float scale;
    memcpy(&scale, &power, sizeof scale);
    return series * scale;
}

/* Keep threads ready for what is called next, until `disperse`; 0: they are another's. */
int gather(int threads) {
    return threads > 1 && enter(threads);
}

void disperse(void) {
    leave();
}

/* How many tokens of so many numbers a thread takes at a time. */
static inline int64_t tokens_of(int64_t numbers) {
    return numbers < WORTH_SHARING ? WORTH_SHARING / numbers : 1;
}

struct norm {
    const bf16 *in, *weight;
    bf16 *out;
    int64_t in_stride, out_stride, heads, size;
    float eps;
};

static void normalize_tokens(const void *given, int64_t begin, int64_t end) {
    const struct norm *n = given;
    for (int64_t token = begin; token < end; token++)
        for (int64_t head = 0; head < n->heads; head++) {
            const bf16 *x = n->in + token * n->in_stride + head * n->size;
            bf16 *y = n->out + token * n->out_stride + head * n->size;
            float sum = 0;
            for (int64_t i = 0; i < n->size; i++)
                sum += widened(x[i]) * widened(x[i]);
            float scale = 1 / sqrtf(sum / n->size + n->eps);
            for (int64_t i = 0; i < n->size; i++)
                y[i] = narrowed(widened(x[i]) * scale * widened(n->weight[i]));
        }
}

/* RMS norm of `heads` vectors of `size` numbers in each token; a token's begin `in_stride` after the last one's. */
void normalize(const bf16 *in, int64_t in_stride, const bf16 *weight, float eps, int64_t tokens, int64_t heads,
               int64_t size, bf16 *out, int64_t out_stride, int threads) {
    struct norm norm = {in, weight, out, in_stride, out_stride, heads, size, eps};
    share(threads, normalize_tokens, &norm, tokens, tokens_of(heads * size));
}

struct turning {
    bf16 *states;
    const bf16 *cos, *sin;
    int64_t stride, heads, size;
};

static void rotate_tokens(const void *given, int64_t begin, int64_t end) {
    const struct turning *g = given;
    int64_t half = g->size / 2;
    for (int64_t token = begin; token < end; token++)
        for (int64_t head = 0; head < g->heads; head++) {
            bf16 *x = g->states + token * g->stride + head * g->size, *y = x + half;
            const bf16 *c = g->cos + token * g->size, *s = g->sin + token * g->size;
            for (int64_t i = 0; i < half; i++) {
                float a = widened(x[i]), b = widened(y[i]);
                x[i] = narrowed(a * widened(c[i]) + b * widened(s[i]));
                y[i] = narrowed(b * widened(c[i + half]) + a * widened(s[i + half]));
            }
        }
}

/* Turn the first `heads` vectors of each token, in place: `cos` and `sin` are [tokens, size], the first half of `sin`
   with its sign changed. */
void rotate(bf16 *states, int64_t stride, const bf16 *cos, const bf16 *sin, int64_t tokens, int64_t heads, int64_t size,
            int threads) {
    struct turning turning = {states, cos, sin, stride, heads, size};
    share(threads, rotate_tokens, &turning, tokens, tokens_of(heads * size));
}

static void gate_token(const bf16 *restrict gate, const bf16 *restrict up, int64_t size, bf16 *restrict out) {
    for (int64_t i = 0; i < size; i++) {
        float g = widened(gate[i]);
        out[i] = narrowed(g / (1 + exponential(-g)) * widened(up[i]));
    }
}

struct gates {
    const bf16 *in;
    bf16 *out;
    int64_t size;
};

static void gate_tokens(const void *given, int64_t begin, int64_t end) {
    const struct gates *g = given;
    for (int64_t token = begin; token < end; token++) {
        const bf16 *gate = g->in + token * 2 * g->size;
        gate_token(gate, gate + g->size, g->size, g->out + token * g->size);
    }
}

/* silu(gate) * up, where a token's `size` gates are followed by as many ups. */
void gated(const bf16 *in, int64_t tokens, int64_t size, bf16 *out, int threads) {
    struct gates gates = {in, out, size};
    share(threads, gate_tokens, &gates, tokens, tokens_of(size));
}

/* How a token is drawn: `top_k` counts first (0: all), `top_p` is a share of what it leaves, `min_p` is relative to the
   likeliest token; `uniform` is a random number from 0 to 1. */
struct draw {
    float temperature, top_p, min_p;
    int64_t top_k;
    double uniform;
};

#define RUN 128 /* tokens that are added up at a time */

/* The least of the numbers from 0 to 1 that are kept so that they weigh `enough`, the largest first; each weighs what it
   is, or 1. Ten bits of it are found at a time, by the weight of all numbers that begin so. */
static float least_kept(const float *numbers, int64_t count, double enough, int weigh_one) {
    double weights[1024], above = 0;
    uint32_t found = 0, known = 0;
    for (int shift = 20; shift >= 0; shift -= 10) {
        memset(weights, 0, sizeof weights);
        for (int64_t i = 0; i < count; i++) {
            uint32_t bits;
            memcpy(&bits, numbers + i, sizeof bits);
            if ((bits & known) == found)
                weights[bits >> shift & 1023] += weigh_one ? 1 : numbers[i];
        }
        int next = 1023;
        while (next > 0 && above + weights[next] < enough)
            above += weights[next--];
        found |= (uint32_t)next << shift;
        known |= 1023u << shift;
    }
    float least;
    memcpy(&least, &found, sizeof least);
    return least < 1 ? least : 1;
}

static double kept_sum(const float *likely, int64_t count, float least) {
    float sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += likely[i] >= least ? likely[i] : 0;
    return sum;
}

/* A token by its scores, which become how likely each is beside the likeliest; -1: they are no probabilities. */
static int64_t draw_one(float *scores, int64_t size, const struct draw *draw) {
    float most = -INFINITY, factor = 1 / draw->temperature, least = draw->min_p, sum = 0;
    for (int64_t i = 0; i < size; i++)
        most = scores[i] > most ? scores[i] : most;
    for (int64_t i = 0; i < size; i++) {
        float x = (scores[i] - most) * factor;
        sum += scores[i] = x < -87 ? 0 : exponential(x);
    }
    if (isnan(sum))
        return -1;
    if (draw->top_k > 0 && draw->top_k < size) {
        float last = least_kept(scores, size, (double)draw->top_k, 1);
        int64_t more = draw->top_k; /* of the last ones, which are equally likely, the first */
        for (int64_t i = 0; i < size; i++)
            more -= scores[i] > last;
        for (int64_t i = 0; i < size; i++)
            if (scores[i] < last || (scores[i] == last && more-- <= 0))
                scores[i] = 0;
    }
    double sums[(size + RUN - 1) / RUN], total = 0;
    if (draw->top_p < 1) {
        for (int64_t i = 0; i < size; i += RUN)
            total += kept_sum(scores + i, size - i < RUN ? size - i : RUN, 0);
        float last = least_kept(scores, size, draw->top_p * total, 0);
        least = last > least ? last : least;
        total = 0;
    }
    for (int64_t i = 0; i < size; i += RUN)
        total += sums[i / RUN] = kept_sum(scores + i, size - i < RUN ? size - i : RUN, least);
    double left = draw->uniform * total;
    int64_t at = 0, token = -1;
    for (; at + RUN < size && left >= sums[at / RUN]; at += RUN)
        left -= sums[at / RUN];
    for (; at < size && (token < 0 || left >= 0); at++)
        if (scores[at] > 0 && scores[at] >= least) {
            left -= scores[at];
            token = at;
        }
    for (at = size - 1; token < 0; at--) /* rounding led beyond the last one */
        if (scores[at] > 0 && scores[at] >= least)
            token = at;
    return token;
}

struct draws {
    float *scores;
    const struct draw *draws;
    int64_t *tokens;
    int64_t size;
};

static void draw_rows(const void *given, int64_t begin, int64_t end) {
    const struct draws *d = given;
    for (int64_t row = begin; row < end; row++)
        d->tokens[row] = draw_one(d->scores + row * d->size, d->size, d->draws + row);
}

/* A token for each row of scores [rows, size], which are overwritten; -1: they are no probabilities. */
void draw(float *scores, int64_t rows, int64_t size, const struct draw *each, int64_t *tokens, int threads) {
    struct draws draws = {scores, each, tokens, size};
    share(threads, draw_rows, &draws, rows, 1);
}

/* A row of the cache: where its keys and values [layers, heads, length, size] are, and how many tokens it has. */
struct row {
    bf16 *keys, *values;
    int64_t length, filled;
};

/* One new token a row: keep its keys and values [rows, heads * size] of a layer. */
void keep(const bf16 *keys, const bf16 *values, int64_t stride, const struct row *to, int64_t rows, int64_t layer,
          int64_t heads, int64_t size) {
    for (int64_t row = 0; row < rows; row++)
        for (int64_t head = 0; head < heads; head++) {
            int64_t place = ((layer * heads + head) * to[row].length + to[row].filled) * size;
            memcpy(to[row].keys + place, keys + row * stride + head * size, size * sizeof *keys);
            memcpy(to[row].values + place, values + row * stride + head * size, size * sizeof *values);
        }
}

static inline __attribute__((always_inline)) float product(const bf16 *a, const bf16 *b, const int64_t size) {
#ifdef __AVX512BF16__
    if (size % 32 == 0) {
        __m512 sums = _mm512_setzero_ps();
        for (int64_t i = 0; i < size; i += 32)
            sums = _mm512_dpbf16_ps(sums, (__m512bh)_mm512_loadu_si512(a + i), (__m512bh)_mm512_loadu_si512(b + i));
        return _mm512_reduce_add_ps(sums);
    }
#endif
    float sum = 0;
    for (int64_t i = 0; i < size; i++)
        sum += widened(a[i]) * widened(b[i]);
    return sum;
}

/* Have numbers come that are wanted soon: keys and values are read by turns, too short to be seen coming. */
static inline void prefetch(const bf16 *numbers, int64_t count) {
    for (int64_t i = 0; i < count; i += 32)
        __builtin_prefetch(numbers + i);
}

/* Attention of `group` queries to the same keys and values; inlined for the usual sizes, whose loops then have a
   constant length. */
static inline __attribute__((always_inline)) void attend_one(const bf16 *query, const bf16 *keys, const bf16 *values,
                                                             int64_t count, int64_t group, const int64_t size,
                                                             float scaling, bf16 *out) {
    float sums[group * size], scores[group * CHUNK], highest[group], total[group];
    for (int64_t i = 0; i < group * size; i++)
        sums[i] = 0;
    for (int64_t g = 0; g < group; g++) {
        highest[g] = -INFINITY;
        total[g] = 0;
    }
    for (int64_t begin = 0; begin < count; begin += CHUNK) {
        int64_t length = count - begin < CHUNK ? count - begin : CHUNK;
        for (int64_t t = 0; t < length; t++) {
            prefetch(values + (begin + t) * size, size);
            for (int64_t g = 0; g < group; g++)
                scores[g * CHUNK + t] = scaling * product(query + g * size, keys + (begin + t) * size, size);
        }
        for (int64_t g = 0; g < group; g++) {
            float *score = scores + g * CHUNK, *sum = sums + g * size;
            float most = highest[g];
#pragma omp simd reduction(max : most)
            for (int64_t t = 0; t < length; t++)
                most = score[t] > most ? score[t] : most;
            float before = highest[g] == -INFINITY ? 0 : exponential(highest[g] - most);
            float all = 0;
            for (int64_t t = 0; t < length; t++)
                all += score[t] = exponential(score[t] - most);
            highest[g] = most;
            total[g] = total[g] * before + all;
            for (int64_t i = 0; i < size; i++)
                sum[i] *= before;
            int64_t t = 0;
            for (; t + 4 <= length; t += 4) {
                const bf16 *v = values + (begin + t) * size;
                if (g == 0)
                    prefetch(keys + (begin + CHUNK + t) * size, 4 * size);
                for (int64_t i = 0; i < size; i++)
                    sum[i] += score[t] * widened(v[i]) + score[t + 1] * widened(v[i + size]) +
                              score[t + 2] * widened(v[i + 2 * size]) + score[t + 3] * widened(v[i + 3 * size]);
            }
            for (; t < length; t++)
                for (int64_t i = 0; i < size; i++)
                    sum[i] += score[t] * widened(values[(begin + t) * size + i]);
        }
    }
    for (int64_t g = 0; g < group; g++)
        for (int64_t i = 0; i < size; i++)
            out[g * size + i] = narrowed(sums[g * size + i] / total[g]);
}

struct attending {
    const bf16 *queries;
    const struct row *to;
    bf16 *out;
    int64_t stride, layer, heads, kv_heads, size, window;
    float scaling;
};

/* Row by row, and in each the heads of keys and values. */
static void attend_heads(const void *given, int64_t begin, int64_t end) {
    const struct attending *g = given;
    int64_t size = g->size, group = g->heads / g->kv_heads;
    for (int64_t at = begin; at < end; at++) {
        int64_t head = at % g->kv_heads, row = at / g->kv_heads, first = 0, count = g->to[row].filled + 1;
        if (g->window > 0 && count > g->window) {
            first = count - g->window;
            count = g->window;
        }
        int64_t place = ((g->layer * g->kv_heads + head) * g->to[row].length + first) * size;
        const bf16 *query = g->queries + row * g->stride + head * group * size;
        const bf16 *keys = g->to[row].keys + place, *values = g->to[row].values + place;
        bf16 *mine = g->out + at * group * size;
        switch (size) {
        case 64:
            attend_one(query, keys, values, count, group, 64, g->scaling, mine);
            break;
        case 128:
            attend_one(query, keys, values, count, group, 128, g->scaling, mine);
            break;
        default:
            attend_one(query, keys, values, count, group, size, g->scaling, mine);
        }
    }
}

/* One token a row, [rows, heads * size] with a stride, attends to its row's tokens and itself, or to the last `window`
   of them (0: to all). `out` is [rows, heads * size]. */
void attend(const bf16 *queries, int64_t stride, const struct row *to, int64_t rows, int64_t layer, int64_t heads,
            int64_t kv_heads, int64_t size, int64_t window, float scaling, bf16 *out, int threads) {
    struct attending attending = {queries, to, out, stride, layer, heads, kv_heads, size, window, scaling};
    share(threads, attend_heads, &attending, rows * kv_heads, 1);
}

/* A linear layer's weights as oneDNN lays them out: blocks of BLOCK outputs, in each of which the weights of two inputs
   lie side by side, [padded inputs / 2, BLOCK, 2]; what is there beyond `outputs` and `inputs` is zero. No bias: NULL. */
struct weights {
    const bf16 *packed, *bias;
    int64_t inputs, padded, outputs;
};

/* A layer of a model like Llama; NULL: there is no such norm. */
struct layer {
    const bf16 *norm, *q_norm, *k_norm, *mlp_norm;
    struct weights qkv, out, gate_up, down;
    int64_t rotates, window;
};

struct model {
    const struct layer *layers;
    int64_t count, hidden_size, heads, kv_heads, size;
    float eps, scaling;
};

#define BLOCK 64

/* Up to how many tokens at a time `project` is quicker than oneDNN; 0: it is not there. */
int most_projected(void) {
#if defined(HAS_TILES)
    return 8;
#elif defined(__AVX512BF16__)
    return 128;
#else
    return 0;
#endif
}

#ifdef __AVX512BF16__
#define AT_A_TIME 6 /* tokens, whose sums fill 24 of 32 registers */
#define DEPTH 1024  /* inputs at a time, of which all tokens make their sums before the next: 128 KB of weights */

/* Have a cache line come to the second cache. To gcc its own way of saying so may change memory, sums included, which then
   do not stay in registers. */
static inline void send_for(const bf16 *line) {
    __asm__ volatile("prefetcht1 (%0)" : : "r"(line));
}

/* Add to a block of sums [tokens, BLOCK] what `inputs` of `tokens` tokens, `stride` apart, make with the weights. Of
   every four cache lines of weights from `ahead` on, `lines` are sent for meanwhile. */
static inline __attribute__((always_inline)) void project_block(const int tokens, const int lines, const bf16 *in,
                                                                int64_t stride, int64_t inputs, const bf16 *packed,
                                                                const bf16 *ahead, float (*out)[BLOCK]) {
    __m512 sums[tokens][4];
#pragma GCC unroll 8
    for (int t = 0; t < tokens; t++)
        for (int part = 0; part < 4; part++)
            sums[t][part] = _mm512_loadu_ps(out[t] + 16 * part);
    for (int64_t i = 0; i < inputs; i += 2) {
        __m512bh weights[4];
        for (int part = 0; part < 4; part++)
            weights[part] = (__m512bh)_mm512_loadu_si512(packed + i * BLOCK + 32 * part);
        if (lines > 0)
            send_for(ahead + i * BLOCK);
        if (lines > 1)
            send_for(ahead + i * BLOCK + 32);
#pragma GCC unroll 8
        for (int t = 0; t < tokens; t++) {
            int32_t two;
            memcpy(&two, in + t * stride + i, sizeof two);
            __m512bh all = (__m512bh)_mm512_set1_epi32(two);
            for (int part = 0; part < 4; part++)
                sums[t][part] = _mm512_dpbf16_ps(sums[t][part], weights[part], all);
        }
    }
#pragma GCC unroll 8
    for (int t = 0; t < tokens; t++)
        for (int part = 0; part < 4; part++)
            _mm512_storeu_ps(out[t] + 16 * part, sums[t][part]);
}

/* As many functions, so that each has its sums in registers. */
typedef void block_function(const bf16 *, int64_t, int64_t, const bf16 *, const bf16 *, float (*)[BLOCK]);
#define BLOCK_FUNCTION(tokens, lines)                                                                                  \
    static void project_##tokens##_##lines(const bf16 *in, int64_t stride, int64_t inputs, const bf16 *packed,         \
                                           const bf16 *ahead, float (*out)[BLOCK]) {                                   \
        project_block(tokens, lines, in, stride, inputs, packed, ahead, out);                                          \
    }
#define BLOCK_FUNCTIONS(tokens) BLOCK_FUNCTION(tokens, 0) BLOCK_FUNCTION(tokens, 1) BLOCK_FUNCTION(tokens, 2)
#define NAMES(tokens) {project_##tokens##_0, project_##tokens##_1, project_##tokens##_2}
BLOCK_FUNCTIONS(1)
BLOCK_FUNCTIONS(2)
BLOCK_FUNCTIONS(3)
BLOCK_FUNCTIONS(4)
BLOCK_FUNCTIONS(5)
BLOCK_FUNCTIONS(6)
static block_function *const block_functions[AT_A_TIME][3] = {NAMES(1), NAMES(2), NAMES(3),
                                                              NAMES(4), NAMES(5), NAMES(6)};

static inline __m512 widened_16(__mmask16 mask, const bf16 *from) {
    return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from)), 16);
}

struct products {
    const bf16 *in, *plus;
    const struct weights *weights;
    bf16 *out;
    int64_t tokens, blocks;
    int threads;
};

/* The sums [tokens, BLOCK] of one block. Groups of tokens read the same weights one after another; all of them find these
   in the cache, for those before have sent for them. */
static void sum_block(const struct products *p, int64_t block, float (*sums)[BLOCK]) {
    const struct weights *w = p->weights;
    const bf16 *packed = w->packed + block * w->padded * BLOCK;
    /* Other threads are likely to take the blocks between. */
    const bf16 *next = block + p->threads < p->blocks ? packed + p->threads * w->padded * BLOCK : packed;
    int64_t groups = (p->tokens + AT_A_TIME - 1) / AT_A_TIME;
    memset(sums, 0, p->tokens * sizeof *sums);
    for (int64_t from = 0; from < w->inputs; from += DEPTH) {
        int64_t inputs = w->inputs - from < DEPTH ? w->inputs - from : DEPTH;
        const bf16 *mine = packed + from * BLOCK, *ahead = from + DEPTH < w->inputs ? mine + DEPTH * BLOCK : next;
        for (int64_t group = 0; group < groups; group++) {
            int64_t first = p->tokens * group / groups, count = p->tokens * (group + 1) / groups - first;
            /* A single group reads them as fast as they come. */
            int64_t line = 4 * group / groups, lines = groups > 1 ? 4 * (group + 1) / groups - line : 0;
            block_functions[count - 1][lines](p->in + first * w->inputs + from, w->inputs, inputs, mine,
                                              ahead + 32 * line, sums + first);
        }
    }
}

static void project_blocks(const void *given, int64_t begin, int64_t end) {
    const struct products *p = given;
    const struct weights *w = p->weights;
    float sums[p->tokens][BLOCK];
    for (int64_t block = begin; block < end; block++) {
        sum_block(p, block, sums);
        for (int64_t at = block * BLOCK; at < w->outputs && at < (block + 1) * BLOCK; at += 16) {
            __mmask16 there = w->outputs - at < 16 ? (1u << (w->outputs - at)) - 1 : 0xffff;
            __m512 bias = w->bias ? widened_16(there, w->bias + at) : _mm512_setzero_ps();
            for (int64_t t = 0; t < p->tokens; t++) {
                int64_t place = t * w->outputs + at;
                __m512 sum = _mm512_add_ps(_mm512_loadu_ps(sums[t] + at % BLOCK), bias);
                if (p->plus)
                    sum = _mm512_add_ps(sum, widened_16(there, p->plus + place));
                _mm256_mask_storeu_epi16(p->out + place, there, (__m256i)_mm512_cvtneps_pbh(sum));
            }
        }
    }
}

/* out [tokens, outputs] = in [tokens, inputs] times the weights, and the bias, and `plus` [tokens, outputs] (NULL:
   without), which may be `out` itself. The sums of a token are the same whatever others there are. */
void project(const bf16 *in, int64_t tokens, const struct weights *weights, const bf16 *plus, bf16 *out, int threads) {
    int64_t blocks = (weights->outputs + BLOCK - 1) / BLOCK;
    struct products products = {in, plus, weights, out, tokens, blocks, threads};
    share(threads, project_blocks, &products, blocks, 1);
}

/* One new token in each of `rows` rows through all layers; `hidden` [rows, hidden_size] is what goes in and comes out.
   `room` is for [rows, hidden_size + 2 * (heads + kv_heads) * size + 3 * inner] numbers. */
void decode(const struct model *model, bf16 *hidden, const bf16 *cos, const bf16 *sin, const struct row *to,
            int64_t rows, bf16 *room, int threads) {
    int64_t hidden_size = model->hidden_size, heads = model->heads, kv_heads = model->kv_heads, size = model->size;
    int64_t stride = (heads + 2 * kv_heads) * size;
    bf16 *normed = room, *qkv = normed + rows * hidden_size, *attended = qkv + rows * stride;
    bf16 *both = attended + rows * heads * size, *keys = qkv + heads * size, *values = keys + kv_heads * size;
    int has_others = threads > 1 && enter(threads);
    for (int64_t n = 0; n < model->count; n++) {
        const struct layer *layer = model->layers + n;
        int64_t inner = layer->down.inputs;
        bf16 *inside = both + rows * 2 * inner;
        normalize(hidden, hidden_size, layer->norm, model->eps, rows, 1, hidden_size, normed, hidden_size, threads);
        project(normed, rows, &layer->qkv, NULL, qkv, threads);
        if (layer->q_norm)
            normalize(qkv, stride, layer->q_norm, model->eps, rows, heads, size, qkv, stride, threads);
        if (layer->k_norm)
            normalize(keys, stride, layer->k_norm, model->eps, rows, kv_heads, size, keys, stride, threads);
        if (layer->rotates)
            rotate(qkv, stride, cos, sin, rows, heads + kv_heads, size, threads);
        keep(keys, values, stride, to, rows, n, kv_heads, size);
        attend(qkv, stride, to, rows, n, heads, kv_heads, size, layer->window, model->scaling, attended, threads);
        project(attended, rows, &layer->out, hidden, hidden, threads);
        normalize(hidden, hidden_size, layer->mlp_norm, model->eps, rows, 1, hidden_size, normed, hidden_size, threads);
        project(normed, rows, &layer->gate_up, NULL, both, threads);
        gated(both, rows, inner, inside, threads);
        project(inside, rows, &layer->down, hidden, hidden, threads);
    }
    if (has_others)
        leave();
}
#endif

/* Attention of a piece of one row's prompt, with AVX-512's products of pairs or, where there are such, matrix units.

   Scores are computed transposed, a row a key and a column a query: each query has a place in a vector then, the highest
   score and the sum need no way across, and keys are read as they lie. What is multiplied with (`pairs`, `likely`) has
   the numbers of two rows side by side. */

#define QUERIES 32 /* at a time: two vectors, or two tiles */
#define KEYS 256   /* at a time */
#define LOWEST -1e30f

/* Whether attend_piece can be used. */
int can_attend_pieces(void) {
#if defined(HAS_TILES)
    return syscall(SYS_arch_prctl, 0x1023, 18) == 0; /* ARCH_REQ_XCOMP_PERM, XTILEDATA */
#elif defined(__AVX512BF16__)
    return 1;
#else
    return 0;
#endif
}

#ifdef HAS_TILES
struct tiles { /* Intel's manual: 8 tiles of 16 rows of 64 bytes */
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

/* Set this thread's tiles up; how they were before. */
static struct tiles set_up_tiles(void) {
    struct tiles before, ours = {.palette = 1};
    for (int tile = 0; tile < 8; tile++) {
        ours.row_bytes[tile] = 64;
        ours.rows[tile] = 16;
    }
    _tile_storeconfig(&before);
    _tile_loadconfig(&ours);
    return before;
}

static void put_back(const struct tiles *before) {
    if (before->palette)
        _tile_loadconfig(before);
    else
        _tile_release();
}

/* c [32, QUERIES] = (c where `adds`) + a [32, 32 * steps], whose rows are `a_bytes` apart, times b, in pairs. */
static void multiply(const bf16 *a, int64_t a_bytes, const bf16 *b, int64_t steps, float *c, int adds) {
    const int64_t row = 4 * QUERIES; /* bytes of a row of c, and of a row of b's pairs */
    if (adds) {
        _tile_loadd(0, c, row);
        _tile_loadd(1, c + 16, row);
        _tile_loadd(2, c + 16 * QUERIES, row);
        _tile_loadd(3, c + 16 * QUERIES + 16, row);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (int64_t step = 0; step < steps; step++) {
        _tile_loadd(4, a + 32 * step, a_bytes);
        _tile_loadd(5, (const char *)(a + 32 * step) + 16 * a_bytes, a_bytes);
        _tile_loadd(6, b + step * 16 * 2 * QUERIES, row);
        _tile_loadd(7, b + step * 16 * 2 * QUERIES + 32, row);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, row);
    _tile_stored(1, c + 16, row);
    _tile_stored(2, c + 16 * QUERIES, row);
    _tile_stored(3, c + 16 * QUERIES + 16, row);
}
#endif

#ifdef __AVX512BF16__
#ifndef HAS_TILES
#define ROWS 8 /* of c at a time, which fill half of the registers */

/* As above. */
static void multiply(const bf16 *a, int64_t a_bytes, const bf16 *b, int64_t steps, float *c, int adds) {
    for (int row = 0; row < 32; row += ROWS) {
        const char *from = (const char *)a + row * a_bytes;
        __m512 sums[ROWS][2];
#pragma GCC unroll 8
        for (int n = 0; n < ROWS; n++)
            for (int half = 0; half < 2; half++)
                sums[n][half] = adds ? _mm512_loadu_ps(c + (row + n) * QUERIES + 16 * half) : _mm512_setzero_ps();
        for (int64_t pair = 0; pair < 16 * steps; pair++) {
            __m512bh low = (__m512bh)_mm512_loadu_si512(b + pair * 2 * QUERIES);
            __m512bh high = (__m512bh)_mm512_loadu_si512(b + pair * 2 * QUERIES + 32);
#pragma GCC unroll 8
            for (int n = 0; n < ROWS; n++) {
                int32_t two;
                memcpy(&two, from + n * a_bytes + pair * sizeof two, sizeof two);
                __m512bh all = (__m512bh)_mm512_set1_epi32(two);
                sums[n][0] = _mm512_dpbf16_ps(sums[n][0], all, low);
                sums[n][1] = _mm512_dpbf16_ps(sums[n][1], all, high);
            }
        }
#pragma GCC unroll 8
        for (int n = 0; n < ROWS; n++)
            for (int half = 0; half < 2; half++)
                _mm512_storeu_ps(c + (row + n) * QUERIES + 16 * half, sums[n][half]);
    }
}
#endif

/* 2^x: four terms of the series of 2^r for |r| <= 1/2, right to 1e-4; for what is rounded to bfloat16. */
static inline __m512 power_of_two(__m512 x) {
    __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT), r = _mm512_sub_ps(x, n);
    __m512 series = _mm512_set1_ps(0.009618129f); /* (ln 2)^k / k! */
    series = _mm512_fmadd_ps(series, r, _mm512_set1_ps(0.055504109f));
    series = _mm512_fmadd_ps(series, r, _mm512_set1_ps(0.240226507f));
    series = _mm512_fmadd_ps(series, r, _mm512_set1_ps(0.693147181f));
    return _mm512_scalef_ps(_mm512_fmadd_ps(series, r, _mm512_set1_ps(1.0f)), n);
}

/* Two rows of numbers, as a row of pairs. */
static inline __m512i paired(__m512 one, __m512 two) {
    __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(one));
    __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(two));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

/* Queries see the keys up to their own places, and from window - 1 before it: the scores of all others are LOWEST.
   `place` is the first key's, counted from the first query's. */
static void hide(float (*scores)[QUERIES], int64_t keys, int64_t place, int64_t window) {
    __m512i numbers = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    for (int64_t k = 0; k < keys; k++)
        for (int half = 0; half < 2; half++) {
            __m512i query = _mm512_add_epi32(numbers, _mm512_set1_epi32(16 * half));
            __mmask16 hidden = _mm512_cmplt_epi32_mask(query, _mm512_set1_epi32((int32_t)(place + k)));
            if (window > 0)
                hidden |= _mm512_cmpge_epi32_mask(query, _mm512_set1_epi32((int32_t)(place + k + window)));
            _mm512_mask_storeu_ps(scores[k] + 16 * half, hidden, _mm512_set1_ps(LOWEST));
        }
}

/* A block of up to QUERIES queries, the first at `position`; `turned` are the values [size, turned_stride]. */
static void attend_block(const bf16 *queries, int64_t stride, int64_t count, int64_t position, const bf16 *keys,
                         const bf16 *turned, int64_t turned_stride, int64_t size, int64_t window, float scaling,
                         bf16 *out, int64_t out_stride) {
    bf16 pairs[size / 2][QUERIES][2], likely[KEYS / 2][QUERIES][2];
    float scores[KEYS][QUERIES], sums[size][QUERIES];
    __m512 highest[2], total[2], unit = _mm512_set1_ps(scaling * 1.44269504f); /* of scores as powers of two */
    int64_t end = position + count;
    int64_t begin = window > 0 && position + 1 > window ? (position + 1 - window) / 32 * 32 : 0;
    memset(pairs, 0, sizeof pairs);
    for (int64_t q = 0; q < count; q++)
        for (int64_t i = 0; i < size; i += 2)
            memcpy(pairs[i / 2][q], queries + q * stride + i, 2 * sizeof *queries);
    for (int half = 0; half < 2; half++) {
        highest[half] = _mm512_set1_ps(LOWEST);
        total[half] = _mm512_setzero_ps();
    }
    for (int64_t at = begin; at < end; at += KEYS) {
        int64_t length = end - at < KEYS ? end - at : KEYS, padded = (length + 31) / 32 * 32;
        for (int64_t k = 0; k < padded; k += 32)
            multiply(keys + (at + k) * size, 2 * size, pairs[0][0], size / 32, scores[k], 0);
        if (at + padded > position + 1 || (window > 0 && at + window < end))
            hide(scores, padded, at - position, window);
        for (int half = 0; half < 2; half++) {
            __m512 tops[4] = {highest[half], highest[half], highest[half], highest[half]};
            for (int64_t k = 0; k < padded; k += 4)
                for (int n = 0; n < 4; n++)
                    tops[n] = _mm512_max_ps(tops[n], _mm512_loadu_ps(scores[k + n] + 16 * half));
            __m512 most = _mm512_max_ps(_mm512_max_ps(tops[0], tops[1]), _mm512_max_ps(tops[2], tops[3]));
            __m512 before = power_of_two(_mm512_mul_ps(_mm512_sub_ps(highest[half], most), unit));
            __m512 base = _mm512_mul_ps(most, unit), sum = _mm512_mul_ps(total[half], before);
            for (int64_t k = 0; k < padded; k += 2) {
                __m512 one = power_of_two(_mm512_fmsub_ps(_mm512_loadu_ps(scores[k] + 16 * half), unit, base));
                __m512 two = power_of_two(_mm512_fmsub_ps(_mm512_loadu_ps(scores[k + 1] + 16 * half), unit, base));
                sum = _mm512_add_ps(sum, _mm512_add_ps(one, two));
                _mm512_storeu_si512(likely[k / 2][16 * half], paired(one, two));
            }
            highest[half] = most;
            total[half] = sum;
            for (int64_t i = 0; at > begin && i < size; i++)
                _mm512_storeu_ps(sums[i] + 16 * half, _mm512_mul_ps(_mm512_loadu_ps(sums[i] + 16 * half), before));
        }
        for (int64_t i = 0; i < size; i += 32)
            multiply(turned + i * turned_stride + at, 2 * turned_stride, likely[0][0], padded / 32, sums[i], at > begin);
    }
    uint32_t done[size / 2][QUERIES];
    for (int half = 0; half < 2; half++) {
        __m512 share = _mm512_div_ps(_mm512_set1_ps(1.0f), total[half]);
        for (int64_t i = 0; i < size; i += 2) {
            __m512 one = _mm512_mul_ps(_mm512_loadu_ps(sums[i] + 16 * half), share);
            __m512 two = _mm512_mul_ps(_mm512_loadu_ps(sums[i + 1] + 16 * half), share);
            _mm512_storeu_si512(done[i / 2] + 16 * half, paired(one, two));
        }
    }
    for (int64_t q = 0; q < count; q++)
        for (int64_t i = 0; i < size; i += 2)
            memcpy(out + q * out_stride + i, done[i / 2] + q, sizeof **done);
}

/* 32 vectors of `size` numbers, of which the first `count` count, as columns of a matrix. */
static void turn(const bf16 *from, int64_t count, int64_t size, bf16 *to, int64_t to_stride) {
    __m512i starts = _mm512_mullo_epi32(_mm512_set1_epi32((int32_t)(size / 2)),
                                        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
    __mmask32 counts = count < 32 ? (1u << count) - 1 : ~0u;
    for (int64_t i = 0; i < size; i += 2) {
        __m512i low = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), (__mmask16)counts, starts, from + i, 4);
        __m512i high = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), (__mmask16)(counts >> 16), starts,
                                                   from + i + 16 * size, 4);
        __m512i one = _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(low)),
                                         _mm512_cvtepi32_epi16(high), 1);
        __m512i two = _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(_mm512_srli_epi32(low, 16))),
                                         _mm512_cvtepi32_epi16(_mm512_srli_epi32(high, 16)), 1);
        _mm512_storeu_si512(to + i * to_stride, one);
        _mm512_storeu_si512(to + (i + 1) * to_stride, two);
    }
}

struct piece {
    const bf16 *queries, *keys, *values;
    bf16 *turned, *out;
    int64_t stride, position, tokens, heads, kv_heads, length, size, window;
    float scaling;
};

/* The values of 32 tokens at a time, head by head. */
static void turn_values(const void *given, int64_t begin, int64_t end) {
    const struct piece *p = given;
    int64_t filled = p->position + p->tokens, blocks = (filled + 31) / 32;
    for (int64_t block = begin; block < end; block++) {
        int64_t head = block / blocks, at = block % blocks * 32;
        const bf16 *from = p->values + (head * p->length + at) * p->size;
        turn(from, filled - at, p->size, p->turned + head * p->size * p->length + at, p->length);
    }
}

/* Blocks of queries of all heads, the longest first. */
static void attend_blocks(const void *given, int64_t begin, int64_t end) {
    const struct piece *p = given;
    int64_t size = p->size, blocks = (p->tokens + QUERIES - 1) / QUERIES;
#ifdef HAS_TILES
    struct tiles before = set_up_tiles();
#endif
    for (int64_t at = begin; at < end; at++) {
        int64_t first = (blocks - 1 - at / p->heads) * QUERIES, head = at % p->heads;
        int64_t count = p->tokens - first < QUERIES ? p->tokens - first : QUERIES;
        int64_t kv = head / (p->heads / p->kv_heads);
        attend_block(p->queries + first * p->stride + head * size, p->stride, count, p->position + first,
                     p->keys + kv * p->length * size, p->turned + kv * size * p->length, p->length, size, p->window,
                     p->scaling, p->out + (first * p->heads + head) * size, p->heads * size);
    }
#ifdef HAS_TILES
    put_back(&before);
#endif
}

/* `tokens` queries of one row, [tokens, heads * size] with a stride, the first at place `position`, attend to the keys
   and values [kv heads, length, size] up to their own places, or to the last `window` of these (0: to all). `size` is a
   multiple of 32, `length` of 32 and beyond the last place. `turned` is room for [kv heads, size, length]. */
void attend_piece(const bf16 *queries, int64_t stride, const bf16 *keys, const bf16 *values, int64_t position,
                  int64_t tokens, int64_t heads, int64_t kv_heads, int64_t length, int64_t size, int64_t window,
                  float scaling, bf16 *turned, bf16 *out, int threads) {
    struct piece piece = {queries, keys,  values,   turned, out,  stride, position,
                          tokens,  heads, kv_heads, length, size, window, scaling};
    share(threads, turn_values, &piece, kv_heads * ((position + tokens + 31) / 32), 8);
    share(threads, attend_blocks, &piece, (tokens + QUERIES - 1) / QUERIES * heads, 1);
}
#endif
